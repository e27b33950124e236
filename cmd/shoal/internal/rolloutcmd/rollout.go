// Package rolloutcmd has the verbs that plan how a release reaches its machines, watch it,
// hold it and take it back: shoal rollout.
package rolloutcmd

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
	"shoal/keys"
	"shoal/publisher"
	"shoal/publisher/rollout"
)

// New is shoal rollout.
func New(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Let a release go out in waves, watch it, hold it, take it back",
		Example: `  shoal rollout start
  shoal rollout watch`,
		Long: `The plan is signed with the release, and every machine reads it for itself. What changes the plan
is signed by the release keys, as the next sequence; what holds it, or opens a gate of it, is said by
the beacon. No machine takes any other command.`,
	}
	cmd.AddCommand(newPlanCmd(c), newStartCmd(c), newStatusCmd(c), newWatchCmd(c), newPromoteCmd(c),
		newPauseCmd(c), newResumeCmd(c), newHaltCmd(c), newRetryCmd(c))
	return cmd
}

func newPlanCmd(c *cli.CLI) *cobra.Command {
	var f publishing.PlanFlags
	var channel string
	cmd := &cobra.Command{
		Use:   "plan [CHANNEL]",
		Short: "Show the waves that a release would go out in",
		Example: `  shoal rollout plan
  shoal rollout plan stable --waves ring:canary,10%,50%,100% --soak 30m --stop-at-failed 5%`,
		Long: `It signs and changes nothing. The times are as if the rollout began now. Without --waves it is the
plan that the configuration has for the channel.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.Check(); err != nil {
				return err
			}
			p, err := publishing.Open(c)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				channel = args[0]
			}
			req := publisher.PublishRequest{Plan: f.Plan(), Start: true}
			if req.Channel, err = p.Channel(channel); err != nil {
				return err
			}
			res, err := p.PlanOf(cmd.Context(), req)
			if err != nil {
				return err
			}
			out := struct {
				Channel string           `json:"channel"`
				Waves   []publisher.Wave `json:"waves"`
			}{res.Channel.String(), append([]publisher.Wave{}, res.Waves...)}
			return c.Print("shoal.rollout-plan/v1", out, func(w io.Writer) { writePlan(w, res) })
		},
	}
	f.Register(cmd)
	return cmd
}

func writePlan(w io.Writer, res *publisher.PublishResult) {
	if len(res.Waves) == 0 {
		fmt.Fprintf(w, "%s: everyone at once\n", res.Channel)
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintf(tw, "WAVE\tWHO\tNOT BEFORE\tAND THEN\n")
	for i, wave := range res.Waves {
		at, gate := "at once", ""
		if wave.After > 0 {
			at = "after " + seconds(wave.After)
		}
		if wave.Gated && i > 0 {
			gate = fmt.Sprintf("when wave %d is well, %s after it opened", i, seconds(wave.Soak))
		}
		fmt.Fprintf(tw, "%d %s\t%s\t%s\t%s\n", i+1, wave.Name, whoIsIn(wave.Rings, wave.Percent), at, gate)
	}
}

func seconds(n int64) string { return units.Duration(time.Duration(n) * time.Second).String() }

// whoIsIn names the machines of a wave.
func whoIsIn(rings []string, percent int) string {
	text := ""
	for _, r := range rings {
		text += "ring " + r + ", "
	}
	if percent > 0 {
		return fmt.Sprintf("%s%d %%", text, percent)
	}
	return text[:max(0, len(text)-2)]
}

// steered is what a verb did: by the beacon, by a signature, or by both.
type steered struct {
	Channel string                   `json:"channel"`
	Brake   *rollout.Done            `json:"brake"`  // null where the beacon said nothing
	Signed  *publisher.PublishResult `json:"signed"` // null where nothing was to be signed
}

// printSteered tells what was done.
func printSteered(c *cli.CLI, s steered) error {
	return c.Print("shoal.rollout-change/v1", s, func(w io.Writer) {
		if s.Brake != nil {
			writeBrake(c, w, s.Brake)
		}
		if s.Signed != nil {
			writeSigned(c, w, s.Signed)
		}
	})
}

func writeBrake(c *cli.CLI, w io.Writer, d *rollout.Done) {
	st := d.Status
	if !d.Changed {
		fmt.Fprintf(w, "%s %s: the beacon says so already.\n", st.Channel, st.Version)
		return
	}
	for _, e := range d.Events {
		switch e.Kind {
		case rollout.Promoted:
			fmt.Fprintf(w, "%s %s: the gate is open of %s.\n", st.Channel, st.Version, e.Reason)
		case rollout.Resumed:
			fmt.Fprintf(w, "%s %s: the beacon's hold is over; only failures from now on count.\n", st.Channel, st.Version)
		default:
			fmt.Fprintf(w, "%s %s: held by the beacon; a machine that asks from now on begins nothing.\n", st.Channel, st.Version)
		}
	}
	if b := st.Beacon; b != nil && !st.Controlled {
		fmt.Fprintf(w, "The beacon is fresh until %s and nobody renews it: %s\n", words.Moment(b.Expires), c.Again("serve --beacon-key REF"))
	}
}

func writeSigned(c *cli.CLI, w io.Writer, res *publisher.PublishResult) {
	if res.Already {
		fmt.Fprintf(w, "%s %s, sequence %d: the plan says so already; nothing was signed.\n", res.Channel, res.Version, res.Sequence)
		return
	}
	if res.Draft != "" {
		fmt.Fprintf(w, "No release key signed: the next sequence, %d, is drafted in %s.\n", res.Sequence, res.Draft)
		draft := words.Shell(res.Draft)
		fmt.Fprintf(w, "Sign it: shoal manifest sign %s --key REF\n", draft)
		fmt.Fprintf(w, "Then:    shoal manifest attach %s SIGNATURE... --out signed.env.json     and     %s\n", draft, c.Again("publish --envelope signed.env.json"))
		return
	}
	if res.Previous != res.Version { // another release
		publishing.WriteResult(c, w, res)
		return
	}
	fmt.Fprintf(w, "%s  %s   sequence %d   expires %s   %s\n", res.Channel, res.Version, res.Sequence, res.Expires.Format("2006-01-02"), publishing.WaveWords(res))
	if res.DryRun {
		fmt.Fprintf(w, "Dry run: nothing was signed or changed. %d key(s) must sign.\n", res.Threshold)
		return
	}
	fmt.Fprintf(w, "Signed by %s (%d of %d).\n", publishing.SignerNames(res), len(res.SignedBy), res.Threshold)
}

// steering are the flags of verbs that change a plan.
type steering struct {
	publishing.AgainFlags
	beacon, reason string
	wave           int // of a promotion
}

func (f *steering) register(c *cli.CLI, cmd *cobra.Command) {
	f.AgainFlags.Register(c, cmd)
	f.braking(cmd)
}

// braking are the flags of verbs that the beacon carries out.
func (f *steering) braking(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.beacon, "beacon-key", "", "where no shoal serve runs here: sign the beacon with `REF` (keys.beacon)")
}

// brake has the beacon say something of f's channel. Where the channel has none, nothing
// is done and nil returned.
func brake(ctx context.Context, c *cli.CLI, f *steering, do rollout.Action) (*rollout.Done, error) {
	cfg, err := publishing.Config(c)
	if err != nil {
		return nil, err
	}
	p, err := publisher.Open(cfg)
	if err != nil {
		return nil, err
	}
	ch, err := p.Channel(f.ChannelName)
	if err != nil {
		return nil, err
	}
	st, err := p.RolloutStatus(ctx, ch)
	if err != nil {
		return nil, err
	}
	if !st.Gated {
		return nil, nil
	}
	command := rollout.Command{Channel: ch, Action: do, Reason: f.reason, Wave: f.wave}
	if do == rollout.Promote && f.wave == 0 {
		command.Wave = st.NextGate // of two who say it at once, both mean this one
	}
	return p.Brake(ctx, command, func(ctx context.Context) (keys.Signer, error) {
		return publishing.Beacon(ctx, c, f.beacon, cfg.Keys.Beacon)
	})
}
