package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"shoal/internal/fault"
	"shoal/publisher"
	"shoal/publisher/rollout"
)

// steer signs the plan of f's channel anew.
func (c *cli) steer(ctx context.Context, f *steering, do publisher.Steering) (*publisher.PublishResult, error) {
	return c.signAgain(ctx, &f.againFlags, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
		return p.Steer(ctx, publisher.SteerRequest{AgainRequest: f.AgainRequest, Do: do})
	})
}

// holdByBeacon holds f's rollout by the beacon. That nobody here has its key is a warning: what
// is signed next holds it too.
func (c *cli) holdByBeacon(ctx context.Context, f *steering, do rollout.Action) (*rollout.Done, error) {
	if f.DryRun || f.DraftOnly {
		return nil, nil
	}
	done, err := c.brake(ctx, f, do)
	if errors.Is(err, fault.Policy) {
		c.warn("it is not held by the beacon: %v", err)
		return nil, nil
	}
	return done, err
}

func (f *steering) of(args []string) {
	if len(args) == 1 {
		f.channel = args[0]
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

func newRolloutStartCmd(c *cli) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "start [CHANNEL]",
		Short: "Let a rollout that was signed paused begin",
		Example: `  shoal rollout start
  shoal rollout start acme/stable --key file:alice`,
		Long: `It signs the next sequence with the same files, and the plan's times count from now. Without a
release key here it leaves a draft, and says how it is signed.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			res, err := c.steer(cmd.Context(), &f, publisher.SteerStart)
			if err != nil {
				return err
			}
			s := steered{Signed: res}
			return c.printSteered(s.named())
		},
	}
	f.againFlags.register(c, cmd)
	return cmd
}

func newRolloutPromoteCmd(c *cli) *cobra.Command {
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
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			if cmd.Flags().Changed("wave") && f.wave < 1 {
				return usagef("--wave %d: waves are counted from 1", f.wave)
			}
			done, err := c.brake(cmd.Context(), &f, rollout.Promote)
			if err != nil {
				return err
			}
			if done == nil {
				return fault.New(fault.Policy, "the channel has no beacon, and its plan no gates").
					Line("Its waves open by their signed times alone. Nothing was changed.").
					Do("to have gates: shoal channel set CHANNEL --beacon KEY.pub --stale-after 48h")
			}
			s := steered{Brake: done}
			return c.printSteered(s.named())
		},
	}
	f.braking(cmd)
	cmd.Flags().IntVar(&f.wave, "wave", 0, "open the gate of wave `N` and no other; by default the next one")
	c.passphraseFlag(cmd)
	return cmd
}

func newRolloutPauseCmd(c *cli) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "pause [CHANNEL]",
		Short: "Let no machine begin any more, for now",
		Example: `  shoal rollout pause --reason "the support line is closed"
  shoal rollout pause acme/stable`,
		Long: `The beacon holds the release at once, where the channel has one; then the pause is signed into the
plan, or drafted where no release key is here. What a machine has downloaded it keeps.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			var s steered
			if s.Brake, err = c.holdByBeacon(cmd.Context(), &f, rollout.Pause); err != nil {
				return err
			}
			return c.thenSign(cmd.Context(), &f, s, publisher.SteerPause)
		},
	}
	f.register(c, cmd)
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	return cmd
}

// thenSign signs what the beacon has said already. What was said stays said when that fails.
func (c *cli) thenSign(ctx context.Context, f *steering, s steered, do publisher.Steering) (err error) {
	if s.Signed, err = c.steer(ctx, f, do); err != nil {
		if s.Brake != nil && s.Brake.Changed {
			c.warn("the beacon has been changed all the same; see shoal rollout status")
		}
		return err
	}
	return c.printSteered(s.named())
}

func newRolloutResumeCmd(c *cli) *cobra.Command {
	var f steering
	cmd := &cobra.Command{
		Use:   "resume [CHANNEL]",
		Short: "Go on with a rollout that is held or paused",
		Example: `  shoal rollout resume
  shoal rollout resume acme/stable --key file:alice`,
		Long: `It signs the plan without the pause, where that is signed, and ends the beacon's hold. The plan's
times go on from where they began; only failures from now on count.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			var s steered
			if s.Signed, err = c.steer(cmd.Context(), &f, publisher.SteerResume); err != nil {
				return err
			}
			if !f.DryRun && !f.DraftOnly {
				if s.Brake, err = c.brake(cmd.Context(), &f, rollout.Resume); err != nil {
					return err
				}
			}
			return c.printSteered(s.named())
		},
	}
	f.register(c, cmd)
	return cmd
}

func newRolloutHaltCmd(c *cli) *cobra.Command {
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
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.of(args)
			if f.reason == "" {
				return usagef("why is it stopped?").Do("--reason TEXT: it is signed, and shown on every machine")
			}
			if to != "" && !revert {
				return usagef("--to goes with --revert")
			}
			var s steered
			if s.Brake, err = c.holdByBeacon(cmd.Context(), &f, rollout.Halt); err != nil {
				return err
			}
			if !revert {
				return c.thenSign(cmd.Context(), &f, s, publisher.SteerPause)
			}
			s.Signed, err = c.signAgain(cmd.Context(), &f.againFlags, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
				return p.TakeBack(ctx, publisher.YankRequest{AgainRequest: f.AgainRequest, To: to, Reason: f.reason})
			})
			if err != nil {
				if s.Brake != nil {
					c.warn("the release is held by the beacon all the same; see shoal rollout status")
				}
				return err
			}
			return c.printSteered(s.named())
		},
	}
	f.register(c, cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	fl.BoolVar(&revert, "revert", false, "offer the release before instead, and block this one's files")
	fl.StringVar(&to, "to", "", "with --revert: offer this `VERSION` instead")
	return cmd
}

func newRolloutRetryCmd(c *cli) *cobra.Command {
	var f steering
	var failed bool
	cmd := &cobra.Command{
		Use:   "retry --failed [CHANNEL]",
		Short: "Let the machines on which a release failed try it again",
		Example: `  shoal rollout retry --failed
  shoal rollout retry --failed acme/stable --key file:alice`,
		Long: `A machine does not try again by itself what has failed there. This signs the next sequence with the
plan's retry raised, which each of them takes for one more try.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.of(args)
			res, err := c.steer(cmd.Context(), &f, publisher.SteerRetry)
			if err != nil {
				return err
			}
			s := steered{Signed: res}
			return c.printSteered(s.named())
		},
	}
	f.againFlags.register(c, cmd)
	cmd.Flags().BoolVar(&failed, "failed", false, "those on which it failed")
	return required(cmd, "failed")
}
