package publishing

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher"
)

// ConfirmJump asks before numbers are given up for good.
func ConfirmJump(c *cli.CLI, req publisher.PublishRequest) error {
	if req.Sequence == 0 || req.DryRun {
		return nil
	}
	yes, err := c.Confirm(fmt.Sprintf("The numbers of %s below %d can never be used again. Go on?", req.Channel, req.Sequence))
	if err == nil && !yes {
		err = fault.New(fault.Interrupted, "nothing was published: the answer was no")
	}
	return err
}

const maxNotesFile = 64 << 10 // of which a manifest takes 4 KiB; more is another kind of file

// ReleaseFlags say what a release is.
type ReleaseFlags struct {
	publisher.PublishRequest
	app, channel, notes               string
	platforms, attach, block, unblock []string
	critical, security                bool
	expires                           units.Duration
	plan                              PlanFlags
}

// Register gives cmd the flags.
func (f *ReleaseFlags) Register(cmd *cobra.Command) {
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
	f.plan.Register(cmd)
	fl.BoolVar(&f.Start, "start", false, "let the rollout begin at once; without, it is signed paused")
	cmd.MarkFlagsMutuallyExclusive("security", "critical")
}

// Request is what the flags ask for.
func (f *ReleaseFlags) Request(p *publisher.Publisher, args []string) (publisher.PublishRequest, error) {
	req := f.PublishRequest
	req.Expires, req.Plan = f.expires.Duration(), f.plan.Plan()
	if err := f.plan.Check(); err != nil {
		return req, err
	}
	var err error
	if req.Channel, err = p.Channel(ChannelName(f.app, f.channel)); err != nil {
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
		return req, cli.Usagef("--immediate goes with --critical")
	}
	for _, s := range f.block {
		sum, reason, _ := strings.Cut(s, "=")
		digest, err := cli.Digest("block", sum)
		if err != nil {
			return req, err
		}
		req.Block = append(req.Block, manifest.Blocked{SHA256: digest, Reason: reason})
	}
	for _, s := range f.unblock {
		digest, err := cli.Digest("unblock", s)
		if err != nil {
			return req, err
		}
		req.Unblock = append(req.Unblock, digest)
	}
	return req, nil
}

// ChannelName joins --app and --channel.
func ChannelName(app, channel string) string {
	if app != "" && !strings.Contains(channel, "/") {
		return app + "/" + channel
	}
	return channel
}

func filesToPublish(platforms, args []string) ([]publisher.File, error) {
	var files []publisher.File
	for _, s := range platforms {
		name, path, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, cli.Usagef("--platform %q is not os/arch=FILE", s)
		}
		platform, err := manifest.ParsePlatform(name)
		if err != nil {
			return nil, cli.Usagef("--platform: %w", err)
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
			return nil, cli.Usagef("--attach %q is not NAME=FILE", s).Do("--attach sbom.cdx.json=FILE")
		}
		files = append(files, publisher.Attach{Name: name, Path: path})
	}
	return files, nil
}

func readNotes(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", cli.Usagef("reading the notes: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNotesFile+1))
	if err != nil {
		return "", cli.Usagef("reading the notes: %w", err)
	}
	if len(b) > maxNotesFile {
		return "", cli.Usagef("the notes in %q are longer than %d bytes", path, maxNotesFile)
	}
	// Files from Windows are welcome; a manifest has no carriage returns.
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")), nil
}
