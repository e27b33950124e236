package agent

import (
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
	time.AfterFunc(300*time.Millisecond, func() { store.Close() })
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

	stop := b.run()
	b.until("running", func(*AppStatus) bool { return true })
	if _, err := OpenToRun(t.Context(), b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("beside the running agent: %v, want locked", err)
	}
	if err := Leave(t.Context(), b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("leaving under the running agent: %v, want locked", err)
	}
	stop()
	b.command()
	if err := Leave(t.Context(), b.cfg); err != nil {
		t.Errorf("leaving while a command was at work: %v", err)
	}
}

func TestACommandKeepsNobodyFromJoining(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	for _, already := range []bool{false, true} {
		b.command()
		if j, err := Join(t.Context(), b.cfg, b.link()); err != nil || j.Already != already {
			t.Errorf("while a command was at work: %+v, %v; want already %v", j, err, already)
		}
	}
}

func TestStatusOfAnAgentThatHasOnlyBegun(t *testing.T) {
	b := newBench(t)
	b.command()
	if s, err := CurrentStatus(t.Context(), b.cfg); err != nil || len(s.Apps) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
