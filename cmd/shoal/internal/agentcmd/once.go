package agentcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent/checker"
	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
	"shoal/manifest"
)

// onceFlags are those of "agent check --once" and "agent update --once".
type onceFlags struct {
	once                  bool
	source, platform, now string
}

func (f *onceFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "hold one source against the state in --state, and install nothing")
	fl.StringVar(&f.source, "source", "", "with --once: the `TREE`, a directory or a URL")
	fl.StringVar(&f.platform, "platform", "", "with --once: the platform, `os/arch`; by default this machine's")
	fl.StringVar(&f.now, "now", "", "with --once, on a state made by agent init: this `TIME` (RFC 3339) instead of the clock's")
}

// unused refuses the flags of --once without it.
func (f *onceFlags) unused(cmd *cobra.Command) error {
	for _, name := range []string{"source", "platform", "now", "out"} {
		if fl := cmd.Flags().Lookup(name); fl != nil && fl.Changed {
			return cli.Usagef("--%s goes with --once", name)
		}
	}
	return nil
}

// query reads the flags.
func query(c *cli.CLI, f *onceFlags, channel channelFlags) (checker.Query, error) {
	q := checker.Query{Dir: c.StateDir(), Source: f.source, Platform: manifest.Host()}
	var err error
	if q.Channel, err = channel.exact(); err != nil {
		return q, err
	}
	if q.Source == "" {
		return q, cli.Usagef("--source TREE is needed with --once")
	}
	q.Anchor = c.AnchorFile(q.Dir)
	q.JoinFile = c.JoinFile()
	if f.platform != "" {
		if q.Platform, err = manifest.ParsePlatform(f.platform); err != nil {
			return q, cli.Usagef("--platform: %w", err)
		}
	}
	if f.now != "" {
		now, err := time.Parse(time.RFC3339, f.now)
		if err != nil {
			return q, cli.Usagef("--now %q is not a time like 2026-10-14T06:00:00Z", f.now)
		}
		q.Now = &now
	}
	build := cli.BuildInfo()
	q.Version, q.Build = build.Version, build.Time
	return q, nil
}

// answerOnce answers a query; out is empty for a check. Every outcome but a wrong command line
// is one object on standard output, so that who drives it has one thing to read.
func answerOnce(ctx context.Context, c *cli.CLI, f *onceFlags, channel channelFlags, out string) error {
	q, err := query(c, f, channel)
	if err != nil {
		return err
	}
	ctx, cancel := c.WithTimeout(ctx, 0)
	defer cancel()
	var r *checker.Result
	if out == "" {
		r, err = q.Check(ctx)
	} else {
		r, err = q.Update(ctx, out)
	}
	if err != nil && fault.CodeOf(err) == fault.Usage {
		return err
	}
	if err != nil && c.ForPeople() {
		for _, e := range r.Events {
			if e.Code != r.Code { // the failure itself is told below
				c.Say("note: %s: %s [%s]", e.Doc, e.Detail, e.Code)
			}
		}
		return err
	}
	if perr := c.Print("shoal.check/v1", r, func(w io.Writer) { writeOnce(w, r) }); perr != nil {
		return perr
	}
	if r.Exit != 0 {
		return cli.ExitStatus(r.Exit)
	}
	return nil
}

func writeOnce(w io.Writer, r *checker.Result) {
	word := "is new and good"
	if r.Code == fault.Same {
		word = "is known and good"
	}
	fmt.Fprintf(w, "%s/%s %s (%d.%d) %s until %s; beacon: %s\n", r.App, r.Channel, r.Version, r.Epoch, r.Sequence, word,
		r.Expires.UTC().Format("2006-01-02 15:04 MST"), r.Freshness)
	if r.Artifact != nil {
		fmt.Fprintln(w, r.Artifact)
	} else {
		fmt.Fprintln(w, r.Message)
	}
	if r.Out != "" {
		fmt.Fprintf(w, "It is in %s\n", r.Out)
	}
	for _, e := range r.Events {
		fmt.Fprintf(w, "note: %s: %s [%s]\n", e.Doc, e.Detail, e.Code)
	}
}
