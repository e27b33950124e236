package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/self"
	"shoal/internal/fault"
	"shoal/manifest"
)

// agentProgram is a program that answers a self-check as an agent does, or exits with status.
func agentProgram(version string, status int) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\n# %s\necho '{\"schema\":\"shoal.self-check/v1\"}'\nexit %d\n", version, status)
}

// becomeTarget makes the bench's agent a process that started from its app's target.
func (b *bench) becomeTarget() {
	b.t.Helper()
	p, err := self.At(b.target)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cfg.Self = SelfConfig{Program: p, Check: []string{"self-check"}, Settle: time.Millisecond}
}

// runUntilItEnds runs the agent until it ends by itself.
func (b *bench) runUntilItEnds() error {
	b.t.Helper()
	a := b.open()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return errors.Join(a.Run(ctx), a.Close())
}

func (b *bench) guardIs(content []byte) {
	b.t.Helper()
	got, err := os.ReadFile(filepath.Join(filepath.Dir(b.target), "guard"))
	if err != nil || string(got) != string(content) {
		b.t.Errorf("the guard is %q, %v; want %q", clip(got), err, clip(content))
	}
}

func (b *bench) targetIs(content []byte) {
	b.t.Helper()
	if got, err := os.ReadFile(b.target); err != nil || string(got) != string(content) {
		b.t.Errorf("the target is %q, %v; want %q", clip(got), err, clip(content))
	}
}

func TestAgentReplacesItself(t *testing.T) {
	b := newBench(t)
	next := agentProgram("2", 0)
	b.Release(stable, 2, next)
	b.becomeTarget()
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld) // a command does not
	b.targetIs(b.old)
	if err := b.runUntilItEnds(); !errors.Is(err, ErrRestart) {
		t.Fatalf("the agent ended with %v, want ErrRestart", err)
	}
	b.targetIs(next)
	b.guardIs(b.old)
	if s := mustStatus(t, b); s.Apps[0].State != manifest.StateConfirming {
		t.Errorf("status %+v, want confirming", s.Apps[0])
	}
	// Any other command leaves it to the next process.
	h := b.open()
	if _, err := h.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
	h.Close()
	b.guardIs(b.old)

	b.becomeTarget()
	defer b.run()()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	b.guardIs(next)
	if history, err := Log(b.cfg, "acme"); err != nil || len(history) != 1 || history[0].Attempts != 1 {
		t.Errorf("history %+v, %v; want one confirmed transaction", history, err)
	}
}

// The mark is on the content, not on the manifest that brought it.
func TestAgentThatFailsItsTrialIsNotSwappedIn(t *testing.T) {
	for _, row := range []struct {
		name string
		next []byte
	}{
		{"exits-1", agentProgram("2", 1)},
		{"is-another-program", agenttest.Program("2", 0)},
		{"cannot-be-run", []byte("\x7fELF and nothing else")},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Check.Every = time.Second
			b.becomeTarget()
			b.Release(stable, 2, row.next)
			defer b.run()()
			failed := func(sequence int64) {
				t.Helper()
				b.until("a failed trial", func(s *AppStatus) bool {
					return s.Sequence == sequence && s.State == manifest.StateFailed && s.Why.Code == fault.HealthFailed
				})
			}
			failed(2)
			b.Release(stable, 3, row.next)
			failed(3)
			b.targetIs(b.old)
			b.guardIs(b.old)
			if history, err := Log(b.cfg, "acme"); err != nil || len(history) != 1 || history[0].Times > 1 {
				t.Errorf("history %+v, %v; want one attempt", history, err)
			}
		})
	}
}

// A new version whose sources refuse to say anything good cannot install another update.
func TestAgentThatFindsNothingGoodIsNotConfirmed(t *testing.T) {
	b := newBench(t)
	next := agentProgram("2", 0)
	b.Release(stable, 2, next)
	b.becomeTarget()
	if err := b.runUntilItEnds(); !errors.Is(err, ErrRestart) {
		t.Fatal(err)
	}
	b.cfg.Sources.Publisher = "http://127.0.0.1:1"
	b.becomeTarget()
	stop := b.run()
	b.until("a first check", func(s *AppStatus) bool { return s.LastCheck != nil && s.LastCheck.Code == fault.Unreachable })
	b.guardIs(b.old)
	if s := b.status(); s.Apps[0].State != manifest.StateConfirming {
		t.Errorf("status %+v, want confirming", s.Apps[0])
	}
	stop()
	// Four starts that end so are enough, and the old version is what runs next.
	for start := 1; ; start++ {
		b.becomeTarget()
		back, err := self.Start(b.cfg.StateDir, b.cfg.Self.Program)
		if err != nil && !back {
			t.Fatal(err)
		}
		if back {
			if start != 4 {
				t.Errorf("put back at start %d, want 4", start)
			}
			break
		}
	}
	b.targetIs(b.old)
	b.becomeTarget()
	defer b.run()()
	b.until("the old version, and the mark", func(s *AppStatus) bool { return s.State == manifest.StateReverted && s.Why.Code == fault.Reverted })
	b.guardIs(b.old)
}

func TestAgentThatIsAnAppLeavesItselfAlone(t *testing.T) {
	b := newBench(t)
	b.becomeTarget()
	b.cfg.Apps[0].Service.Systemd = "shoal-agent.service"
	if _, err := Open(t.Context(), b.cfg); !errors.Is(err, fault.Config) {
		t.Errorf("with a service of its own: %v, want config", err)
	}
}
