package selfcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
)

// Check is shoal self-check.
func Check(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "self-check",
		Short: "Say whether this build can take over from this machine's agent",
		Example: `  shoal self-check
  ./shoal-2.0.0 self-check --state /var/lib/shoal -o json`,
		Long: `Reads the agent's configuration, what it trusts and what it remembers, and changes nothing: the running
agent asks a new version of itself this before it lets it take its place.`,
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			fit, err := agent.SelfCheck(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return c.Print("shoal.self-check/v1", fit, func(w io.Writer) {
				fmt.Fprintf(w, "fit: version %s, %s, root %d of %s, %d apps\n", fit.Version, fit.Platform, fit.RootVersion, fit.Fleet, fit.Apps)
			})
		},
	}
}
