package self

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// DefaultSettle is how long a new version of the agent must run.
	DefaultSettle = time.Minute
	// How long sources may take to answer it once: a few checks, later and later.
	answerTime = 8 * time.Minute
)

// Gate is passed by an agent that can install the next update: it listens to its peers
// and to commands, has opened its state, has asked its sources and found good what they
// said of its own channel, and has run for some time. It is a health.Check.
type Gate struct {
	settle time.Duration
	began  time.Time

	mu   sync.Mutex // guards what follows
	last error      // how the last cycle ended
	good chan struct{}
}

// NewGate returns a closed gate of an agent that begins now. settle is how long it must
// run; zero means [DefaultSettle].
func NewGate(settle time.Duration) *Gate {
	if settle == 0 {
		settle = DefaultSettle
	}
	return &Gate{settle: settle, began: time.Now(), last: errors.New("no cycle was finished"), good: make(chan struct{})}
}

// Cycle tells how a whole cycle ended for the agent's own channel, in an agent that
// serves.
func (g *Gate) Cycle(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last = err; err == nil && !g.passed() {
		close(g.good)
	}
}

func (g *Gate) passed() bool {
	select {
	case <-g.good:
		return true
	default:
		return false
	}
}

// Within bounds Check: a check that lasts longer is not going to pass.
func (g *Gate) Within() time.Duration { return g.settle + answerTime }

// Probe says how the last cycle ended. Before a swap that is whether the network is up
// for the version that is to be replaced.
func (g *Gate) Probe(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Check waits at the gate.
func (g *Gate) Check(ctx context.Context) error {
	within := time.NewTimer(g.Within())
	defer within.Stop()
	select {
	case <-g.good:
	case <-within.C:
		return fmt.Errorf("it could not install another update after %v: %w", g.Within(), g.Probe(ctx))
	case <-ctx.Done():
		return ctx.Err()
	}
	settled := time.NewTimer(g.settle - time.Since(g.began))
	defer settled.Stop()
	select {
	case <-settled.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
