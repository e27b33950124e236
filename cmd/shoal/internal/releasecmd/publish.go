package releasecmd

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/keys"
	"shoal/publisher"
	"shoal/publisher/ceremony"
)

// publishFlags are what "shoal publish" is told.
type publishFlags struct {
	publishing.ReleaseFlags
	envelope, data string
	keys           []string
}

// Publish is shoal publish.
func Publish(c *cli.CLI) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish --version V FILE...",
		Short: "Sign a release and put it into the repository",
		Example: `  shoal publish --version 2.4.1 --notes CHANGES.md dist/acme-linux-amd64 dist/acme-windows-amd64.exe
  shoal publish --version 2.5.0-n7 --channel nightly --platform linux/amd64=./acme --key env:SHOAL_RELEASE_KEY`,
		Long: `Each FILE is for the platform its name ends in; --platform says it for a file whose name does not.
The same files under the same version again change nothing.

With --waves, or where the channel has waves in the configuration, the release goes out wave by
wave, as it is signed, and begins with --start or shoal rollout start. Without, it goes to every
machine of the channel at once.

With fewer keys than the channel needs nothing is published: the draft and its signatures are
left in this directory for the next signer.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			if f.envelope != "" {
				if root, err := ceremony.IsRoot(f.envelope); err != nil || root {
					return publishRoot(ctx, c, cfg, &f, args, err)
				}
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			res, err := publish(ctx, c, p, cfg, &f, args)
			if err != nil {
				return publishing.NextWithConfig(c, err)
			}
			c.WarnAll(res.Warnings)
			return c.Print("shoal.publish/v1", res, func(w io.Writer) { publishing.WriteResult(c, w, res) })
		},
	}
	f.Register(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.keys, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&f.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&f.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	fl.StringVar(&f.envelope, "envelope", "", "publish this signed `FILE`, a release or a root, or add a signature to a release")
	fl.StringVar(&f.data, "data", "", "with --envelope: look for the files in `DIR`")
	c.PassphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
	for _, other := range []string{"version", "platform", "notes", "security", "critical", "immediate", "expires", "sequence",
		"allow-version-regress", "draft", "channel", "app", "kind", "block", "unblock", "waves", "soak", "stop-at-failed", "start", "attach"} {
		cmd.MarkFlagsMutuallyExclusive("envelope", other)
	}
	cmd.MarkFlagsOneRequired("version", "envelope")
	return cmd
}

func publish(ctx context.Context, c *cli.CLI, p *publisher.Publisher, cfg publisher.Config, f *publishFlags, args []string) (*publisher.PublishResult, error) {
	open := func(ctx context.Context) ([]keys.Signer, error) {
		return publishing.Signers(ctx, c, f.keys, cfg.Keys.Release)
	}
	if f.envelope != "" {
		return p.PublishEnvelope(ctx, publisher.EnvelopeRequest{
			Envelope: f.envelope, Files: args, DataDir: f.data, Keys: open, DryRun: f.DryRun,
		})
	}
	if f.data != "" {
		return nil, cli.Usagef("--data goes with --envelope").Do("name the files themselves")
	}
	req, err := f.Request(p, args)
	if err != nil {
		return nil, err
	}
	if err := publishing.ConfirmJump(c, req); err != nil {
		return nil, err
	}
	req.Keys = open
	return p.Publish(ctx, req)
}
