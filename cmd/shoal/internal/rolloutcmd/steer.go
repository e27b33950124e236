package rolloutcmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
	"shoal/publisher"
	"shoal/publisher/rollout"
)

// steer signs the plan of f's channel anew.
func steer(ctx context.Context, c *cli.CLI, f *steering, do publisher.Steering) (*publisher.PublishResult, error) {
	return f.Sign(ctx, c, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
		return p.Steer(ctx, publisher.SteerRequest{AgainRequest: f.AgainRequest, Do: do})
	})
}

// holdByBeacon holds f's rollout by the beacon. That nobody here has its key is a warning: what
// is signed next holds it too.
func holdByBeacon(ctx context.Context, c *cli.CLI, f *steering, do rollout.Action) (*rollout.Done, error) {
	if f.DryRun || f.DraftOnly {
		return nil, nil
	}
	done, err := brake(ctx, c, f, do)
	if errors.Is(err, fault.Policy) {
		c.Warn("it is not held by the beacon: %v", err)
		return nil, nil
	}
	return done, err
}

func (f *steering) of(args []string) {
	if len(args) == 1 {
		f.ChannelName = args[0]
	}
}

func (s *steered) named() steered {
	switch {
	case s.Brake != nil:
		s.Channel = s.Brake.Status.Channel.String()
	case s.Signed != nil:
		s.Channel = s.Signed.Channel.String()
	}
	return *s
}

func newStartCmd(c *cli.CLI) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "start [CHANNEL]",
		Short: "Let a rollout that was signed paused begin",
		Example: `  shoal rollout start
  shoal rollout start acme/stable --key file:alice`,
		Long: `It signs the next sequence with the same files, and the plan's times count from now. Without a
release key here it leaves a draft, and says how it is signed.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			res, err := steer(cmd.Context(), c, &f, publisher.SteerStart)
			if err != nil {
				return err
			}
			s := steered{Signed: res}
			return printSteered(c, s.named())
		},
	}
	f.AgainFlags.Register(c, cmd)
	return cmd
}

func newPromoteCmd(c *cli.CLI) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "promote [CHANNEL]",
		Short: "Open the next gate now, whatever the reports say",
		Example: `  shoal rollout promote
  shoal rollout promote acme/stable --wave 3`,
		Long: `The beacon says it: by the shoal serve that runs here and has its key, else signed here. A wave never
opens before the time that is signed.

Every promote opens one gate more. With --wave it is that gate, however often it is said: so scripts
should say it.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			if cmd.Flags().Changed("wave") && f.wave < 1 {
				return cli.Usagef("--wave %d: waves are counted from 1", f.wave)
			}
			done, err := brake(cmd.Context(), c, &f, rollout.Promote)
			if err != nil {
				return err
			}
			if done == nil {
				return fault.New(fault.Policy, "the channel has no beacon, and its plan no gates").
					Line("Its waves open by their signed times alone. Nothing was changed.").
					Do("to have gates: shoal channel set CHANNEL --beacon KEY.pub --stale-after 48h")
			}
			s := steered{Brake: done}
			return printSteered(c, s.named())
		},
	}
	f.braking(cmd)
	cmd.Flags().IntVar(&f.wave, "wave", 0, "open the gate of wave `N` and no other; by default the next one")
	c.PassphraseFlag(cmd)
	return cmd
}

func newPauseCmd(c *cli.CLI) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "pause [CHANNEL]",
		Short: "Let no machine begin any more, for now",
		Example: `  shoal rollout pause --reason "the support line is closed"
  shoal rollout pause acme/stable`,
		Long: `The beacon holds the release at once, where the channel has one; then the pause is signed into the
plan, or drafted where no release key is here. What a machine has downloaded it keeps.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			var s steered
			if s.Brake, err = holdByBeacon(cmd.Context(), c, &f, rollout.Pause); err != nil {
				return err
			}
			return thenSign(cmd.Context(), c, &f, s, publisher.SteerPause)
		},
	}
	f.register(c, cmd)
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	return cmd
}

// thenSign signs what the beacon has said already. What was said stays said when that fails.
func thenSign(ctx context.Context, c *cli.CLI, f *steering, s steered, do publisher.Steering) (err error) {
	if s.Signed, err = steer(ctx, c, f, do); err != nil {
		if s.Brake != nil && s.Brake.Changed {
			c.Warn("the beacon has been changed all the same; see shoal rollout status")
		}
		return err
	}
	return printSteered(c, s.named())
}

func newResumeCmd(c *cli.CLI) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "resume [CHANNEL]",
		Short: "Go on with a rollout that is held or paused",
		Example: `  shoal rollout resume
  shoal rollout resume acme/stable --key file:alice`,
		Long: `It signs the plan without the pause, where that is signed, and ends the beacon's hold. The plan's
times go on from where they began; only failures from now on count.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			var s steered
			if s.Signed, err = steer(cmd.Context(), c, &f, publisher.SteerResume); err != nil {
				return err
			}
			if !f.DryRun && !f.DraftOnly {
				if s.Brake, err = brake(cmd.Context(), c, &f, rollout.Resume); err != nil {
					return err
				}
			}
			return printSteered(c, s.named())
		},
	}
	f.register(c, cmd)
	return cmd
}

func newHaltCmd(c *cli.CLI) *cobra.Command {
	var f steering
	var revert bool
	var to string
	cmd := &cobra.Command{
		Use:   "halt [CHANNEL]",
		Short: "Stop a bad release, and with --revert take it back",
		Example: `  shoal rollout halt --reason "it crashes on ext4"
  shoal rollout halt --revert --reason "it crashes on ext4"`,
		Long: `The beacon holds the release at once, where the channel has one; then the pause is signed into the
plan, or drafted where no release key is here. With --revert it is the way back that is signed or
drafted: the release before, for everyone, with the files of this one blocked, as shoal release yank
does it.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			if f.reason == "" {
				return cli.Usagef("why is it stopped?").Do("--reason TEXT: it is signed, and shown on every machine")
			}
			if to != "" && !revert {
				return cli.Usagef("--to goes with --revert")
			}
			var s steered
			if s.Brake, err = holdByBeacon(cmd.Context(), c, &f, rollout.Halt); err != nil {
				return err
			}
			if !revert {
				return thenSign(cmd.Context(), c, &f, s, publisher.SteerPause)
			}
			s.Signed, err = f.Sign(cmd.Context(), c, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
				return p.TakeBack(ctx, publisher.YankRequest{AgainRequest: f.AgainRequest, To: to, Reason: f.reason})
			})
			if err != nil {
				if s.Brake != nil {
					c.Warn("the release is held by the beacon all the same; see shoal rollout status")
				}
				return err
			}
			return printSteered(c, s.named())
		},
	}
	f.register(c, cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	fl.BoolVar(&revert, "revert", false, "offer the release before instead, and block this one's files")
	fl.StringVar(&to, "to", "", "with --revert: offer this `VERSION` instead")
	return cmd
}

func newRetryCmd(c *cli.CLI) *cobra.Command {
	var f steering
	var failed bool
	cmd := &cobra.Command{
		Use:   "retry --failed [CHANNEL]",
		Short: "Let the machines on which a release failed try it again",
		Example: `  shoal rollout retry --failed
  shoal rollout retry --failed acme/stable --key file:alice`,
		Long: `A machine does not try again by itself what has failed there. This signs the next sequence with the
plan's retry raised, which each of them takes for one more try.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			res, err := steer(cmd.Context(), c, &f, publisher.SteerRetry)
			if err != nil {
				return err
			}
			s := steered{Signed: res}
			return printSteered(c, s.named())
		},
	}
	f.AgainFlags.Register(c, cmd)
	cmd.Flags().BoolVar(&failed, "failed", false, "those on which it failed")
	return cli.Required(cmd, "failed")
}
