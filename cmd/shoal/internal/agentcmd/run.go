package agentcmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/install"
	"shoal/agent/metrics"
	"shoal/cmd/shoal/internal/agentcmd/selfcmd"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/machine"
	"shoal/internal/fault"
)

func newRunCmd(c *cli.CLI) *cobra.Command {
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
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			ctx, end := install.Attach(cmd.Context())
			defer end()
			a, err := agent.OpenToRun(ctx, cfg)
			if err != nil {
				return err
			}
			stop, err := tellNumbers(ctx, c, a)
			if err != nil {
				a.Close()
				return err
			}
			err = a.Run(ctx)
			stop()
			cerr := a.Close()
			if errors.Is(err, agent.ErrRestart) {
				status, err := selfcmd.RunAgain(c.Program, cfg.StateDir, supervised)
				if err != nil {
					return fault.New(fault.ApplyFailed, "%w", err)
				}
				return cli.ExitStatus(status)
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
	cli.ConfigFlag(cmd, "listen", "listen")
	cli.ConfigFlag(cmd, "metrics-file", "metrics.file")
	return cmd
}

// tellNumbers has a's numbers told as the configuration says, until ctx ends or what it
// returns is called.
func tellNumbers(ctx context.Context, c *cli.CLI, a *agent.Agent) (stop func(), err error) {
	file := config.DefaultAgent()
	if _, err := c.Load("agent", &file); err != nil {
		return nil, err
	}
	m := metrics.Config{Listen: file.Metrics.Listen, File: file.Metrics.File, Status: a.Status, Logger: c.ServiceLog(file.Log.Level, file.Log.Format)}
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
