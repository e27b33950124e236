package agentcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/state"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
)

func newHoldCmd(c *cli.CLI) *cobra.Command {
	var (
		channel channelFlags
		until   string
		length  units.Duration
	)
	cmd := &cobra.Command{
		Use:   "hold [APP/CHANNEL...]",
		Short: "Begin no update here until told otherwise",
		Example: `  shoal agent hold acme/stable
  shoal agent hold --until '2026-12-24 18:00'`,
		Long: `What is installed keeps running and is given to neighbours; news are still read and checked. An update
under way is stopped before its swap. A hold outlives restarts; shoal agent resume ends it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			end := state.NoEnd
			switch {
			case until != "" && length != 0:
				return cli.Usagef("--until and --for exclude each other")
			case until != "":
				t, err := parseMoment(until)
				if err != nil {
					return err
				}
				end = t
			case length < 0:
				return cli.Usagef("--for %s is in the past", length)
			case length > 0:
				end = time.Now().Add(length.Duration()).Truncate(time.Second)
			}
			return hold(cmd.Context(), c, &channel, args, end)
		},
	}
	channel.add(cmd)
	cmd.Flags().StringVar(&until, "until", "", "the end, a `TIME` such as '2026-12-24 18:00' or 2026-12-24T17:00:00Z")
	cmd.Flags().Var(&length, "for", "the length, as 90m, 8h or 3d")
	return cmd
}

func newPauseCmd(c *cli.CLI) *cobra.Command {
	var channel channelFlags
	cmd := &cobra.Command{
		Use:   "pause DURATION [APP/CHANNEL...]",
		Short: "Begin no update here for a while",
		Example: `  shoal agent pause 2h
  shoal agent pause 3d acme/stable`,
		Long: "It is shoal agent hold --for DURATION; shoal agent resume ends it before its time.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			length, err := units.ParseDuration(args[0])
			if err != nil {
				return cli.Usagef("%w", err)
			}
			if length <= 0 {
				return cli.Usagef("a pause of %s has no length", length)
			}
			return hold(cmd.Context(), c, &channel, args[1:], time.Now().Add(length.Duration()).Truncate(time.Second))
		},
	}
	channel.add(cmd)
	return cmd
}

func newResumeCmd(c *cli.CLI) *cobra.Command {
	var channel channelFlags
	cmd := &cobra.Command{
		Use:   "resume [APP/CHANNEL...]",
		Short: "End a hold or a pause, and the hold that a revert has left",
		Example: `  shoal agent resume
  shoal agent resume acme/stable`,
		Long: "A pin stays: shoal agent unpin. What the publisher holds or has paused is the publisher's to lift.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return tellWish(cmd.Context(), c, "shoal.hold/v1", &channel, args, agent.Wish{Resume: true}, func(w agent.Wished) string {
				if w.Changed {
					return "is not held any more"
				}
				return "was not held"
			})
		},
	}
	channel.add(cmd)
	return cmd
}

func hold(ctx context.Context, c *cli.CLI, channel *channelFlags, args []string, until time.Time) error {
	return tellWish(ctx, c, "shoal.hold/v1", channel, args, agent.Wish{HoldUntil: until}, func(w agent.Wished) string {
		text := "is held"
		if !w.Changed {
			text += " already"
		}
		if !w.HoldUntil.Equal(state.NoEnd) {
			text += " until " + words.Moment(w.HoldUntil)
		}
		return text + ".  End it: shoal agent resume"
	})
}

// tellWish tells the agent what its operator wants, and prints a line for each app.
func tellWish(ctx context.Context, c *cli.CLI, schema string, channel *channelFlags, args []string, wish agent.Wish, line func(agent.Wished) string) error {
	cfg, apps, err := commanded(c, channel, args)
	if err != nil {
		return err
	}
	return machine.With(ctx, c, cfg, func(ctx context.Context, h agent.Handle) error {
		wished, err := h.Wish(ctx, apps, wish)
		if err != nil {
			return err
		}
		out := struct {
			Apps []agent.Wished `json:"apps"`
		}{wished}
		return c.Print(schema, out, func(w io.Writer) {
			for _, app := range wished {
				fmt.Fprintf(w, "%s/%s %s\n", app.App, app.Channel, words.Printable(line(app)))
			}
		})
	})
}

// parseMoment reads a time as people write it, in this machine's zone, or RFC 3339.
func parseMoment(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, cli.Usagef("%q is not a time: write '2026-12-24 18:00', 2026-12-24 or 2026-12-24T17:00:00Z", s)
}
