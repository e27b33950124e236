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
	"shoal/publisher/ceremony"
)

const maxNotesFile = 64 << 10 // of which a manifest takes 4 KiB; more is another kind of file

// releaseFlags say what a release is.
type releaseFlags struct {
	publisher.PublishRequest
	app, channel, notes               string
	platforms, attach, block, unblock []string
	critical, security                bool
	expires                           units.Duration
	plan                              planFlags
}

func (f *releaseFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.Version, "version", "", "the release's `VERSION`")
	fl.StringVar(&f.channel, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	fl.StringVar(&f.app, "app", "", "`NAME` of the app, where there are several")
	fl.StringArrayVar(&f.platforms, "platform", nil, "a file and what it was built for: `os/arch=FILE`; may be given again")
	fl.StringVar(&f.Kind, "kind", manifest.KindBinary, "what the files are: binary, tree or installer")
	fl.StringVar(&f.notes, "notes", "", "`FILE` with the release notes, plain text")
	fl.StringArrayVar(&f.attach, "attach", nil, "sign the hash of a bill of materials or the like with the release: `NAME=FILE`; may be given again")
	fl.BoolVar(&f.security, "security", false, "the release fixes a security problem")
	fl.BoolVar(&f.critical, "critical", false, "the release is critical")
	fl.BoolVar(&f.Immediate, "immediate", false, "with --critical: machines do not wait for their maintenance window")
	fl.Var(&f.expires, "expires", "how long the release is believed; by default as configured, else as root allows")
	fl.Int64Var(&f.Sequence, "sequence", 0, "jump forward to this sequence `N`")
	fl.BoolVar(&f.AllowVersionRegress, "allow-version-regress", false, "let the version be older than the published one")
	fl.StringArrayVar(&f.block, "block", nil, "let no machine run this content any more: `SHA256[=REASON]`; may be given again")
	fl.StringArrayVar(&f.unblock, "unblock", nil, "let machines run this content again: `SHA256`; may be given again")
	f.plan.register(cmd)
	fl.BoolVar(&f.Start, "start", false, "let the rollout begin at once; without, it is signed paused")
	cmd.MarkFlagsMutuallyExclusive("security", "critical")
}

// publishFlags are what "shoal publish" is told.
type publishFlags struct {
	releaseFlags
	envelope, data string
	keys           []string
}

func newPublishCmd(c *cli) *cobra.Command {
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
			cfg, err := c.publisherConfig()
			if err != nil {
				return err
			}
			ctx, cancel := c.withTimeout(cmd.Context(), 0)
			defer cancel()
			if f.envelope != "" {
				if root, err := ceremony.IsRoot(f.envelope); err != nil || root {
					return c.publishRoot(ctx, cfg, &f, args, err)
				}
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			res, err := c.publish(ctx, p, cfg, &f, args)
			if err != nil {
				return c.nextWithConfig(err)
			}
			c.warnAll(res.Warnings)
			return c.print("shoal.publish/v1", res, func(w io.Writer) { c.writePublish(w, res) })
		},
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.keys, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&f.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&f.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	fl.StringVar(&f.envelope, "envelope", "", "publish this signed `FILE`, a release or a root, or add a signature to a release")
	fl.StringVar(&f.data, "data", "", "with --envelope: look for the files in `DIR`")
	c.passphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
	for _, other := range []string{"version", "platform", "notes", "security", "critical", "immediate", "expires", "sequence",
		"allow-version-regress", "draft", "channel", "app", "kind", "block", "unblock", "waves", "soak", "stop-at-failed", "start", "attach"} {
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
	req, err := f.request(p, args)
	if err != nil {
		return nil, err
	}
	if err := c.confirmJump(req); err != nil {
		return nil, err
	}
	req.Keys = open
	return p.Publish(ctx, req)
}

// request is what the flags ask for.
func (f *releaseFlags) request(p *publisher.Publisher, args []string) (publisher.PublishRequest, error) {
	req := f.PublishRequest
	req.Expires, req.Plan = f.expires.Duration(), f.plan.plan()
	if err := f.plan.check(); err != nil {
		return req, err
	}
	var err error
	if req.Channel, err = p.Channel(channelName(f.app, f.channel)); err != nil {
		return req, err
	}
	if req.Files, err = filesToPublish(f.platforms, args); err != nil {
		return req, err
	}
	if req.Attachments, err = filesToAttach(f.attach); err != nil {
		return req, err
	}
	if f.notes != "" {
		if req.Notes, err = readNotes(f.notes); err != nil {
			return req, err
		}
	}
	switch {
	case f.critical:
		req.Severity = "critical"
	case f.security:
		req.Severity = "security"
	}
	if f.Immediate && !f.critical {
		return req, usagef("--immediate goes with --critical")
	}
	for _, s := range f.block {
		sum, reason, _ := strings.Cut(s, "=")
		digest, err := digestFlag("block", sum)
		if err != nil {
			return req, err
		}
		req.Block = append(req.Block, manifest.Blocked{SHA256: digest, Reason: reason})
	}
	for _, s := range f.unblock {
		digest, err := digestFlag("unblock", s)
		if err != nil {
			return req, err
		}
		req.Unblock = append(req.Unblock, digest)
	}
	return req, nil
}

// channelName joins --app and --channel.
func channelName(app, channel string) string {
	if app != "" && !strings.Contains(channel, "/") {
		return app + "/" + channel
	}
	return channel
}

// digestFlag reads a SHA-256, with "sha256:" before it or without.
func digestFlag(flag, value string) (manifest.Digest, error) {
	d, err := manifest.ParseDigest(strings.TrimPrefix(value, "sha256:"))
	if err != nil {
		return d, usagef("--%s: %w", flag, err)
	}
	return d, nil
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

func filesToAttach(attach []string) ([]publisher.Attach, error) {
	var files []publisher.Attach
	for _, s := range attach {
		name, path, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, usagef("--attach %q is not NAME=FILE", s).Do("--attach sbom.cdx.json=FILE")
		}
		files = append(files, publisher.Attach{Name: name, Path: path})
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
	for _, a := range res.Attached {
		fmt.Fprintf(tw, "attached\t%s\tsha256 %s\t%s\n", size(a.Length), short(a.SHA256.String()), a.Name)
	}
	tw.Flush()
	sequence := fmt.Sprintf("sequence %d", res.Sequence)
	version := res.Version
	if res.Already {
		fmt.Fprintf(w, "%s %s is already published as %s; nothing was changed.\n", res.Channel, version, sequence)
		return
	}
	if res.Previous != "" {
		if res.Previous != version {
			version = res.Previous + " → " + version
		}
		last, err := manifest.ParseOrder(res.PreviousOrder)
		if err == nil && last.Epoch == res.Epoch {
			sequence = fmt.Sprintf("sequence %d → %d", last.Sequence, res.Sequence)
		} else {
			sequence = fmt.Sprintf("sequence %s → %d.%d", res.PreviousOrder, res.Epoch, res.Sequence)
		}
	}
	fmt.Fprintf(w, "%s  %s   %s   expires %s   %s\n", res.Channel, version, sequence, res.Expires.Format("2006-01-02"), waveWords(res))
	if res.Blocked > 0 {
		fmt.Fprintf(w, "Blocked: %d file(s) that no machine runs.\n", res.Blocked)
	}
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
		fmt.Fprintf(w, "Signed by %s (%d of %d).\n", signerNames(res), len(res.SignedBy), res.Threshold)
		if res.Paused {
			fmt.Fprintf(w, "Next: %s     then     %s\n", c.again("serve"), c.again("rollout start"))
			return
		}
		fmt.Fprintf(w, "Next: %s\n", c.again("serve"))
	}
}

func signerNames(res *publisher.PublishResult) string {
	var names []string
	for _, s := range res.SignedBy {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
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
