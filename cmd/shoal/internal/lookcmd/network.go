package lookcmd

import (
	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/internal/fault"
)

func newDoctorNetworkCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "network",
		Short: "Say of every source, tracker, peer and LAN whether it works, and what mends it",
		Example: `  shoal doctor network
  shoal doctor network -o json`,
		Long: `Asks every source, tracker and known peer at once, lists the networks that count as LAN and what is heard
there, and says who reaches this machine. A running agent is asked to look itself; it changes nothing.
Exit status 12: nothing could be reached; 0: something was, although other things may need mending.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := machine.Ask(cmd.Context(), c, agent.ExamineNetwork)
			if err != nil {
				return err
			}
			status := 0
			if !x.Reached {
				status = fault.Unreachable.Exit()
			}
			out := struct {
				*agent.NetworkExamined
				Exit int `json:"exit"`
			}{x, status}
			return tellExamined(c, "shoal.doctor-network/v1", out, &x.Examined, status)
		},
	}
}
