package publishing

import (
	"fmt"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/publisher"
	"shoal/publisher/rollout"
)

// PlanFlags say how a release reaches its machines.
type PlanFlags struct {
	cmd   *cobra.Command
	waves []string
	soak  units.Duration
	stop  units.Percent
}

// Register gives cmd the flags.
func (f *PlanFlags) Register(cmd *cobra.Command) {
	f.cmd = cmd
	fl := cmd.Flags()
	fl.StringSliceVar(&f.waves, "waves", nil, "who gets it when: `LIST` such as ring:canary,10%,50%@24h,100%; none: everyone at once")
	fl.Var(&f.soak, "soak", "the least time a wave stands before the next opens (30m)")
	fl.Var(&f.stop, "stop-at-failed", "hold the rollout when so many of the machines failed (5%)")
}

// Plan is what the flags say, or nil when they leave it to the configuration.
func (f *PlanFlags) Plan() *rollout.Plan {
	if !f.cmd.Flags().Changed("waves") {
		return nil
	}
	if len(f.waves) == 1 && f.waves[0] == "none" {
		return &rollout.Plan{}
	}
	return &rollout.Plan{Waves: f.waves, Soak: f.soak.Duration(), StopAtFailed: f.stop.Whole()}
}

// Check refuses flags that would be passed over, and what no plan can mean.
func (f *PlanFlags) Check() error {
	for _, name := range []string{"soak", "stop-at-failed"} {
		if f.cmd.Flags().Changed(name) && !f.cmd.Flags().Changed("waves") {
			return cli.Usagef("--%s goes with --waves", name)
		}
	}
	if f.cmd.Flags().Changed("soak") && f.soak == 0 {
		return cli.Usagef("--soak 0 would open wave after wave at once").Do("give it time to be seen well, such as --soak 30m")
	}
	if f.cmd.Flags().Changed("stop-at-failed") && f.stop == 0 {
		return cli.Usagef("--stop-at-failed 0%% would stop at nothing").Do("such as --stop-at-failed 5%%")
	}
	return nil
}

// WaveWords says in a few words how a release goes out.
func WaveWords(res *publisher.PublishResult) string {
	text := "everyone at once"
	if n := len(res.Waves); n > 0 {
		text = fmt.Sprintf("%d waves", n)
		if n == 1 {
			text = "1 wave"
		}
	}
	if res.Paused {
		text += ", signed paused"
	}
	return text
}
