package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/internal/fault"
)

// command holds the lock of the state directory for a moment, as a command does.
func (b *bench) command() {
	b.t.Helper()
	store, err := state.Open(b.cfg.StateDir, b.cfg.AnchorFile)
	if err != nil {
		b.t.Fatal(err)
	}
	time.AfterFunc(3*lockPause, func() { store.Close() })
}

func TestACommandKeepsNoAgentFromStarting(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	b.command()
	a, err := OpenToRun(t.Context(), b.cfg)
	if err != nil {
		t.Fatalf("while a command was at work: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	b.run()
	// Less than a command is waited for: the agent that runs will not end.
	ctx, cancel := context.WithTimeout(t.Context(), commandFor/2)
	defer cancel()
	if _, err := OpenToRun(ctx, b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("beside the running agent: %v, want locked", err)
	}
}

func TestStatusOfAnAgentThatHasOnlyBegun(t *testing.T) {
	b := newBench(t)
	b.command()
	if s, err := CurrentStatus(t.Context(), b.cfg); err != nil || len(s.Apps) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
