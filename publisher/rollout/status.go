package rollout

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/repo"
)

// The phases of a rollout.
const (
	PhaseEveryone = "everyone" // the plan has no waves
	PhaseWaiting  = "waiting"  // no wave is open yet
	PhaseRunning  = "running"
	PhasePaused   = "paused"   // as the release keys have signed
	PhaseHeld     = "held"     // by beacon
	PhaseFinished = "finished" // every wave is open
)

// Status is how the rollout of what a channel offers stands.
type Status struct {
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version"`
	Epoch    int64            `json:"epoch"`
	Sequence int64            `json:"sequence"`
	Expires  time.Time        `json:"expires"` // of the manifest
	Phase    string           `json:"phase"`
	Paused   bool             `json:"paused"` // signed so
	Hold     bool             `json:"hold"`   // by beacon
	Reason   string           `json:"reason,omitempty"`
	Wave     int              `json:"wave"` // the last one that is open; 0 for none
	Start    time.Time        `json:"start,omitzero"`
	Waves    []WaveStatus     `json:"waves"`
	NextGate int              `json:"next_gate,omitempty"` // the first wave whose gate is shut
	Retry    int64            `json:"retry,omitempty"`
	// StopAtFailed is the share of failed machines at which the rollout is held, in percent,
	// among MinReports at least; nil where the plan says nothing.
	StopAtFailed *int64 `json:"stop_at_failed_percent,omitempty"`
	MinReports   *int64 `json:"min_reports,omitempty"`

	Counted bool  `json:"counted"` // somebody counts reports; else Total says nothing
	Total   Count `json:"total"`

	Gated  bool          `json:"gated"`            // the channel has a beacon
	Beacon *BeaconStatus `json:"beacon,omitempty"` // the one in the tree, while it is fresh
	// Controlled says that a controller renews the beacon and opens the gates.
	Controlled bool `json:"controlled"`
}

// WaveStatus is one wave.
type WaveStatus struct {
	Name    string        `json:"name"`
	Rings   []string      `json:"rings,omitempty"`
	Percent int           `json:"percent,omitempty"`
	Opens   time.Time     `json:"opens"` // as signed: never before
	Gated   bool          `json:"gated"`
	Soak    time.Duration `json:"soak_ns,omitempty"`
	Open    bool          `json:"open"`
	Opened  time.Time     `json:"opened,omitzero"` // when the controller saw it open
	Count   *Count        `json:"count,omitempty"`
	// Waits says, of the first wave that is not open, what it waits for; Until when that is
	// over, where a clock alone says so.
	Waits string    `json:"waits,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// BeaconStatus is what a beacon says.
type BeaconStatus struct {
	Wave    int64     `json:"wave"`
	Hold    bool      `json:"hold"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// look tells how m's rollout stands.
func (s *State) look(m *manifest.Manifest, counts []Count, now time.Time) *Status {
	st := &Status{
		Channel: m.Name(), Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence, Expires: m.Expires,
		Hold: s.Hold, Reason: s.Reason, Phase: PhaseEveryone, Waves: []WaveStatus{}, Counted: counts != nil,
	}
	for _, c := range counts {
		t := &st.Total
		t.Target, t.Healthy, t.Working, t.Failed, t.NotSeen =
			t.Target+c.Target, t.Healthy+c.Healthy, t.Working+c.Working, t.Failed+c.Failed, t.NotSeen+c.NotSeen
	}
	if r := m.Rollout; r != nil {
		st.Paused, st.Start, st.Retry = r.Paused, r.Start, r.Retry
		if r.Stop != nil {
			st.StopAtFailed, st.MinReports = &r.Stop.FailedPercent, &r.Stop.MinReports
		}
		if st.Wave = r.Open(now, s.Wave); r.Paused {
			st.Wave = min(st.Wave, len(s.Opened)) // what had opened before
		}
		st.NextGate = s.nextGate(r)
		next := s.gate(r, counts, now)
		for i := range r.Waves {
			w := &r.Waves[i]
			ws := WaveStatus{
				Name: w.Name, Rings: w.Rings, Percent: w.Percent, Opens: r.Start.Add(w.After),
				Gated: w.Gate == manifest.GateBeacon, Soak: w.Soak, Open: i < st.Wave,
			}
			if i < len(s.Opened) {
				ws.Opened = s.Opened[i]
			}
			if len(counts) == len(r.Waves) {
				ws.Count = &counts[i]
			}
			if i+1 == next.wave {
				ws.Waits, ws.Until = next.waits, next.until
			}
			st.Waves = append(st.Waves, ws)
		}
		switch {
		case len(r.Waves) == 0:
		case st.Wave == 0:
			st.Phase = PhaseWaiting
		case st.Wave == len(r.Waves):
			st.Phase = PhaseFinished
		default:
			st.Phase = PhaseRunning
		}
	}
	switch {
	case st.Hold:
		st.Phase = PhaseHeld
	case st.Paused:
		st.Phase = PhasePaused
	}
	return st
}

// Peek tells how the rollout of ch stands where nobody steers: from the signed plan, the
// record in dir and the beacon in the tree. counts may be nil.
func Peek(r *repo.Repo, dir string, name manifest.Channel, counts Counter, now time.Time) (*Status, error) {
	tree, err := r.Read()
	if err != nil {
		return nil, err
	}
	ch, err := tree.Channel(name)
	if err != nil {
		return nil, err
	}
	if ch.Held == nil {
		return nil, fault.New(fault.NotFound, "%s offers nothing that machines would take", name).Do("shoal release list --channel %s", name)
	}
	env, err := r.StoredBeacon(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	states, err := readStates(dir)
	if err != nil {
		return nil, err
	}
	b := lastBeacon(tree, name, env)
	s, known := states[name]
	if !known {
		s = adopt(ch, &published{env, b})
	}
	m := ch.Held.Manifest
	s.take(m, ch.Held.Hash, now)
	c := Controller{c: Config{Counts: counts, Logger: slog.New(slog.DiscardHandler)}}
	fresh := beaconStatus(b, now)
	if fresh == nil || b.Manifest != ch.Held.Hash {
		s.Wave = 0 // gates are shut without a fresh beacon
	}
	st := s.look(m, c.count(name, &s, m, now), now)
	st.Gated, st.Beacon = ch.Spec.Beacon != nil, fresh
	return st, nil
}
