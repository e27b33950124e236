package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/install"
	"shoal/agent/metrics"
	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

func newAgentRunCmd(c *cli) *cobra.Command {
	var supervised bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Follow the channels, install what is new, give it to neighbours",
		Example: `  shoal agent run
  shoal --config ./agent.yaml --state ./state agent run --listen 127.0.0.1:0`,
		Long: `Runs until it is told to stop. It is what a service manager starts: it tells systemd when it is
ready, how it stands and that it lives. A second one on the same state directory is refused.

When an app's target is this very program, the agent replaces itself: it starts the new version in its
own stead or, under systemd or with --supervised, ends with status 75 to be started again. A version
that does not stay up, or could not install another update, is put back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.agentConfig()
			if err != nil {
				return err
			}
			ctx, end := install.Attach(cmd.Context())
			defer end()
			a, err := agent.Open(ctx, cfg)
			if err != nil {
				return err
			}
			stop, err := c.tellNumbers(ctx, a)
			if err != nil {
				a.Close()
				return err
			}
			err = a.Run(ctx)
			stop()
			cerr := a.Close()
			if errors.Is(err, agent.ErrRestart) {
				status, err := runAgain(c.program, cfg.StateDir, supervised)
				if err != nil {
					return fault.New(fault.ApplyFailed, "%w", err)
				}
				return exitStatus(status)
			}
			if err == nil {
				err = cerr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&supervised, "supervised", false, "end with status 75 to be started again in another version, as under systemd")
	cmd.Flags().String("listen", "", "where peers reach this machine, `host:port`")
	cmd.Flags().String("metrics-file", "", "write numbers for a node exporter to `FILE`")
	configFlag(cmd, "listen", "listen")
	configFlag(cmd, "metrics-file", "metrics.file")
	return cmd
}

// tellNumbers has a's numbers told as the configuration says, until ctx ends or what it
// returns is called.
func (c *cli) tellNumbers(ctx context.Context, a *agent.Agent) (stop func(), err error) {
	file := config.DefaultAgent()
	if _, err := c.load("agent", &file); err != nil {
		return nil, err
	}
	m := metrics.Config{Listen: file.Metrics.Listen, File: file.Metrics.File, Status: a.Status, Logger: c.serviceLog(file.Log.Level, file.Log.Format)}
	if m.Listen == "" && m.File == "" {
		return func() {}, nil
	}
	l, err := m.Listener()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { m.Run(ctx, l); close(done) }()
	return func() { cancel(); <-done }, nil
}
