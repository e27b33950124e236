package agentcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

func newCheckCmd(c *cli.CLI) *cobra.Command {
	var (
		channel channelFlags
		once    onceFlags
	)
	cmd := &cobra.Command{
		Use:   "check [APP/CHANNEL...]",
		Short: "Ask whether there is an update; install nothing",
		Example: `  shoal agent check; echo $?
  shoal agent check --once --state ./check --source /mnt/stick --app acme --channel stable -o json`,
		Long: `Exit status 10: an update is available. 11: it is available and held for now. 0: nothing new.
Anything else: the check failed, and why is printed.

With --once the answer is one object of schema shoal.check/v1: code, root_version, epoch, sequence,
manifest_sha256, freshness, changed and events are always there, and, of a failure, message, lines,
detail and next. The exit status is the code's, never 10 or 11. docs/conformance.md has the rest.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if once.once {
				if len(args) > 0 {
					return cli.Usagef("--once takes --app and --channel, no arguments")
				}
				return answerOnce(cmd.Context(), c, &once, channel, "")
			}
			if err := once.unused(cmd); err != nil {
				return err
			}
			cfg, apps, err := commanded(c, &channel, args)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				checks, err := h.Check(ctx, apps)
				if err != nil {
					return err
				}
				return tellChecks(c, checks)
			})
		},
	}
	channel.add(cmd)
	once.add(cmd)
	return cmd
}

// tellChecks prints what a check found. A check that failed is an error; then an update
// counts before one that is held.
func tellChecks(c *cli.CLI, checks *agent.Checks) error {
	status := 0
	for _, app := range checks.Apps {
		switch {
		case app.Error != nil && app.Code == fault.Held:
			if status == 0 {
				status = fault.Held.Exit()
			}
		case app.Error != nil && app.Code == fault.NoArtifact:
		case app.Error != nil && app.Code.Exit() != 0:
			return app.Error.Err()
		case app.Available:
			status = fault.ExitUpdateAvailable
		}
	}
	out := struct {
		*agent.Checks
		Exit int `json:"exit"`
	}{checks, status}
	if err := c.Print("shoal.agent-check/v1", out, func(w io.Writer) {
		for _, app := range checks.Apps {
			fmt.Fprintln(w, checkLine(app))
		}
	}); err != nil {
		return err
	}
	if status != 0 {
		return cli.ExitStatus(status)
	}
	return nil
}

// checkLine is one app's answer as a sentence.
func checkLine(app agent.Check) string {
	if !app.Available || app.Offered == nil {
		text := fmt.Sprintf("%s/%s is up to date: %s", app.App, app.Channel, words.OrUnknown(app.Version))
		if app.Error != nil {
			text = fmt.Sprintf("%s/%s: %s", app.App, app.Channel, app.Error.Message)
		}
		return text
	}
	text := fmt.Sprintf("%s %s is available", app.App, app.Offered.Version)
	if s := app.Offered.Severity; s != "" && s != "normal" {
		text += " (" + s + ")"
	}
	if app.Error == nil {
		return text + ".  Install it: shoal agent update"
	}
	text += " and held: " + app.Error.Message
	if app.Why != nil && !app.Why.Until.IsZero() {
		text += " (in " + words.Roughly(time.Until(app.Why.Until)) + ")"
	}
	for _, next := range app.Error.Next {
		text += ".  " + next
	}
	return text
}
