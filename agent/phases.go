package agent

import (
	"slices"
	"time"

	"shoal/manifest"
)

// Phase is how long an update was in one of its states: downloading, staged, committing,
// confirming, and reverted when it was put back.
type Phase struct {
	State   manifest.AppState `json:"state"`
	Seconds float64           `json:"seconds"`
}

// phaseStates are the states that are phases. How an update ends is none.
var phaseStates = []manifest.AppState{
	manifest.StateDownloading, manifest.StateStaged, manifest.StateCommitting, manifest.StateConfirming, manifest.StateReverted,
}

// stopwatch measures the phases of an update. A nil one measures nothing.
type stopwatch struct {
	clock func() time.Time
	state manifest.AppState // the one it is in
	since time.Time
	spent []Phase
}

func newStopwatch(clock func() time.Time) *stopwatch {
	return &stopwatch{clock: clock, state: manifest.StateDownloading, since: clock()}
}

// enter says in what state the update is now.
func (w *stopwatch) enter(s manifest.AppState) {
	if w == nil || s == w.state {
		return
	}
	w.spent = w.phases()
	w.state, w.since = s, w.clock()
}

// phases are those so far, and the one under way; a copy.
func (w *stopwatch) phases() []Phase {
	if w == nil {
		return nil
	}
	list := slices.Clone(w.spent)
	if !slices.Contains(phaseStates, w.state) {
		return list
	}
	took := max(0, w.clock().Sub(w.since).Seconds()) // a clock may be set back
	if i := slices.IndexFunc(list, func(p Phase) bool { return p.State == w.state }); i >= 0 {
		list[i].Seconds += took
		return list
	}
	return append(list, Phase{w.state, took})
}
