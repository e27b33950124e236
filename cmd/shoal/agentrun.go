package main

import (
	"github.com/spf13/cobra"

	"shoal/agent"
)

func newAgentRunCmd(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Follow the channels, install what is new, give it to neighbours",
		Example: `  shoal agent run
  shoal --config ./agent.yaml --state ./state agent run --listen 127.0.0.1:0`,
		Long: `Runs until it is told to stop. It is what a service manager starts: it tells systemd when it is
ready, how it stands and that it lives. A second one on the same state directory is refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.agentConfig()
			if err != nil {
				return err
			}
			a, err := agent.Open(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			err = a.Run(cmd.Context())
			if cerr := a.Close(); err == nil {
				err = cerr
			}
			return err
		},
	}
	cmd.Flags().String("listen", "", "where peers reach this machine, `host:port`")
	configFlag(cmd, "listen", "listen")
	return cmd
}
