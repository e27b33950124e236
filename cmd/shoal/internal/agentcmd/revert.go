package agentcmd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

func newRevertCmd(c *cli.CLI) *cobra.Command {
	var (
		channel channelFlags
		to      string
	)
	cmd := &cobra.Command{
		Use:   "revert [APP/CHANNEL]",
		Short: "Put the previous version back, and keep it for now",
		Example: `  shoal agent revert
  shoal agent revert --to 2.3.0`,
		Long: `The previous versions are kept beside the target, so no network is needed. The one that comes back is
started and checked like an update. What was left is not installed again until the channel offers
another file, or until shoal agent resume. What the publisher has blocked does not come back.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			app, err := channel.one(cfg, args)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				r, err := h.Revert(ctx, app, to)
				if err != nil {
					return err
				}
				return c.Print("shoal.revert/v1", r, func(w io.Writer) { writeReverted(w, r) })
			})
		},
	}
	channel.add(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the `VERSION` to go back to; by default the latest that is kept")
	return cmd
}

func writeReverted(w io.Writer, r *agent.Reverted) {
	name := r.App + "/" + r.Channel
	if r.Code == fault.Same {
		fmt.Fprintf(w, "%s is on %s already.\n", name, words.OrUnknown(r.Version))
		if len(r.Previous) > 0 {
			fmt.Fprintf(w, "  Another one: shoal agent revert --to VERSION   (kept: %s)\n", words.Printable(strings.Join(r.Previous, ", ")))
		}
		return
	}
	fmt.Fprintf(w, "%s is back on %s; it was %s.\n", name, words.OrUnknown(r.Version), words.OrUnknown(r.From))
	switch {
	case !r.RevertedFrom.IsZero():
		fmt.Fprintf(w, "  It stays until %s offers another release, or: shoal agent resume\n", name)
	case r.Offered != nil && r.Offered.SHA256 != r.SHA256:
		fmt.Fprintf(w, "  %s offers %s, which is installed in its turn. To stay: shoal agent hold\n", name, words.Printable(r.Offered.Version))
	}
}
