package agentcmd

import (
	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
)

func newPinCmd(c *cli.CLI) *cobra.Command {
	var channel channelFlags
	cmd := &cobra.Command{
		Use:   "pin VERSION [APP/CHANNEL]",
		Short: "Install no version but this one",
		Example: `  shoal agent pin 2.4.1
  shoal agent pin 2.4.1 acme/stable`,
		Long: `VERSION is one that is installed or offered. If it is only offered it is installed in its turn. A pin
outlives restarts, and no flag of an update skips it; shoal agent unpin ends it. To put an older
version back: shoal agent revert --to VERSION.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return pin(c, cmd, &channel, args[1:], agent.Wish{Pin: args[0]}, func(w agent.Wished) string {
				if w.Changed {
					return "is pinned to " + w.Pin + ".  End it: shoal agent unpin"
				}
				return "is pinned to " + w.Pin + " already"
			})
		},
	}
	channel.add(cmd)
	return cmd
}

func newUnpinCmd(c *cli.CLI) *cobra.Command {
	var channel channelFlags
	cmd := &cobra.Command{
		Use:   "unpin [APP/CHANNEL]",
		Short: "Take whatever version the channel offers again",
		Example: `  shoal agent unpin
  shoal agent unpin acme/stable`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return pin(c, cmd, &channel, args, agent.Wish{Unpin: true}, func(w agent.Wished) string {
				if w.Changed {
					return "is not pinned any more"
				}
				return "was not pinned"
			})
		},
	}
	channel.add(cmd)
	return cmd
}

// pin is wish for one app: a version belongs to one.
func pin(c *cli.CLI, cmd *cobra.Command, channel *channelFlags, args []string, wish agent.Wish, line func(agent.Wished) string) error {
	cfg, err := machine.Config(c)
	if err != nil {
		return err
	}
	app, err := channel.one(cfg, args)
	if err != nil {
		return err
	}
	return tellWish(cmd.Context(), c, "shoal.pin/v1", &channelFlags{app: app}, nil, wish, line)
}
