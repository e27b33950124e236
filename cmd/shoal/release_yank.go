package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/units"
	"shoal/keys"
	"shoal/publisher"
)

func newReleaseYankCmd(c *cli) *cobra.Command {
	var req publisher.YankRequest
	var channel string
	var critical bool
	var expires units.Duration
	var refs []string
	cmd := &cobra.Command{
		Use:   "yank VERSION --to VERSION --reason TEXT",
		Short: "Take a release back: offer another instead, and block its files",
		Example: `  shoal release yank 1.8.3 --to 1.8.2 --reason "data loss on ext4"
  shoal release yank 1.8.3 --to 1.8.2 --reason "data loss" --draft`,
		Long: `The next sequence offers the files of the other release to every machine at once, and blocks those
of the one that is taken back; what was blocked before stays blocked. Machines that run a blocked
file replace it as soon as they see this.

It signs with every --key, or the configured ones; with fewer than the channel needs the draft and
its signatures are left in this directory for the next signer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.publisherConfig()
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			if req.Channel, err = p.Channel(channel); err != nil {
				return err
			}
			if req.Immediate && !critical {
				return usagef("--immediate goes with --critical")
			}
			if critical {
				req.Severity = "critical"
			}
			req.Version, req.Expires = args[0], expires.Duration()
			req.Keys = func(ctx context.Context) ([]keys.Signer, error) { return c.openSigners(ctx, refs, cfg.Keys.Release) }
			req.Confirm = c.agreedOr("--allow-version-regress")
			if err := c.confirmJump(publisher.PublishRequest{Channel: req.Channel, Sequence: req.Sequence, DryRun: req.DryRun}); err != nil {
				return err
			}
			ctx, cancel := c.withTimeout(cmd.Context(), 0)
			defer cancel()
			res, err := p.Yank(ctx, req)
			if err != nil {
				return c.nextWithConfig(err)
			}
			c.warnAll(res.Warnings)
			return c.print("shoal.publish/v1", res, func(w io.Writer) { c.writePublish(w, res) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&req.To, "to", "", "offer this `VERSION` instead")
	fl.StringVar(&req.Reason, "reason", "", "why, for people: `TEXT`")
	fl.StringVar(&channel, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	fl.BoolVar(&critical, "critical", false, "the change is critical")
	fl.BoolVar(&req.Immediate, "immediate", false, "with --critical: machines do not wait for their maintenance window")
	fl.BoolVar(&req.AllowVersionRegress, "allow-version-regress", false, "let machines go back to an older version, without asking")
	fl.Var(&expires, "expires", "how long it is believed; by default as configured, else as root allows")
	fl.Int64Var(&req.Sequence, "sequence", 0, "jump forward to this sequence `N`")
	fl.StringArrayVar(&refs, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&req.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&req.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	c.passphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
	return required(cmd, "to", "reason")
}
