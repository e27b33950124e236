package selfcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent/self"
	"shoal/agent/service"
	"shoal/cmd/shoal/internal/cli"
)

// Recover is shoal recover-self.
func Recover(c *cli.CLI) *cobra.Command {
	var unit string
	cmd := &cobra.Command{
		Use:   "recover-self",
		Short: "Put the agent's previous version back when an update of itself does not start",
		Example: `  /opt/shoal/guard recover-self --restart shoal-agent.service
  sudo shoal recover-self --state /var/lib/shoal`,
		Long: `What the guard is called for: it is the last version of the agent that was confirmed, and the service
manager runs it when the agent does not stay up. It does nothing unless an update of the agent itself
is not confirmed yet, and is refused while an agent runs.`,
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var svc service.Service = service.None{}
			if unit != "" {
				var err error
				if svc, err = service.Systemd(unit); err != nil {
					return cli.Usagef("--restart: %w", err)
				}
			}
			target, err := self.Recover(c.StateDir())
			if err != nil {
				return err
			}
			if target != "" {
				if err := svc.Start(cmd.Context()); err != nil { // clears its start limit first
					return fmt.Errorf("starting %s: %w", unit, err)
				}
			}
			out := struct {
				Target  string `json:"target,omitempty"`
				Started string `json:"started,omitempty"`
			}{target, unit}
			if target == "" {
				out.Started = ""
			}
			return c.Print("shoal.recover-self/v1", out, func(w io.Writer) {
				if target == "" {
					fmt.Fprintln(w, "No update of the agent itself is unconfirmed. Nothing was changed.")
					return
				}
				fmt.Fprintf(w, "%s is the version before again.\n", target)
			})
		},
	}
	cmd.Flags().StringVar(&unit, "restart", "", "the `UNIT` to start when something was put back")
	return cmd
}
