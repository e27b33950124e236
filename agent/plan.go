package agent

import (
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

// rings are the machine's own labels of that name.
func (c Config) rings() []string {
	var rings []string
	for _, l := range c.Labels {
		if l.Name == "ring" {
			rings = append(rings, l.Value)
		}
	}
	return rings
}

// machine is what a plan needs to know of one.
type machine struct {
	rings  []string
	cohort int
	urgent bool // what it runs is blocked: it takes its turn with the first wave
}

// myTurn says whether the signed plan lets this machine install now: held, with why
// and until when, or nil. A person may override the waves, never a pause.
func myTurn(r *manifest.Rollout, now time.Time, gate int64, m machine, override bool) error {
	if r == nil {
		return nil
	}
	if r.Paused {
		return fault.New(fault.Held, "the publisher has paused this rollout").
			Do("wait: the pause is the publisher's to lift")
	}
	t := r.Turn(now, gate, m.cohort, m.rings)
	if t.Open || override || m.urgent && r.Open(now, gate) >= 1 {
		return nil
	}
	if t.Wave == 0 {
		return fault.New(fault.Held, "no wave of this rollout names this machine").
			Line("Its rings are %q.", m.rings).
			Do("skip the wait: shoal agent update --override")
	}
	name := r.Waves[t.Wave-1].Name
	var e *fault.Error
	switch opens := t.At.UTC().Format("2006-01-02 15:04 MST"); {
	case t.Gated:
		e = fault.New(fault.Held, "wave %d (%s) waits for its gate to open", t.Wave, name)
	case gatedUpTo(r, t.Wave):
		e = fault.New(fault.Held, "wave %d (%s) opens after %s, when the publisher opens its gate", t.Wave, name, opens)
	default:
		e = fault.New(fault.Held, "wave %d (%s) opens %s", t.Wave, name, opens)
	}
	if t.At.After(now) {
		e.Fact("until", t.At.UTC().Format(time.RFC3339))
	}
	return e.Fact("wave", t.Wave).Do("skip the wait: shoal agent update --override")
}

// gatedUpTo reports whether a gate stands before wave n, or at it.
func gatedUpTo(r *manifest.Rollout, n int) bool {
	for _, w := range r.Waves[:n] {
		if w.Gate != "" {
			return true
		}
	}
	return false
}
