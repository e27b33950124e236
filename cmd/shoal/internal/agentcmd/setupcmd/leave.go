package setupcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/internal/fault"
)

func newLeaveCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "End this machine's membership; its programs stay as they are",
		Example: `  shoal agent leave
  shoal agent leave --yes`,
		Long: `Removes the pin, the trust with its second copy, the agent's key, the fleet's key, downloads and
records. The programs stay, and so does agent.yaml. Stop a running agent first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			cfg.Logger = c.Log() // a person reads this, not a journal
			if !cfg.Joined() {
				return fault.New(fault.Config, "this machine has not joined a fleet")
			}
			question := "Forget the fleet, and everything trusted, on this machine?"
			if cfg.FleetKeyFile != "" {
				question += " Its fleet key in " + cfg.FleetKeyFile + " is deleted, too."
			}
			ok, err := c.Confirm(question)
			if err != nil {
				return err
			}
			if !ok {
				return fault.New(fault.Interrupted, "nothing was changed")
			}
			if err := agent.Leave(cmd.Context(), cfg); err != nil {
				return err
			}
			out := struct {
				State string `json:"state"`
			}{cfg.StateDir}
			return c.Print("shoal.leave/v1", out, func(w io.Writer) {
				fmt.Fprintf(w, "Left the fleet. The programs stay, and so does %s.\n", c.ConfigPath("agent"))
			})
		},
	}
}
