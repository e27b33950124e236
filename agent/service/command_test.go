//go:build !windows

package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The init script of a program that sleeps: what an operator would write.
const initScript = `#!/bin/sh
cd %s || exit 1
stop() { [ ! -e pid ] || { kill -9 $(cat pid) 2>/dev/null; rm -f pid; }; }
case $1 in
start) setsid sleep 600 >/dev/null 2>&1 & echo $! >pid ;;
stop) stop ;;
restart) stop; setsid sleep 600 >/dev/null 2>&1 & echo $! >pid ;;
status) [ -e pid ] && kill -0 $(cat pid) 2>/dev/null && cat pid ;;
esac
`

func newInitScript(t *testing.T) Service {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "acmectl")
	if err := os.WriteFile(script, fmt.Appendf(nil, initScript, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	verb := func(v string) []string { return []string{"/bin/sh", script, v} }
	s, err := Command(CommandConfig{Restart: verb("restart"), Stop: verb("stop"), Start: verb("start"), Status: verb("status"), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil { // t.Context has ended by now
			t.Errorf("stopping the program: %v", err)
		}
	})
	return s
}

func TestCommandControlsARealProcess(t *testing.T) {
	s := newInitScript(t)
	ctx := t.Context()
	mustState := func(running bool) State {
		t.Helper()
		st, err := s.State(ctx)
		if err != nil || st.Running != running || running != (st.PID > 0) {
			t.Fatalf("state %+v, %v; want running %v", st, err, running)
		}
		return st
	}
	mustState(false)
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := mustState(true)
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if second := mustState(true); second.PID == first.PID {
		t.Errorf("restart left process %d", first.PID)
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	mustState(false)
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stopping what is stopped: %v", err)
	}
}

func TestCommandErrors(t *testing.T) {
	if _, err := Command(CommandConfig{Stop: []string{"true"}}); err == nil {
		t.Error("a service without a restart command was made")
	}
	s, err := Command(CommandConfig{Restart: []string{"/bin/sh", "-c", "echo no licence; exit 7"}, Status: []string{"/nonexistent"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"restart": s.Restart(t.Context()), "start-falls-back-to-restart": s.Start(t.Context())} {
		if err == nil || !strings.Contains(err.Error(), `exited 7: "no licence"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop without a stop command: %v", err)
	}
	if _, err := s.State(t.Context()); err == nil {
		t.Error("a status command that cannot run said something")
	}
}

func TestCommandWithoutStatusIsTakenToRun(t *testing.T) {
	s, err := Command(CommandConfig{Restart: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(t.Context()); err != nil || !st.Running || st.PID != 0 {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestNoneIsNeverRunning(t *testing.T) {
	st, err := None{}.State(t.Context())
	if st != (State{}) || err != nil {
		t.Errorf("state %+v, %v; want the zero State, so that it is not restarted", st, err)
	}
}
