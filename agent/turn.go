package agent

import (
	"context"
	"errors"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
)

const (
	// startingFor is how long an agent that has begun may take to listen for commands.
	startingFor = 2 * time.Second
	// commandFor is how long a command may hold the lock before an agent that is to run
	// gives up: a join verifies everything again, from sources that may be slow.
	commandFor = 15 * time.Second
	lockPause  = 100 * time.Millisecond
)

// OpenToRun is Open for an agent that is to stay. A command that holds the lock of the
// state directory is waited for, 15 s at most: a service must not fail because somebody
// asked how it stands. Beside another agent that runs it fails at once.
func OpenToRun(ctx context.Context, cfg Config) (*Agent, error) {
	return patiently(ctx, commandFor, func() (*Agent, error) {
		a, err := Open(ctx, cfg)
		if errors.Is(err, fault.Locked) {
			if _, derr := control.Dial(ctx, cfg.StateDir, "agent"); derr == nil {
				return nil, agentRuns{err}
			}
		}
		return a, err
	})
}

// agentRuns is fault.Locked of a directory that no waiting will free.
type agentRuns struct{ error }

func (e agentRuns) Unwrap() error { return e.error }

// patiently tries again while another process holds the lock, for about as long as it is told.
func patiently[T any](ctx context.Context, within time.Duration, try func() (T, error)) (T, error) {
	for began := time.Now(); ; {
		v, err := try()
		if !errors.Is(err, fault.Locked) || errors.As(err, new(agentRuns)) || time.Since(began) > within {
			return v, err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return v, ctx.Err()
		}
	}
}
