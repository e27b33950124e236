package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

var noon = time.Date(2026, 10, 12, 12, 0, 0, 0, time.UTC)

// planned is a manifest with three waves: the canaries at once, then a tenth, then
// everyone, each behind a gate.
func planned(edits ...func(*manifest.Manifest)) *manifest.Manifest {
	m := &manifest.Manifest{
		App: "acme", Channel: "stable", Epoch: 1, Sequence: 43, Release: manifest.Release{Version: "2.0.0"},
		Artifacts: []manifest.Artifact{{SHA256: manifest.Sum([]byte("linux"))}, {SHA256: manifest.Sum([]byte("windows"))}},
		Rollout: &manifest.Rollout{
			Salt: "s", Start: noon,
			Waves: []manifest.Wave{
				{Name: "canary", Rings: []string{"canary"}},
				{Name: "pilot", Percent: 10, After: time.Hour, Gate: manifest.GateBeacon, Soak: 30 * time.Minute},
				{Name: "everyone", Percent: 100, After: 2 * time.Hour, Gate: manifest.GateBeacon, Soak: time.Hour},
			},
			Stop: &manifest.Stop{FailedPercent: 5, MinReports: 3},
		},
	}
	for _, edit := range edits {
		edit(m)
	}
	return m
}

// waves is a count of each wave: target, healthy, working, failed, not seen.
func waves(counts ...[5]int) []Count {
	var all []Count
	for _, c := range counts {
		all = append(all, Count{c[0], c[1], c[2], c[3], c[4]})
	}
	return all
}

var none = [5]int{}

// begun is a rollout whose canary wave was seen open at noon.
func begun(m *manifest.Manifest) State {
	var s State
	s.take(m, manifest.Sum([]byte("43")), noon)
	s.step(m, waves(none, none, none), noon)
	return s
}

func TestGateOpensOnSoakAndHealth(t *testing.T) {
	well := waves([5]int{5, 5, 0, 0, 0}, none, none)
	for _, c := range []struct {
		name   string
		at     time.Duration
		counts []Count
		edit   func(*manifest.Manifest)
		opens  bool
		waits  string
	}{
		{name: "time-soak-and-health", at: time.Hour, counts: well, opens: true},
		{name: "before-its-signed-time", at: 59 * time.Minute, counts: well, waits: "signed time"},
		{name: "before-the-soak", at: time.Hour, counts: well, waits: "soak",
			edit: func(m *manifest.Manifest) { m.Rollout.Waves[1].Soak = 61 * time.Minute }},
		{name: "nobody-counts", at: time.Hour, waits: "reports"},
		{name: "one-works-on-it", at: time.Hour, counts: waves([5]int{5, 4, 1, 0, 0}, none, none), waits: "4 of 5 healthy"},
		{name: "95-of-100", at: time.Hour, counts: waves([5]int{100, 95, 5, 0, 0}, none, none), opens: true},
		{name: "94-of-100", at: time.Hour, counts: waves([5]int{100, 94, 6, 0, 0}, none, none), waits: "94 of 100 healthy"},
		{name: "too-few-reports", at: time.Hour, counts: waves([5]int{5, 2, 0, 0, 3}, none, none), waits: "at least 3"},
		{name: "a-wave-of-two-is-enough", at: time.Hour, counts: waves([5]int{2, 2, 0, 0, 0}, none, none), opens: true},
		{name: "a-wave-of-nobody-is-not", at: time.Hour, counts: waves(none, [5]int{9, 9, 0, 0, 0}, none), waits: "no approved machine"},
		{name: "who-was-not-seen-does-not-count", at: time.Hour, counts: waves([5]int{20, 3, 0, 0, 17}, none, none), opens: true},
		{name: "one-failed-below-the-limit", at: time.Hour, counts: waves([5]int{40, 39, 0, 1, 0}, none, none), opens: true},
		{name: "signed-paused", at: time.Hour, counts: well, edit: func(m *manifest.Manifest) { m.Rollout.Paused = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := planned()
			s := begun(m)
			if c.edit != nil {
				c.edit(m)
			}
			now := noon.Add(c.at)
			if st := s.look(m, c.counts, now); c.waits != "" && !strings.Contains(st.Waves[1].Waits, c.waits) {
				t.Errorf("wave 2 is said to wait for %q, want %q", st.Waves[1].Waits, c.waits)
			}
			events := s.step(m, c.counts, now)
			if opened := slices.ContainsFunc(events, func(e Event) bool { return e.Kind == Opened }); opened != c.opens || (s.Wave == 2) != c.opens {
				t.Errorf("opened %v, wave %d (%+v)", opened, s.Wave, events)
			}
		})
	}
}

// A gate behind which nobody may go yet is not opened ahead: what is well now may not be
// then, and each gate is opened by itself.
func TestGatesOpenOneByOne(t *testing.T) {
	m := planned()
	s := begun(m)
	all := waves([5]int{5, 5, 0, 0, 0}, [5]int{10, 10, 0, 0, 0}, [5]int{85, 0, 85, 0, 0})
	late := noon.Add(24 * time.Hour)
	s.step(m, all, late)
	if s.Wave != 2 {
		t.Fatalf("wave %d after one step, want 2", s.Wave)
	}
	if s.step(m, all, late.Add(59*time.Minute)); s.Wave != 2 {
		t.Error("the soak of wave 2 was not waited for: it opened late")
	}
	events := s.step(m, all, late.Add(time.Hour))
	if s.Wave != 3 || !s.Ended || events[len(events)-1].Kind != Finished {
		t.Errorf("wave %d, ended %v: %+v", s.Wave, s.Ended, events)
	}
	if more := s.step(m, all, late.Add(2*time.Hour)); len(more) != 0 {
		t.Errorf("told again: %+v", more)
	}
}

func TestHeldWhenMachinesFail(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []Count
		edit   func(*manifest.Manifest)
		held   bool
	}{
		{name: "all-canaries", counts: waves([5]int{5, 0, 0, 5, 0}, none, none), held: true},
		{name: "at-the-limit", counts: waves([5]int{20, 19, 0, 1, 0}, none, none), held: true},
		{name: "below-it", counts: waves([5]int{21, 20, 0, 1, 0}, none, none)},
		{name: "who-works-on-it-has-not-reported", counts: waves([5]int{50, 0, 48, 2, 0}, none, none)},
		{name: "in-any-wave", counts: waves([5]int{5, 5, 0, 0, 0}, none, [5]int{80, 0, 79, 1, 0}), held: true},
		{name: "fewer-machines-than-min-reports", counts: waves([5]int{2, 0, 0, 2, 0}, none, none), held: true},
		{name: "one-of-two-so-far", counts: waves([5]int{2, 0, 1, 1, 0}, none, none)},
		{name: "nobody-failed-at-0-percent", counts: waves([5]int{5, 5, 0, 0, 0}, none, none), edit: func(m *manifest.Manifest) { m.Rollout.Stop.FailedPercent = 0 }},
		{name: "no-limit-signed", counts: waves([5]int{5, 0, 0, 5, 0}, none, none), edit: func(m *manifest.Manifest) { m.Rollout.Stop = nil }},
		{name: "paused-too", counts: waves([5]int{5, 0, 0, 5, 0}, none, none), edit: func(m *manifest.Manifest) { m.Rollout.Paused = true }, held: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := planned()
			s := begun(m)
			if c.edit != nil {
				c.edit(m)
			}
			events := s.step(m, c.counts, noon.Add(time.Minute))
			if s.Hold != c.held || c.held && (events[0].Kind != Halted || !strings.Contains(s.Reason, "machines failed")) {
				t.Errorf("hold %v (%s): %+v", s.Hold, s.Reason, events)
			}
			if s.Wave != 0 {
				t.Errorf("wave %d", s.Wave)
			}
		})
	}
}

func TestAfterResumeOnlyNewFailuresCount(t *testing.T) {
	m := planned()
	s := begun(m)
	s.step(m, waves([5]int{5, 0, 0, 5, 0}, none, none), noon.Add(time.Minute))
	at := noon.Add(time.Hour)
	if events := s.resume(m, at); s.Hold || !s.Since.Equal(at) || len(events) != 1 {
		t.Fatalf("hold %v, failures count since %s: %+v", s.Hold, s.Since, events)
	}
	if events := s.resume(m, at); len(events) != 0 {
		t.Errorf("resumed twice: %+v", events)
	}
	// Whoever counts leaves the old failures out.
	if s.step(m, waves([5]int{5, 0, 5, 0, 0}, none, none), at.Add(time.Minute)); s.Hold {
		t.Error("held again without a new failure")
	}
	if s.step(m, waves([5]int{5, 2, 2, 1, 0}, none, none), at.Add(time.Hour)); !s.Hold {
		t.Error("new failures do not count")
	}
}

// A new number alone ends nothing.
func TestWhatIsCarriedOver(t *testing.T) {
	held := func(m *manifest.Manifest) State {
		s := begun(m)
		s.Wave, s.Since = 2, noon
		s.hold(m, Halted, "it crashes", noon.Add(time.Minute))
		return s
	}
	for _, c := range []struct {
		name   string
		edit   func(*manifest.Manifest)
		hold   bool
		wave   int64
		opened int
	}{
		{name: "refreshed", edit: func(m *manifest.Manifest) { m.Sequence++ }, hold: true, wave: 2, opened: 1},
		{name: "paused", edit: func(m *manifest.Manifest) { m.Rollout.Paused = true }, hold: true, wave: 2, opened: 1},
		{name: "retried", edit: func(m *manifest.Manifest) { m.Rollout.Retry++ }, hold: true, wave: 2, opened: 1},
		{name: "other-waves", edit: func(m *manifest.Manifest) { m.Rollout.Waves[1].Percent = 20 }, hold: true, wave: 2},
		{name: "fewer-waves", edit: func(m *manifest.Manifest) { m.Rollout.Waves = m.Rollout.Waves[:1] }, hold: true, wave: 1},
		{name: "no-waves-any-more", edit: func(m *manifest.Manifest) { m.Rollout = nil }, hold: true},
		{name: "started-anew", edit: func(m *manifest.Manifest) { m.Rollout.Start = noon.Add(time.Hour) }, hold: true, wave: 2},
		{name: "one-platform-rebuilt", edit: func(m *manifest.Manifest) { m.Artifacts[1].SHA256 = manifest.Sum([]byte("new")) }, hold: true},
		{name: "another-release", edit: func(m *manifest.Manifest) {
			m.Artifacts = []manifest.Artifact{{SHA256: manifest.Sum([]byte("new"))}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := planned()
			s := held(m)
			c.edit(m)
			later := noon.Add(2 * time.Hour)
			if events := s.take(m, manifest.Sum([]byte("44")), later); len(events) != 1 || events[0].Kind != Followed {
				t.Errorf("events %+v", events)
			}
			if s.Hold != c.hold || s.Wave != c.wave || len(s.Opened) != c.opened {
				t.Errorf("hold %v, wave %d, %d seen open", s.Hold, s.Wave, len(s.Opened))
			}
			if want := c.name == "retried"; s.Since.Equal(later) != want {
				t.Errorf("failures count since %s", s.Since)
			}
			if events := s.take(m, manifest.Sum([]byte("44")), later); len(events) != 0 {
				t.Errorf("taken twice: %+v", events)
			}
		})
	}
}

func TestPromote(t *testing.T) {
	m := planned()
	s := begun(m)
	sick := waves([5]int{5, 0, 0, 0, 5}, none, none)
	events, err := s.promote(m, 2, noon.Add(time.Minute))
	if err != nil || s.Wave != 2 || len(events) != 1 || !strings.Contains(events[0].Reason, "as it is signed") {
		t.Fatalf("wave %d, %+v, %v", s.Wave, events, err)
	}
	if st := s.look(m, sick, noon.Add(time.Minute)); st.Wave != 1 {
		t.Errorf("a person's word opened wave %d before its signed time", st.Wave)
	}
	if st := s.look(m, sick, noon.Add(time.Hour)); st.Wave != 2 || st.Waves[2].Waits == "" {
		t.Errorf("%+v", st)
	}
	for _, again := range []time.Duration{time.Minute, 3 * time.Hour} {
		if events, err := s.promote(m, 2, noon.Add(again)); err != nil || len(events) != 0 || s.Wave != 2 {
			t.Errorf("said twice: wave %d, %+v, %v", s.Wave, events, err)
		}
	}
	for wave, want := range map[int]fault.Code{-1: fault.Usage, 1: fault.Usage, 4: fault.Usage, 1 << 20: fault.Usage} {
		if events, err := s.promote(m, wave, noon); fault.CodeOf(err) != want || len(events) != 0 || s.Wave != 2 {
			t.Errorf("wave %d: %+v, %v, want %s", wave, events, err, want)
		}
	}
	shut := begun(m)
	if _, err := shut.promote(m, 3, noon); fault.CodeOf(err) != fault.Policy || shut.Wave != 0 {
		t.Errorf("a gate was skipped: wave %d, %v", shut.Wave, err)
	}
	if _, err := s.promote(m, 0, noon.Add(3*time.Hour)); err != nil || s.Wave != 3 {
		t.Errorf("wave %d, %v", s.Wave, err)
	}
	if events, err := s.promote(m, 0, noon.Add(3*time.Hour)); err != nil || len(events) != 0 {
		t.Errorf("nothing is left, and %+v, %v", events, err)
	}
	for _, c := range []struct {
		name string
		edit func(*State, *manifest.Manifest)
		want fault.Code
	}{
		{"held", func(s *State, _ *manifest.Manifest) { s.Hold = true }, fault.Held},
		{"paused", func(_ *State, m *manifest.Manifest) { m.Rollout.Paused = true }, fault.Held},
		{"for-everyone", func(_ *State, m *manifest.Manifest) { m.Rollout = nil }, fault.Policy},
	} {
		m := planned()
		s := begun(m)
		c.edit(&s, m)
		if _, err := s.promote(m, 0, noon); fault.CodeOf(err) != c.want || s.Wave != 0 {
			t.Errorf("%s: wave %d, %v, want %s", c.name, s.Wave, err, c.want)
		}
	}
}

// While a plan is paused no wave opens, and no soak begins.
func TestPausedPlanBeginsNothing(t *testing.T) {
	m := planned(func(m *manifest.Manifest) { m.Rollout.Paused = true })
	s := begun(m)
	s.step(m, waves([5]int{5, 5, 0, 0, 0}, none, none), noon.Add(48*time.Hour))
	if len(s.Opened) != 0 || s.Wave != 0 {
		t.Errorf("seen open %v, wave %d", s.Opened, s.Wave)
	}
	if st := s.look(m, nil, noon.Add(48*time.Hour)); st.Phase != PhasePaused || st.Wave != 0 {
		t.Errorf("%s, wave %d", st.Phase, st.Wave)
	}
}
