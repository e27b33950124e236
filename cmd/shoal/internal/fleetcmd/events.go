package fleetcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/publisher/fleet"
)

const followWait = 30 * time.Second // for news, in one request

func newEventsCmd(c *cli.CLI) *cobra.Command {
	var (
		follow bool
		lines  int
	)
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: failures, updates, approvals, rollouts",
		Example: `  shoal fleet events -n 50
  shoal fleet events --follow -o jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				page, err := f.Events(cmd.Context(), fleet.EventQuery{Last: true, Limit: lines})
				if err != nil {
					return err
				}
				if !follow {
					return printEvents(c, page.Events)
				}
				return followEvents(cmd.Context(), c, f, page)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on, and show what happens")
	cmd.Flags().IntVarP(&lines, "lines", "n", 20, "the last `N` events, at most 1000")
	return cmd
}

// followEvents prints events until it is interrupted.
func followEvents(ctx context.Context, c *cli.CLI, f fleet.Fleet, page *fleet.EventPage) error {
	c.Endless()
	// Without a serve nothing happens, and the store has to be free for one to start.
	_, alone := f.(*fleet.Store)
	for {
		if err := printEvents(c, page.Events); err != nil {
			return err
		}
		if alone {
			c.Warn("shoal serve is not running: these were the last events")
			return nil
		}
		next, err := f.Events(ctx, fleet.EventQuery{After: page.Next, Wait: followWait})
		switch {
		case err == nil:
			page = next
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, fault.Interrupted), errors.Is(err, fault.IO):
			c.Warn("shoal serve has stopped: these were the last events")
			return nil
		default:
			return err
		}
	}
}

func printEvents(c *cli.CLI, events []fleet.Event) error {
	return c.Print("shoal.event/v1", events, func(w io.Writer) {
		for _, e := range events {
			fmt.Fprintln(w, eventLine(e))
		}
	})
}

func eventLine(e fleet.Event) string {
	parts := []string{e.Time.UTC().Format(time.RFC3339), e.Kind}
	if e.Host != "" {
		parts = append(parts, e.Host)
	}
	if e.App != "" {
		parts = append(parts, strings.TrimSpace(e.App+"/"+e.Channel+" "+e.Version))
	}
	if e.State != "" {
		parts = append(parts, e.State)
	}
	if e.Count > 1 {
		parts = append(parts, fmt.Sprintf("%d times", e.Count))
	}
	if e.Text != "" {
		parts = append(parts, e.Text)
	}
	if e.Code != "" && e.Code != "ok" {
		parts = append(parts, "["+string(e.Code)+"]")
	}
	return words.OneLine(strings.Join(parts, "  "))
}
