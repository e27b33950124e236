package rolloutcmd

import (
	"fmt"
	"io"
	"reflect"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/publisher/rollout"
)

// watchEvery is how often the state of a rollout is looked at.
const watchEvery = time.Second

func newStatusCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "status [CHANNEL]",
		Short: "Show how a rollout stands, what it waits for, and which machines failed",
		Example: `  shoal rollout status
  shoal rollout status acme/stable -o json`,
		Long: `Machines are counted from the reports of approved ones: shoal fleet approve. It works without a
running shoal serve too, and then shows what is on the disk.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := rolloutStatus(c, cmd, args)
			if err != nil {
				return err
			}
			out := struct {
				*rollout.Status
				Failed []failedMachine `json:"failed"`
			}{st, failedIn(cmd.Context(), c, st)}
			return c.Print("shoal.rollout/v1", out, func(w io.Writer) { writeRollout(c, w, st, out.Failed, time.Now()) })
		},
	}
}

func rolloutStatus(c *cli.CLI, cmd *cobra.Command, args []string) (*rollout.Status, error) {
	p, err := publishing.Open(c)
	if err != nil {
		return nil, err
	}
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	ch, err := p.Channel(name)
	if err != nil {
		return nil, err
	}
	return p.RolloutStatus(cmd.Context(), ch)
}

func newWatchCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [CHANNEL]",
		Short: "Follow a rollout until every wave is open, or it is held",
		Example: `  shoal rollout watch
  shoal rollout watch acme/stable --timeout 8h`,
		Long: `It prints the state whenever that changes. Exit status 0: every wave is open. 11: the rollout is held
or paused.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			cmd.SetContext(ctx)
			var last *rollout.Status
			tick := time.NewTicker(watchEvery)
			defer tick.Stop()
			for {
				st, err := rolloutStatus(c, cmd, args)
				if err != nil {
					return err
				}
				if last == nil || !sameRollout(last, st) {
					if err := c.Print("shoal.rollout/v1", st, func(w io.Writer) { writeRollout(c, w, st, nil, time.Now()) }); err != nil {
						return err
					}
				}
				last = st
				switch st.Phase {
				case rollout.PhaseFinished, rollout.PhaseEveryone:
					return nil
				case rollout.PhaseHeld, rollout.PhasePaused:
					return cli.ExitStatus(fault.Held.Exit())
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-tick.C:
				}
			}
		},
	}
}

// sameRollout reports whether a person would see no difference but that time goes by.
func sameRollout(a, b *rollout.Status) bool {
	x, y := *a, *b
	x.Beacon, y.Beacon = nil, nil
	return reflect.DeepEqual(x, y)
}

var phaseWords = map[string]string{
	rollout.PhaseEveryone: "EVERYONE at once", rollout.PhaseWaiting: "WAITING for its first wave", rollout.PhasePaused: "PAUSED, as signed",
	rollout.PhaseHeld: "HELD by the beacon", rollout.PhaseFinished: "every wave is OPEN",
}

func writeRollout(c *cli.CLI, w io.Writer, st *rollout.Status, failed []failedMachine, now time.Time) {
	phase := phaseWords[st.Phase]
	if st.Phase == rollout.PhaseRunning {
		phase = fmt.Sprintf("RUNNING wave %d of %d", st.Wave, len(st.Waves))
	}
	fmt.Fprintf(w, "%s → %s   %s   sequence %d", st.Version, st.Channel, phase, st.Sequence)
	if t := st.Total; st.Counted {
		fmt.Fprintf(w, "   %d/%d healthy", t.Healthy, t.Target)
		if reports := t.Healthy + t.Failed; reports > 0 {
			fmt.Fprintf(w, "   %d of %d failed (%.1f %%", t.Failed, reports, 100*float64(t.Failed)/float64(reports))
			if st.StopAtFailed != nil {
				fmt.Fprintf(w, ", stops at %d %%", *st.StopAtFailed)
			}
			fmt.Fprint(w, ")")
		}
	}
	fmt.Fprintln(w)
	if st.Hold && st.Reason != "" {
		fmt.Fprintf(w, "why  %s\n", words.Printable(st.Reason))
	}
	writeWaves(w, st, now)
	writeFailed(w, failed)
	switch {
	case st.Paused && st.Hold:
		fmt.Fprintf(w, "Next: %s, which ends both\n", c.Again("rollout resume"))
	case st.Hold:
		fmt.Fprintf(w, "Next: %s     or %s\n", c.Again("rollout resume"), c.Again("rollout halt --revert --reason TEXT"))
	case st.Paused:
		fmt.Fprintf(w, "Next: %s, or, if it ran before: %s\n", c.Again("rollout start"), c.Again("rollout resume"))
	case !st.Controlled && st.Wave < len(st.Waves) && st.Waves[st.Wave].Gated:
		fmt.Fprintf(w, "Nobody opens gates here: %s\n", c.Again("serve --beacon-key REF"))
	}
}

func writeWaves(w io.Writer, st *rollout.Status, now time.Time) {
	if len(st.Waves) == 0 {
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintln(tw, "WAVE\tWHO\tTARGET\tHEALTHY\tWORKING\tFAILED\tNOT SEEN\tGATE")
	for i := range st.Waves {
		wave := &st.Waves[i]
		fmt.Fprintf(tw, "%d %s\t%s", i+1, wave.Name, whoIsIn(wave.Rings, wave.Percent))
		if n := wave.Count; n == nil {
			fmt.Fprint(tw, "\t–\t–\t–\t–\t–")
		} else {
			fmt.Fprintf(tw, "\t%d\t%d\t%d\t%d\t%d", n.Target, n.Healthy, n.Working, n.Failed, n.NotSeen)
		}
		fmt.Fprintf(tw, "\t%s\n", gateWords(i, st, now))
	}
}

// gateWords says how the gate of wave i stands.
func gateWords(i int, st *rollout.Status, now time.Time) string {
	wave := &st.Waves[i]
	switch {
	case wave.Open && !wave.Opened.IsZero():
		return "passed " + words.Moment(wave.Opened)
	case wave.Open:
		return "open"
	case wave.Waits != "" && wave.Until.After(now):
		return "waits for " + wave.Waits + ", " + words.Roughly(wave.Until.Sub(now)) + " left"
	case wave.Waits != "":
		return "waits for " + wave.Waits
	case i > st.Wave:
		return fmt.Sprintf("waits for wave %d", i)
	}
	return ""
}
