package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher"
)

const maxNotesFile = 64 << 10 // of which a manifest takes 4 KiB; more is another kind of file

// publishFlags are what "shoal publish" is told.
type publishFlags struct {
	publisher.PublishRequest
	app, channel, notes, envelope, data string
	platforms, keys                     []string
	critical, security                  bool
	expires                             units.Duration
}

func newPublishCmd(c *cli) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish --version V FILE...",
		Short: "Sign a release and put it into the repository",
		Example: `  shoal publish --version 2.4.1 --notes CHANGES.md dist/acme-linux-amd64 dist/acme-windows-amd64.exe
  shoal publish --version 2.5.0-n7 --channel nightly --platform linux/amd64=./acme --key env:SHOAL_RELEASE_KEY`,
		Long: `Each FILE is for the platform its name ends in; --platform says it for a file whose name does not.
The release goes to every machine of the channel. The same files under the same version again
change nothing.

With fewer keys than the channel needs nothing is published: the draft and its signatures are
left in this directory for the next signer.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.publisherConfig()
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			ctx, cancel := c.withTimeout(cmd.Context(), 0)
			defer cancel()
			res, err := c.publish(ctx, p, cfg, &f, args)
			if err != nil {
				return c.nextWithConfig(err)
			}
			return c.print("shoal.publish/v1", res, func(w io.Writer) { c.writePublish(w, res) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Version, "version", "", "the release's `VERSION`")
	fl.StringVar(&f.channel, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	fl.StringVar(&f.app, "app", "", "`NAME` of the app, where there are several")
	fl.StringArrayVar(&f.platforms, "platform", nil, "a file and what it was built for: `os/arch=FILE`; may be given again")
	fl.StringVar(&f.Kind, "kind", manifest.KindBinary, "what the files are: binary, tree or installer")
	fl.StringVar(&f.notes, "notes", "", "`FILE` with the release notes, plain text")
	fl.BoolVar(&f.security, "security", false, "the release fixes a security problem")
	fl.BoolVar(&f.critical, "critical", false, "the release is critical")
	fl.BoolVar(&f.Immediate, "immediate", false, "with --critical: machines do not wait for their maintenance window")
	fl.Var(&f.expires, "expires", "how long the release is believed; by default as configured, else as root allows")
	fl.Int64Var(&f.Sequence, "sequence", 0, "jump forward to this sequence `N`")
	fl.BoolVar(&f.AllowVersionRegress, "allow-version-regress", false, "let the version be older than the published one")
	fl.StringArrayVar(&f.keys, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&f.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&f.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	fl.StringVar(&f.envelope, "envelope", "", "publish this signed `FILE`, or add a signature to it")
	fl.StringVar(&f.data, "data", "", "with --envelope: look for the files in `DIR`")
	c.passphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("security", "critical")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
	for _, other := range []string{"version", "platform", "notes", "security", "critical", "immediate", "expires", "sequence",
		"allow-version-regress", "draft", "channel", "app", "kind"} {
		cmd.MarkFlagsMutuallyExclusive("envelope", other)
	}
	cmd.MarkFlagsOneRequired("version", "envelope")
	return cmd
}

func (c *cli) publish(ctx context.Context, p *publisher.Publisher, cfg publisher.Config, f *publishFlags, args []string) (*publisher.PublishResult, error) {
	open := func(ctx context.Context) ([]keys.Signer, error) { return c.openSigners(ctx, f.keys, cfg.Keys.Release) }
	if f.envelope != "" {
		return p.PublishEnvelope(ctx, publisher.EnvelopeRequest{
			Envelope: f.envelope, Files: args, DataDir: f.data, Keys: open, DryRun: f.DryRun,
		})
	}
	if f.data != "" {
		return nil, usagef("--data goes with --envelope").Do("name the files themselves")
	}
	req := f.PublishRequest
	name := f.channel
	if f.app != "" && !strings.Contains(name, "/") {
		name = f.app + "/" + name
	}
	var err error
	if req.Channel, err = p.Channel(name); err != nil {
		return nil, err
	}
	if req.Files, err = filesToPublish(f.platforms, args); err != nil {
		return nil, err
	}
	if f.notes != "" {
		if req.Notes, err = readNotes(f.notes); err != nil {
			return nil, err
		}
	}
	switch {
	case f.critical:
		req.Severity = "critical"
	case f.security:
		req.Severity = "security"
	}
	if f.Immediate && !f.critical {
		return nil, usagef("--immediate goes with --critical")
	}
	if f.Sequence != 0 && !f.DryRun {
		yes, err := c.confirm(fmt.Sprintf("The numbers of %s below %d can never be used again. Go on?", req.Channel, f.Sequence))
		if err != nil {
			return nil, err
		}
		if !yes {
			return nil, fault.New(fault.Interrupted, "nothing was published: the answer was no")
		}
	}
	req.Expires, req.Keys = f.expires.Duration(), open
	return p.Publish(ctx, req)
}

func filesToPublish(platforms, args []string) ([]publisher.File, error) {
	var files []publisher.File
	for _, s := range platforms {
		name, path, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, usagef("--platform %q is not os/arch=FILE", s)
		}
		platform, err := manifest.ParsePlatform(name)
		if err != nil {
			return nil, usagef("--platform: %w", err)
		}
		files = append(files, publisher.File{Path: path, Platform: platform})
	}
	for _, path := range args {
		files = append(files, publisher.File{Path: path})
	}
	return files, nil
}

func readNotes(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", usagef("reading the notes: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNotesFile+1))
	if err != nil {
		return "", usagef("reading the notes: %w", err)
	}
	if len(b) > maxNotesFile {
		return "", usagef("the notes in %q are longer than %d bytes", path, maxNotesFile)
	}
	// Files from Windows are welcome; a manifest has no carriage returns.
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")), nil
}

// openSigners opens the keys that were named, or the configured ones. A configured key
// file that is not on this machine is somebody else's to sign with.
func (c *cli) openSigners(ctx context.Context, named, configured []string) ([]keys.Signer, error) {
	var signers []keys.Signer
	refs := named
	if len(named) == 0 {
		refs = configured
	}
	for _, ref := range refs {
		s, err := keys.Open(ctx, ref, c.passphrase)
		if len(named) == 0 && errors.Is(err, fs.ErrNotExist) {
			c.say("%s is not here, and does not sign", ref)
			continue
		}
		if err != nil {
			return nil, keyError(ref, err)
		}
		signers = append(signers, s)
	}
	return signers, nil
}

func (c *cli) writePublish(w io.Writer, res *publisher.PublishResult) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range res.Artifacts {
		fmt.Fprintf(tw, "%s\t%s\tsha256 %s\t%s\n", a.Platform, size(a.Length), short(a.SHA256.String()), a.File)
	}
	tw.Flush()
	sequence := fmt.Sprintf("sequence %d", res.Sequence)
	version := res.Version
	if res.Already {
		fmt.Fprintf(w, "%s %s is already published as %s; nothing was changed.\n", res.Channel, version, sequence)
		return
	}
	if res.Previous != "" {
		version = res.Previous + " → " + version
		last, err := manifest.ParseOrder(res.PreviousOrder)
		if err == nil && last.Epoch == res.Epoch {
			sequence = fmt.Sprintf("sequence %d → %d", last.Sequence, res.Sequence)
		} else {
			sequence = fmt.Sprintf("sequence %s → %d.%d", res.PreviousOrder, res.Epoch, res.Sequence)
		}
	}
	fmt.Fprintf(w, "%s  %s   %s   expires %s   everyone at once\n", res.Channel, version, sequence, res.Expires.Format("2006-01-02"))
	if len(res.Left) > 0 {
		fmt.Fprintf(w, "Left out: %s had a build in %s and has none now; machines there stay as they are.\n",
			strings.Join(res.Left, ", "), res.Previous)
	}
	switch {
	case res.DryRun:
		fmt.Fprintf(w, "Dry run: nothing was signed or changed. %d key(s) must sign.\n", res.Threshold)
	case res.Draft != "":
		fmt.Fprintf(w, "Wrote %s for review; nothing was signed or published.\n", res.Draft)
		fmt.Fprintf(w, "Sign it: ssh-keygen -Y sign -n %s -f KEY %s\n", manifest.TypeManifest, shellWord(res.Draft))
	default:
		var names []string
		for _, s := range res.SignedBy {
			names = append(names, s.Name)
		}
		fmt.Fprintf(w, "Signed by %s (%d of %d).\n", strings.Join(names, ", "), len(names), res.Threshold)
		fmt.Fprintf(w, "Next: %s\n", c.again("serve"))
	}
}

// again is the command line for verb with the configuration of this one.
func (c *cli) again(verb string) string {
	if c.flags.config == "" {
		return "shoal " + verb
	}
	return "shoal --config " + shellWord(c.flags.config) + " " + verb
}

// nextWithConfig makes the commands that err offers find this configuration again.
func (c *cli) nextWithConfig(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		for i, next := range e.Next {
			if rest, ok := strings.CutPrefix(next, "shoal publish "); ok {
				e.Next[i] = c.again("publish ") + rest
			}
		}
	}
	return err
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// short is the beginning of a hash, for a line that people read.
func short(hex string) string { return hex[:min(len(hex), 12)] }
