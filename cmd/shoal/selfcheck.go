package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"shoal/agent"
)

func newSelfCheckCmd(c *cli) *cobra.Command {
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
			cfg, err := c.agentConfig()
			if err != nil {
				return err
			}
			fit, err := agent.SelfCheck(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return c.print("shoal.self-check/v1", fit, func(w io.Writer) {
				fmt.Fprintf(w, "fit: version %s, %s, root %d of %s, %d apps\n", fit.Version, fit.Platform, fit.RootVersion, fit.Fleet, fit.Apps)
			})
		},
	}
}

// selfCheckArgs are the arguments with which a new version of this agent is tried: those
// that made this one find its configuration and its state.
func (c *cli) selfCheckArgs(stateDir string) []string {
	args := []string{"self-check", "-o", "json"}
	if file := c.configFlagFile(); file != "" {
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
		args = append(args, "--config", file)
	}
	if c.stateDirGiven() {
		args = append(args, "--state", stateDir)
	}
	return args
}
