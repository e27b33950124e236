package rollout

import (
	"fmt"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

const (
	healthyPercent    = 95 // of the machines seen in the wave before a gate
	defaultMinReports = 3  // where the plan says nothing

	maxReason = 256  // bytes of a reason, as a manifest's texts
	maxOnHold = 4096 // contents, as machines remember; the oldest go
)

// State is what the controller remembers of a channel. Its zero value knows nothing.
type State struct {
	Manifest  manifest.Digest   `json:"manifest"` // payload hash of the manifest this is about
	Artifacts []manifest.Digest `json:"artifacts"`
	Plan      string            `json:"plan"`  // which machines go when; see shape
	Retry     int64             `json:"retry"` // of the plan

	Wave   int64       `json:"wave"`             // the highest gated wave that may open
	Opened []time.Time `json:"opened,omitempty"` // when each wave was first seen open, from the first
	Hold   bool        `json:"hold"`
	Reason string      `json:"reason,omitempty"`
	Since  time.Time   `json:"since,omitzero"` // failures before do not count
	Ended  bool        `json:"ended"`          // every wave was seen open

	// OnHold are contents that were held before and that nobody has resumed. Machines
	// remember them too, until a beacon ends the hold of what is offered then.
	OnHold []manifest.Digest `json:"on_hold,omitempty"`
	// Untold are decisions that are made and of which nobody was told yet.
	Untold []Event `json:"untold,omitempty"`
}

// take turns the state to the manifest m with the payload hash. What offers the same
// content goes on where it was, held or not: a higher number alone ends nothing.
func (s *State) take(m *manifest.Manifest, hash manifest.Digest, now time.Time) []Event {
	if s.Manifest == hash {
		return nil
	}
	next := State{Manifest: hash, Artifacts: digests(m), Plan: shape(m.Rollout), OnHold: s.OnHold, Untold: s.Untold}
	waves := int64(0)
	if m.Rollout != nil {
		waves, next.Retry = int64(len(m.Rollout.Waves)), m.Rollout.Retry
	}
	if s.Hold {
		next.OnHold = slices.Concat(without(s.OnHold, s.Artifacts), s.Artifacts)
		next.OnHold = next.OnHold[max(0, len(next.OnHold)-maxOnHold):]
	}
	in := func(all []manifest.Digest) bool {
		return slices.ContainsFunc(next.Artifacts, func(d manifest.Digest) bool { return slices.Contains(all, d) })
	}
	switch {
	case s.Hold && in(s.Artifacts):
		next.Hold, next.Reason = true, s.Reason
	case in(next.OnHold):
		next.Hold, next.Reason = true, "the same content was held before, and nobody resumed it"
	}
	reason := ""
	if slices.Equal(next.Artifacts, s.Artifacts) {
		next.Wave, next.Since = min(s.Wave, waves), s.Since
		reason = "the same content: it goes on where it was"
		if next.Plan == s.Plan {
			next.Opened, next.Ended = s.Opened, s.Ended
		}
		if next.Retry > s.Retry {
			next.Since = now // machines that failed try again
		}
	}
	*s = next
	return []Event{s.event(m, Followed, "controller", reason, now)}
}

// step makes the decisions that are due. Without counts no gate opens.
func (s *State) step(m *manifest.Manifest, counts []Count, now time.Time) []Event {
	r := m.Rollout
	if r == nil || len(r.Waves) == 0 {
		return nil
	}
	var events []Event
	tell := func(kind, reason string) {
		e := s.event(m, kind, "controller", reason, now)
		e.Counts = counts
		events = append(events, e)
	}
	if why := failing(r, counts, r.Open(now, s.Wave)); why != "" && !s.Hold {
		s.Hold, s.Reason = true, why
		tell(Halted, why)
	}
	if s.Hold || r.Paused {
		return events
	}
	s.seeOpen(r, now)
	if g := s.gate(r, counts, now); g.ready {
		s.Wave = int64(g.wave)
		s.seeOpen(r, now)
		tell(Opened, fmt.Sprintf("wave %d (%s): the wave before it is well", g.wave, r.Waves[g.wave-1].Name))
	}
	if len(s.Opened) == len(r.Waves) && !s.Ended {
		s.Ended = true
		tell(Finished, "every wave is open")
	}
	return events
}

// seeOpen notes which waves are open by now: their soak begins.
func (s *State) seeOpen(r *manifest.Rollout, now time.Time) {
	for n := r.Open(now, s.Wave); len(s.Opened) < n; {
		s.Opened = append(s.Opened, now)
	}
}

// gate is what stands before the next wave.
type gate struct {
	wave  int       // its number; 0 when every wave is open
	ready bool      // it has a gate, and nothing speaks against opening it
	waits string    // what speaks against it
	until time.Time // when that is over, where a clock alone says so
}

// gate looks at the first wave that is not open.
func (s *State) gate(r *manifest.Rollout, counts []Count, now time.Time) gate {
	open := r.Open(now, s.Wave)
	if open == len(r.Waves) {
		return gate{}
	}
	n := open + 1
	w := &r.Waves[n-1]
	if at := r.Start.Add(w.After); now.Before(at) {
		return gate{wave: n, waits: "its signed time", until: at}
	}
	// Its time has come, so it is the gate that keeps it shut.
	if n == 1 {
		return gate{wave: n, ready: true}
	}
	if len(s.Opened) < open {
		return gate{wave: n, waits: "the wave before it to be seen open"}
	}
	if end := s.Opened[n-2].Add(w.Soak); now.Before(end) {
		return gate{wave: n, waits: "its soak", until: end}
	}
	if len(counts) != len(r.Waves) {
		return gate{wave: n, waits: "reports"}
	}
	if why := unwell(r, counts[n-2]); why != "" {
		return gate{wave: n, waits: fmt.Sprintf("wave %d: %s", n-1, why)}
	}
	return gate{wave: n, ready: true}
}

// unwell says what keeps a wave from being well enough for the next one.
func unwell(r *manifest.Rollout, c Count) string {
	least := max(1, min(minReports(r), c.Target))
	switch {
	case c.Target == 0:
		return "no approved machine is in it"
	case c.Healthy < least:
		return fmt.Sprintf("%d healthy, at least %d are wanted", c.Healthy, least)
	case c.Healthy*100 < healthyPercent*c.Seen():
		return fmt.Sprintf("%d of %d healthy, %d %% are wanted", c.Healthy, c.Seen(), healthyPercent)
	}
	return ""
}

// failing says that the plan's limit of failures is reached. Where fewer machines than
// min_reports can have it, as many as there are decide.
func failing(r *manifest.Rollout, counts []Count, open int) string {
	if r.Stop == nil || len(counts) != len(r.Waves) {
		return ""
	}
	failed, reports, may := 0, 0, 0
	for i, c := range counts {
		failed, reports = failed+c.Failed, reports+c.Failed+c.Healthy
		if i < open {
			may += c.Target
		}
	}
	if failed == 0 || reports < max(1, min(minReports(r), may)) || int64(failed)*100 < r.Stop.FailedPercent*int64(reports) {
		return ""
	}
	return fmt.Sprintf("%d of %d machines failed; the plan stops at %d %%", failed, reports, r.Stop.FailedPercent)
}

func minReports(r *manifest.Rollout) int {
	if r.Stop == nil {
		return defaultMinReports
	}
	return int(min(r.Stop.MinReports, 1<<30))
}

// promote opens the gate of a wave, 0 for the next, whatever the wave before it reports.
// Machines still wait for the signed time.
func (s *State) promote(m *manifest.Manifest, wave int, now time.Time) ([]Event, error) {
	if err := s.runs(m); err != nil {
		return nil, err
	}
	if err := s.mayOpen(m.Rollout, wave); err != nil {
		return nil, err
	}
	n := s.nextGate(m.Rollout)
	if n == 0 || wave != 0 && wave != n {
		return nil, nil // it is open already
	}
	s.Wave = int64(n)
	s.seeOpen(m.Rollout, now)
	w := &m.Rollout.Waves[n-1]
	reason := fmt.Sprintf("wave %d (%s)", n, w.Name)
	if at := m.Rollout.Start.Add(w.After); now.Before(at) {
		reason += ", which opens " + at.UTC().Format("2006-01-02 15:04 MST") + " as it is signed"
	}
	return []Event{s.event(m, Promoted, "operator", reason, now)}, nil
}

// nextGate is the first wave whose gate is shut; 0 when there is none.
func (s *State) nextGate(r *manifest.Rollout) int {
	for i := range r.Waves {
		if r.Waves[i].Gate == manifest.GateBeacon && int64(i+1) > s.Wave {
			return i + 1
		}
	}
	return 0
}

// mayOpen refuses a gate that there is not, or that others wait before.
func (s *State) mayOpen(r *manifest.Rollout, wave int) error {
	next := s.nextGate(r)
	switch {
	case wave == 0:
		return nil
	case wave < 0 || wave > len(r.Waves) || r.Waves[wave-1].Gate != manifest.GateBeacon:
		return fault.New(fault.Usage, "wave %d has no gate", wave).
			Line("The plan has %d waves. Nothing was changed.", len(r.Waves)).Do("shoal rollout status")
	case next != 0 && wave > next:
		return fault.New(fault.Policy, "the gate of wave %d comes before that of wave %d", next, wave).
			Line("Gates are opened one after the other. Nothing was changed.").Do("shoal rollout promote --wave %d", next)
	}
	return nil
}

// runs refuses to promote what does not run.
func (s *State) runs(m *manifest.Manifest) error {
	switch {
	case m.Rollout == nil || len(m.Rollout.Waves) == 0:
		return fault.New(fault.Policy, "%s of %s has no waves: it is for everyone at once", m.Release.Version, m.Name()).
			Line("There is no gate to open. Nothing was changed.")
	case s.Hold:
		return fault.New(fault.Held, "the rollout of %s is held: %s", m.Release.Version, orUnsaid(s.Reason)).
			Line("No machine begins it, whatever gate is open. Nothing was changed.").
			Do("shoal rollout resume, and promote then")
	case m.Rollout.Paused:
		return fault.New(fault.Held, "the rollout of %s is signed paused", m.Release.Version).
			Line("No machine begins it, whatever gate is open. Nothing was changed.").
			Do("shoal rollout start, or shoal rollout resume if it ran before")
	}
	return nil
}

func orUnsaid(reason string) string {
	if reason == "" {
		return "no reason was given"
	}
	return reason
}

// hold has no machine begin what m offers; kind is Paused or Halted.
func (s *State) hold(m *manifest.Manifest, kind, reason string, now time.Time) []Event {
	if s.Hold {
		return nil
	}
	s.Hold, s.Reason = true, reason
	return []Event{s.event(m, kind, "operator", reason, now)}
}

// resume ends a hold. Only what fails from now on counts.
func (s *State) resume(m *manifest.Manifest, now time.Time) []Event {
	if !s.Hold {
		return nil
	}
	s.Hold, s.Reason, s.Since = false, "", now
	s.OnHold = without(s.OnHold, s.Artifacts)
	return []Event{s.event(m, Resumed, "operator", "", now)}
}

func (s *State) event(m *manifest.Manifest, kind, by, reason string, now time.Time) Event {
	return Event{
		Time: now.UTC(), Kind: kind, Channel: m.Name(), Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		Wave: s.Wave, Hold: s.Hold, By: by, Reason: reason,
	}
}

// digests are the contents that m offers, in a fixed order.
func digests(m *manifest.Manifest) []manifest.Digest {
	all := make([]manifest.Digest, 0, len(m.Artifacts))
	for i := range m.Artifacts {
		all = append(all, m.Artifacts[i].SHA256)
	}
	slices.SortFunc(all, func(a, b manifest.Digest) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

// without is all but those of gone.
func without(all, gone []manifest.Digest) []manifest.Digest {
	return slices.DeleteFunc(slices.Clone(all), func(d manifest.Digest) bool { return slices.Contains(gone, d) })
}

// shape says which machines go when. While it stays, so do the soaks that have begun.
func shape(r *manifest.Rollout) string {
	if r == nil {
		return ""
	}
	text := r.Salt + " " + r.Start.UTC().Format(time.RFC3339)
	for _, w := range r.Waves {
		text += fmt.Sprintf("; %s %d %s %s", w.Rings, w.Percent, w.After, w.Gate)
	}
	return manifest.Sum([]byte(text)).String()
}

// clone is a copy that shares nothing.
func (s *State) clone() State {
	c := *s
	c.Artifacts, c.Opened = slices.Clone(s.Artifacts), slices.Clone(s.Opened)
	c.OnHold, c.Untold = slices.Clone(s.OnHold), slices.Clone(s.Untold)
	return c
}
