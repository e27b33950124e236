package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeSCM is a service whose states follow each other, one at each query once it was
// told to start or to stop.
type fakeSCM struct {
	scmStatus
	starting, stopping []uint32 // what follows
	next               []uint32
	fails              error
	calls              []string
	open               int
}

func (f *fakeSCM) query() (scmStatus, error) {
	q := f.scmStatus
	if len(f.next) > 0 {
		f.state, f.next = f.next[0], f.next[1:]
	}
	return q, nil
}

func (f *fakeSCM) start() error {
	f.calls, f.next = append(f.calls, "start"), f.starting
	f.state = scmStartPending
	return f.fails
}

func (f *fakeSCM) stop() error {
	f.calls, f.next = append(f.calls, "stop"), f.stopping
	f.state = scmStopPending
	return f.fails
}

func (f *fakeSCM) Close() error { f.open--; return nil }

func (f *fakeSCM) service(waits *int) *windowsService {
	return &windowsService{"Acme", func(string) (scm, error) { f.open++; return f, nil }, func(ctx context.Context, _ time.Duration) error {
		*waits++
		return ctx.Err()
	}}
}

func TestWindowsServiceIsRestarted(t *testing.T) {
	pending := []uint32{scmStopPending, scmStopPending, scmStopped}
	rows := []struct {
		name  string
		scm   fakeSCM
		calls []string
		waits int
		err   string
	}{
		{"running", fakeSCM{scmStatus: scmStatus{state: scmRunning}, stopping: pending, starting: []uint32{scmStartPending, scmRunning}}, []string{"stop", "start"}, 5, ""},
		{"stopped", fakeSCM{scmStatus: scmStatus{state: scmStopped}, starting: []uint32{scmRunning}}, []string{"start"}, 1, ""},
		{"stopping-already", fakeSCM{scmStatus: scmStatus{state: scmStopPending}, next: []uint32{scmStopped}, starting: []uint32{scmRunning}}, []string{"start"}, 1, ""},
		{"crashes-at-start", fakeSCM{scmStatus: scmStatus{state: scmStopped, exit: 3}, starting: []uint32{scmStopped}}, []string{"start"}, 1, "stopped, exit code 3"},
		{"does-not-stop", fakeSCM{scmStatus: scmStatus{state: scmRunning}, stopping: []uint32{scmStopPending}, fails: errors.New("access is denied")}, []string{"stop"}, 0, "access is denied"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			waits := 0
			err := r.scm.service(&waits).Restart(t.Context())
			if (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
				t.Errorf("%v, want %q", err, r.err)
			}
			if d := cmp.Diff(r.calls, r.scm.calls); d != "" || waits != r.waits || r.scm.open != 0 {
				t.Errorf("%s%d waits, want %d; %d left open", d, waits, r.waits, r.scm.open)
			}
		})
	}
}

func TestWindowsServiceThatHangsIsGivenUp(t *testing.T) {
	f := &fakeSCM{scmStatus: scmStatus{state: scmRunning}}
	waits := 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.service(&waits).Stop(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "still stopping") {
		t.Errorf("got %v", err)
	}
}

func TestWindowsServiceStates(t *testing.T) {
	rows := map[string]struct {
		scmStatus
		want State
	}{
		"running":       {scmStatus{state: scmRunning, pid: 7}, State{Running: true, Enabled: true, PID: 7, Detail: "running"}},
		"starting":      {scmStatus{state: scmStartPending, pid: 7}, State{Running: true, Enabled: true, PID: 7, Detail: "starting"}},
		"stopped":       {scmStatus{state: scmStopped}, State{Enabled: true, Detail: "stopped"}},
		"never-started": {scmStatus{state: scmStopped, exit: neverStarted}, State{Enabled: true, Detail: "stopped"}},
		"crashed":       {scmStatus{state: scmStopped, exit: 1067}, State{Failed: true, Enabled: true, Detail: "stopped, exit code 1067"}},
		"disabled":      {scmStatus{state: scmStopped, disabled: true}, State{Detail: "stopped"}},
		"paused":        {scmStatus{state: 7, pid: 7}, State{Running: true, Enabled: true, PID: 7, Detail: "in state 7"}},
	}
	for name, r := range rows {
		waits := 0
		got, err := (&fakeSCM{scmStatus: r.scmStatus}).service(&waits).State(t.Context())
		if d := cmp.Diff(r.want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

func TestNamesOfWindowsServices(t *testing.T) {
	for _, bad := range []string{"", `a\b`, "a/b", strings.Repeat("x", 257)} {
		if _, err := Windows(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := Windows("Acme Updates"); err != nil {
		t.Error(err)
	}
}
