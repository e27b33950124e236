package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/agenttest"
	"shoal/manifest"
)

func TestStopwatchMeasuresEachState(t *testing.T) {
	now := time.Unix(1800000000, 0)
	w := newStopwatch(func() time.Time { return now })
	for _, step := range []struct {
		after time.Duration
		state manifest.AppState
	}{
		{3 * time.Second, manifest.StateDownloading}, // the same again
		{2 * time.Second, manifest.StateStaged},
		{time.Second, manifest.StateCommitting},
		{-time.Hour, manifest.StateConfirming}, // the clock was set back
		{4 * time.Second, manifest.StateCommitting},
		{time.Second, manifest.StateReverted},
		{6 * time.Second, manifest.StateFailed},
		{time.Hour, manifest.StateFailed},
	} {
		now = now.Add(step.after)
		w.enter(step.state)
	}
	want := []Phase{
		{manifest.StateDownloading, 5}, {manifest.StateStaged, 1}, {manifest.StateCommitting, 1},
		{manifest.StateConfirming, 4}, {manifest.StateReverted, 6},
	}
	if diff := cmp.Diff(want, w.phases()); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	var none *stopwatch // of a recovery
	if none.enter(manifest.StateStaged); none.phases() != nil {
		t.Error("a job that is no update has phases")
	}
}

func TestAnUpdateTellsItsPhases(t *testing.T) {
	b := newBench(t)
	b.cfg.Clock = time.Now
	b.Release(stable, 2, agenttest.Program("2", 0))
	defer b.run()()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	u := b.status().Apps[0].Update
	var states []manifest.AppState
	sum := 0.0
	for _, p := range u.Phases {
		states, sum = append(states, p.State), sum+p.Seconds
	}
	want := []manifest.AppState{manifest.StateDownloading, manifest.StateStaged, manifest.StateCommitting, manifest.StateConfirming}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	if sum <= 0 || sum > u.Seconds {
		t.Errorf("they took %v s of %v s", sum, u.Seconds)
	}
}
