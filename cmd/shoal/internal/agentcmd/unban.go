package agentcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
)

func newUnbanCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "unban",
		Short: "Let peers in again that are kept out for bad pieces",
		Example: `  shoal doctor network
  shoal agent unban`,
		Long: `A peer that sent pieces with wrong content is kept out for up to an hour. This ends all such bans of the
running agent at once, as when a disk that was to blame has been replaced.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := machine.Ask(cmd.Context(), c, agent.Unban)
			if err != nil {
				return err
			}
			out := struct {
				Lifted int `json:"lifted"`
			}{n}
			return c.Print("shoal.unban/v1", out, func(w io.Writer) { fmt.Fprintf(w, "%d bans are lifted\n", n) })
		},
	}
}
