package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
)

const (
	maxWaves = 64
	maxRings = 16 // of one wave
)

// Rollout is the signed plan by which machines take a release. Each machine works out
// for itself when it is its turn. A nil *Rollout is the plan without waves: everyone at
// once.
type Rollout struct {
	Salt   string    // with the agent id it gives a machine's cohort
	Start  time.Time // what After counts from
	Waves  []Wave    // numbered from 1
	Paused bool      // start no install
	Retry  int64     // raised so that machines on which this content failed try it again
	Stop   *Stop
}

// Wave is one step of a rollout: from a time on, these machines may install.
type Wave struct {
	Name    string
	Rings   []string
	Percent int           // 1 to 100; 0 when the wave goes by rings alone
	After   time.Duration // from the rollout's start
	Gate    string        // GateBeacon, or empty for none
	Soak    time.Duration // least time the controller lets the wave before it stand; agents ignore it
}

// GateBeacon is the gate that a fresh beacon opens, never before the signed time.
const GateBeacon = "beacon"

// Stop is when the controller holds a rollout.
type Stop struct {
	FailedPercent int64 // of the reports
	MinReports    int64
}

// Cohorts is how many cohorts there are.
const Cohorts = 10000

// Cohort returns a machine's bucket, 0 to Cohorts-1: the same for every manifest with
// that salt, and evenly spread over machines and salts.
func Cohort(salt string, agent keys.ID) int {
	h := sha256.New()
	h.Write([]byte(salt))
	h.Write([]byte{0})
	h.Write([]byte(agent))
	return int(binary.BigEndian.Uint64(h.Sum(nil)) % Cohorts)
}

// Has reports whether a machine with this cohort and these rings is in the wave.
func (w *Wave) Has(cohort int, rings []string) bool {
	return cohort < w.Percent*(Cohorts/100) || slices.ContainsFunc(rings, func(r string) bool { return slices.Contains(w.Rings, r) })
}

// Wave returns the number of the first wave the machine is in, and 0 if it is in none.
// Waves open in order, so the machine's turn is when that wave is open. Without waves it
// is 0 for everybody and there is no turn to wait for: see [Rollout.Open].
func (r *Rollout) Wave(cohort int, rings []string) int {
	if r == nil {
		return 0
	}
	for i := range r.Waves {
		if r.Waves[i].Has(cohort, rings) {
			return i + 1
		}
	}
	return 0
}

// Open returns how many waves are open at now, counted from the first: a wave is open
// when its signed time has come, its gate lets it, and every wave before it is open.
// gate is what [Brake.Gate] says. Pausing and holds are apart: they stop every wave.
func (r *Rollout) Open(now time.Time, gate int64) int {
	if r == nil {
		return 0
	}
	for i := range r.Waves {
		w := &r.Waves[i]
		if now.Before(r.Start.Add(w.After)) || w.Gate == GateBeacon && gate < int64(i+1) {
			return i
		}
	}
	return len(r.Waves)
}

// Turn is a machine's place in a plan at one moment.
type Turn struct {
	Open  bool      // the plan lets this machine install now
	Wave  int       // the wave the machine is in; 0: the plan has no waves, or none for this machine
	At    time.Time // the signed time of that wave; zero without one
	Gated bool      // the time has come and only gates are in the way
}

// Turn says whether the plan lets a machine install at now. It knows nothing of Paused,
// of holds and of maintenance windows.
func (r *Rollout) Turn(now time.Time, gate int64, cohort int, rings []string) Turn {
	if r == nil || len(r.Waves) == 0 {
		return Turn{Open: true}
	}
	n := r.Wave(cohort, rings)
	if n == 0 {
		return Turn{}
	}
	t := Turn{Wave: n, At: r.Start.Add(r.Waves[n-1].After), Open: r.Open(now, gate) >= n}
	t.Gated = !t.Open && !now.Before(t.At)
	return t
}

type wireRollout struct {
	Salt   *string    `json:"salt,omitempty"`
	Start  *string    `json:"start,omitempty"`
	Waves  []wireWave `json:"waves,omitempty"`
	Paused *bool      `json:"paused,omitempty"`
	Retry  *int64     `json:"retry,omitempty"`
	Stop   *wireStop  `json:"stop,omitempty"`
}

type wireWave struct {
	Name    *string  `json:"name"`
	Rings   []string `json:"rings,omitempty"`
	Percent *int64   `json:"percent,omitempty"`
	After   *string  `json:"after"`
	Gate    *string  `json:"gate,omitempty"`
	Soak    *string  `json:"soak,omitempty"`
}

type wireStop struct {
	FailedPercent *int64 `json:"failed_percent"`
	MinReports    *int64 `json:"min_reports"`
}

// rollout reads an optional plan. A plan that has waves says when it starts and how
// machines are spread over them.
func (f *fields) rollout(w *wireRollout) *Rollout {
	if w == nil {
		return nil
	}
	in := f.at("rollout")
	defer f.up(in)
	r := &Rollout{Salt: in.text("salt", w.Salt, maxText, false), Paused: w.Paused != nil && *w.Paused}
	if w.Start != nil {
		r.Start = in.time("start", w.Start)
	}
	if w.Retry != nil {
		r.Retry = in.integer("retry", w.Retry, 0)
	}
	if w.Stop != nil {
		part := in.at("stop")
		r.Stop = &Stop{part.integer("failed_percent", w.Stop.FailedPercent, 0), part.integer("min_reports", w.Stop.MinReports, 0)}
		if r.Stop.FailedPercent > 100 {
			part.fail(fault.Malformed, "failed_percent", "is %d, at most 100 is wanted", r.Stop.FailedPercent)
		}
		in.up(part)
	}
	in.atMost("waves", len(w.Waves), maxWaves)
	if len(w.Waves) > 0 {
		present(in, "salt", w.Salt)
		present(in, "start", w.Start)
	}
	names := make(map[string]bool, len(w.Waves))
	var least Wave // what percent and after may not fall below
	for i := range w.Waves {
		if in.err != nil {
			break
		}
		part := in.at("waves[%d]", i)
		wave := part.wave(&w.Waves[i], least)
		if names[wave.Name] {
			part.fail(fault.Malformed, "name", "is %q, which another wave has", wave.Name)
		}
		names[wave.Name] = true
		least.Percent, least.After = max(least.Percent, wave.Percent), wave.After
		r.Waves = append(r.Waves, wave)
		in.up(part)
	}
	return r
}

func (f *fields) wave(w *wireWave, least Wave) Wave {
	wave := Wave{Name: f.name("name", w.Name)}
	f.atMost("rings", len(w.Rings), maxRings)
	for i, ring := range w.Rings {
		if !ValidName(ring) {
			f.fail(fault.Malformed, "rings", "has %q at %d, which is no name", clip(ring), i)
		}
		wave.Rings = append(wave.Rings, ring)
	}
	switch {
	case w.Percent == nil && len(w.Rings) == 0:
		f.fail(fault.Malformed, "percent", "and rings are both missing; the wave would have nobody")
	case w.Percent != nil:
		if p := *w.Percent; p < 1 || p > 100 || p < int64(least.Percent) {
			f.fail(fault.Malformed, "percent", "is %d; 1 to 100 is wanted, and no less than in the waves before", p)
		} else {
			wave.Percent = int(p)
		}
	}
	if present(f, "after", w.After) {
		if wave.After = f.duration("after", w.After); wave.After < least.After {
			f.fail(fault.Malformed, "after", "is %s; no less than the %s of the wave before is wanted", *w.After, formatDuration(least.After))
		}
	}
	if w.Gate != nil {
		if wave.Gate = *w.Gate; wave.Gate != GateBeacon {
			f.fail(fault.Malformed, "gate", "is %q; %q or no gate is wanted", clip(wave.Gate), GateBeacon)
		}
	}
	wave.Soak = f.duration("soak", w.Soak)
	return wave
}

func (r *Rollout) wire() *wireRollout {
	if r == nil {
		return nil
	}
	w := &wireRollout{Salt: optional(r.Salt), Paused: new(r.Paused), Retry: new(r.Retry)}
	if !r.Start.IsZero() {
		w.Start = formatTime(r.Start)
	}
	if r.Stop != nil {
		w.Stop = &wireStop{new(r.Stop.FailedPercent), new(r.Stop.MinReports)}
	}
	for i := range r.Waves {
		wave := &r.Waves[i]
		ww := wireWave{
			Name: new(wave.Name), Rings: wave.Rings, Percent: optional(int64(wave.Percent)),
			After: new(formatDuration(wave.After)), Gate: optional(wave.Gate),
		}
		if wave.Soak != 0 {
			ww.Soak = new(formatDuration(wave.Soak))
		}
		w.Waves = append(w.Waves, ww)
	}
	return w
}
