package agentcmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
)

func newUpdateCmd(c *cli.CLI) *cobra.Command {
	var (
		channel channelFlags
		once    onceFlags
		choice  agent.Choice
		out     string
		wait    bool
	)
	cmd := &cobra.Command{
		Use:   "update [APP/CHANNEL...]",
		Short: "Install what the channel asks for now",
		Example: `  shoal agent update
  shoal agent update --once --state ./check --source ./tree --app acme --channel stable --out ./acme`,
		Long: `--override does not wait for a wave, a maintenance window or a hold of this machine's operator. No flag
skips a check: a release that the publisher has paused, held or blocked is not installed, nor is one
that a pin or a revert keeps away, and what does not verify never is.

With --once nothing is installed: the verified artifact is written to --out, whole, or what was
there stays. The answer is that of agent check --once.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if once.once {
				if out == "" {
					return cli.Usagef("--out FILE is needed with --once")
				}
				if len(args) > 0 || choice != (agent.Choice{}) {
					return cli.Usagef("--once takes --app, --channel and --out only")
				}
				return answerOnce(cmd.Context(), c, &once, channel, out)
			}
			if err := once.unused(cmd); err != nil {
				return err
			}
			cfg, apps, err := commanded(c, &channel, args)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				if !wait && !h.Serving() {
					return cli.Usagef("no agent is running that would go on: --wait=false needs one").Do("shoal agent run")
				}
				lines := machine.NewProgress(c)
				updated, err := h.Update(ctx, apps, choice, wait, lines.Show)
				if err != nil {
					return err
				}
				return tellUpdated(c, updated, wait)
			})
		},
	}
	channel.add(cmd)
	once.add(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&choice.Retry, "retry", false, "try again what has failed on this machine")
	fl.BoolVar(&choice.Override, "override", false, "do not wait for waves, windows and a local hold")
	fl.BoolVar(&choice.AllowExpired, "allow-expired", false, "this once, take a manifest that ran out of date")
	fl.BoolVar(&wait, "wait", true, "wait for the end; --wait=false leaves it to the running agent")
	fl.StringVar(&out, "out", "", "with --once: the `FILE` to write")
	return cmd
}

// tellUpdated prints how the updates ended; the first failure is the command's.
func tellUpdated(c *cli.CLI, updated []agent.Updated, wait bool) error {
	for _, u := range updated {
		if u.Error != nil && u.Code.Exit() != 0 {
			return u.Error.Err()
		}
	}
	out := struct {
		Apps []agent.Updated `json:"apps"`
	}{updated}
	return c.Print("shoal.update/v1", out, func(w io.Writer) {
		for _, u := range updated {
			name := u.App + "/" + u.Channel
			switch {
			case u.Code == fault.Same:
				fmt.Fprintf(w, "%s is up to date: %s\n", name, words.OrUnknown(u.Version))
			case !wait:
				fmt.Fprintf(w, "%s: update begun.  Watch: shoal agent status\n", name)
			case u.State == manifest.StateConfirming:
				fmt.Fprintf(w, "%s: the agent restarts into another version of itself, which has to prove itself.  Watch: shoal agent status\n", name)
			default:
				fmt.Fprintf(w, "%s is now %s, %s\n", name, u.Version, u.State)
				if u.Update != nil {
					fmt.Fprintln(w, "  "+sources(u.Update))
				}
			}
		}
	})
}

// sources says where an update's bytes came from.
func sources(u *agent.UpdateStatus) string {
	b := u.Bytes
	if all := b.LAN + b.WAN + b.Origin + b.Webseed; all == 0 {
		return fmt.Sprintf("%s, which were here already, in %.1f s", words.Size(u.Length), u.Seconds)
	}
	return fmt.Sprintf("%s: lan %s, wan %s, origin %s, webseed %s, in %.1f s",
		words.Size(u.Length), words.Size(b.LAN), words.Size(b.WAN), words.Size(b.Origin), words.Size(b.Webseed), u.Seconds)
}
