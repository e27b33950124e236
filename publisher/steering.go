package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
)

const (
	rolloutDir = "rollout"       // of the store: the controller's record
	logWithin  = 5 * time.Second // a decision gets into the fleet's log
)

func (p *Publisher) recordDir() string { return filepath.Join(p.cfg.Store, rolloutDir) }

// RolloutLog is where the controller's decisions are written down; see [rollout.Audit].
func (p *Publisher) RolloutLog() string { return p.recordDir() }

// openController returns the controller of the rollouts, which counts what reports has.
// Without reports it is for one command, whose answer says all there is to log.
func (p *Publisher) openController(key keys.Signer, reports *fleet.Store) (*rollout.Controller, error) {
	cfg := rollout.Config{Repo: p.repo, Dir: p.recordDir(), Key: key, Counts: counter(reports), Clock: p.now}
	if reports != nil {
		cfg.Logger = p.log
		cfg.OnEvent = func(e rollout.Event) {
			ctx, cancel := context.WithTimeout(context.Background(), logWithin)
			defer cancel()
			if err := reports.Log(ctx, fleet.Event{
				Time: e.Time, Kind: e.Kind, App: e.Channel.App, Channel: e.Channel.Name, Version: e.Version, Text: e.Reason,
			}); err != nil {
				p.log.Error("logging a decision", "event", e.Kind, "err", err)
			}
		}
	}
	return rollout.Open(cfg)
}

// counter is reports as what counts machines; nil for nil.
func counter(reports *fleet.Store) rollout.Counter {
	if reports == nil {
		return nil
	}
	return func(ch manifest.Channel, m *manifest.Manifest, failedSince, now time.Time) ([]rollout.Count, error) {
		counts, err := reports.Waves(ch, m, failedSince, now)
		all := make([]rollout.Count, len(counts))
		for i, c := range counts {
			all[i] = rollout.Count(c)
		}
		return all, err
	}
}

// What the control socket of Serve offers for rollouts.
const (
	steerCommand  = "rollout-brake"
	statusCommand = "rollout-status"
)

// steeringCommands are those, of a Serve with a controller or, when it has none, without.
func (p *Publisher) steeringCommands(c *rollout.Controller, reports *fleet.Store) map[string]control.Command {
	return map[string]control.Command{
		steerCommand: func(ctx context.Context, raw json.RawMessage, _ func(any)) (any, error) {
			var cmd rollout.Command
			if err := json.Unmarshal(raw, &cmd); err != nil {
				return nil, fault.New(fault.Usage, "reading the request: %w", err)
			}
			done, err := brake(ctx, c, cmd)
			if err != nil {
				return nil, err
			}
			return done, nil
		},
		statusCommand: func(_ context.Context, raw json.RawMessage, _ func(any)) (any, error) {
			var ch manifest.Channel
			if err := json.Unmarshal(raw, &ch); err != nil {
				return nil, fault.New(fault.Usage, "reading the request: %w", err)
			}
			st, err := p.rolloutStatus(c, reports, ch)
			if err != nil {
				return nil, err
			}
			return st, nil
		},
	}
}

// brake has the controller of this process, which may be nil, do something.
func brake(ctx context.Context, c *rollout.Controller, cmd rollout.Command) (*rollout.Done, error) {
	if c == nil {
		return nil, fault.New(fault.NotFound, "the running publisher has no beacon key")
	}
	return c.Do(ctx, cmd)
}

// rolloutStatus is RolloutStatus in the process that serves.
func (p *Publisher) rolloutStatus(c *rollout.Controller, reports *fleet.Store, ch manifest.Channel) (*rollout.Status, error) {
	if c != nil {
		st, err := c.Status(ch)
		if !errors.Is(err, fault.Policy) {
			return st, err
		}
	}
	return rollout.Peek(p.repo, p.recordDir(), ch, counter(reports), p.now()) // it steers other channels, or none
}

// RolloutStatus tells how the rollout of what ch offers stands: from the publisher that
// serves this store, else from what is on the disk. For another command it waits.
func (p *Publisher) RolloutStatus(ctx context.Context, ch manifest.Channel) (*rollout.Status, error) {
	return turn.Command(ctx, func() (*rollout.Status, error) { return p.statusNow(ctx, ch) })
}

func (p *Publisher) statusNow(ctx context.Context, ch manifest.Channel) (*rollout.Status, error) {
	client, err := control.Dial(ctx, p.cfg.Store, "publisher")
	if err == nil {
		var st rollout.Status
		return &st, client.Do(ctx, statusCommand, ch, nil, &st)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	cfg, err := p.FleetConfig()
	if err != nil {
		return nil, err
	}
	var reports *fleet.Store
	if _, err := os.Stat(filepath.Join(cfg.Dir, fleet.DBFile)); !errors.Is(err, fs.ErrNotExist) {
		if reports, err = fleet.Open(cfg); err != nil {
			return nil, err
		}
		defer reports.Close()
	}
	return rollout.Peek(p.repo, p.recordDir(), ch, counter(reports), p.now())
}

// Brake has the brake of a rollout do something: by the publisher that serves this store
// and has the beacon's key, else with the key that open returns, which may be nil. No
// machine is told anything but the beacon. For another command it waits.
func (p *Publisher) Brake(ctx context.Context, cmd rollout.Command, open func(context.Context) (keys.Signer, error)) (*rollout.Done, error) {
	var key keys.Signer // asked for once, whoever has to be waited for
	return turn.Command(ctx, func() (*rollout.Done, error) {
		done, err := p.brakeOfServe(ctx, cmd)
		if done != nil || err != nil {
			return done, err
		}
		if key == nil && open != nil {
			if key, err = open(ctx); err != nil {
				return nil, err
			}
		}
		return p.brakeHere(ctx, cmd, key)
	})
}

// brakeOfServe is Brake by the publisher that serves this store; nil when none does that
// has the beacon's key.
func (p *Publisher) brakeOfServe(ctx context.Context, cmd rollout.Command) (*rollout.Done, error) {
	client, err := control.Dial(ctx, p.cfg.Store, "publisher")
	if errors.Is(err, control.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var done rollout.Done
	err = client.Do(ctx, steerCommand, cmd, nil, &done)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	return &done, err
}

// brakeHere is Brake in this process, with the beacon's key, which may be nil.
func (p *Publisher) brakeHere(ctx context.Context, cmd rollout.Command, key keys.Signer) (*rollout.Done, error) {
	if key == nil {
		return nil, fault.New(fault.Policy, "nobody here has the beacon key of %s", cmd.Channel).
			Line("The beacon opens gates and holds rollouts. Nothing was changed by it.").
			Do("serve with it: shoal serve --beacon-key REF").
			Do("or name it for this once: --beacon-key REF")
	}
	c, err := p.openController(key, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	done, err := c.Do(ctx, cmd)
	if err != nil {
		return nil, err
	}
	done.Status.Controlled = false // not for longer than this
	return done, nil
}
