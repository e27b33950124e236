package follow

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

var (
	stable  = manifesttest.Stable
	content = agenttest.Program("42", 0)
)

// machine is a joined machine that asks the trees of several publishers, of which all
// but the first are mirrors, honest or not.
type machine struct {
	t      *testing.T
	dir    string
	pin    *state.Pin
	trees  []*agenttest.Publisher
	floor  manifest.Order
	source []source.Source // instead of the trees
}

func newMachine(t *testing.T, sources int) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	for range sources {
		m.trees = append(m.trees, agenttest.New(t)) // the same keys, so the same fleet
	}
	m.pin = &state.Pin{Repo: manifest.FleetID(m.trees[0].Pin())}
	return m
}

// open returns a follower, as a new process would have it.
func (m *machine) open() *Follower {
	m.t.Helper()
	store, err := state.Open(m.dir, filepath.Join(m.dir, "anchor.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { store.Close() })
	sources := m.source
	if sources == nil {
		for _, p := range m.trees {
			sources = append(sources, source.Dir(p.Dir))
		}
	}
	return New(Config{
		Store: store, Pin: m.pin, Channels: []manifest.Channel{stable}, Sources: sources,
		Options: m.trees[0].Options(), Floor: func(manifest.Channel) manifest.Order { return m.floor },
	})
}

// cycle opens, runs one cycle and closes.
func (m *machine) cycle() (*Report, *Follower) {
	m.t.Helper()
	f := m.open()
	r, err := f.Cycle(m.t.Context(), Ask{Force: true}, stable)
	if err != nil {
		m.t.Fatal(err)
	}
	f.c.Store.Close()
	return r, f
}

// outcome is the code a cycle ends with for the channel.
func outcome(r *Report) fault.Code {
	if r.Err != nil {
		return fault.CodeOf(r.Err)
	}
	return fault.CodeOf(r.Outcomes[0].Err)
}

func codes(events []manifest.Event) []fault.Code {
	var all []fault.Code
	for _, e := range events {
		all = append(all, e.Code)
	}
	return all
}

func TestSeveralSources(t *testing.T) {
	all := func(m *machine, sequence int64) {
		for _, p := range m.trees {
			p.Release(stable, sequence, content)
		}
	}
	rows := []struct {
		name     string
		sources  int
		offer    func(m *machine) // to a machine that holds 42
		want     fault.Code
		sequence int64
		events   []fault.Code
	}{
		{"all-agree", 3, func(m *machine) { all(m, 43) }, fault.OK, 43, nil},
		{"one-has-more", 2, func(m *machine) { m.trees[1].Release(stable, 43, content) }, fault.OK, 43, nil},
		{"one-lags-behind", 2, func(m *machine) { m.trees[0].Release(stable, 43, content) }, fault.OK, 43, nil},
		{"liar-first", 2, func(m *machine) {
			m.trees[0].Release(stable, 43, content, manifesttest.SignedBy("stranger-1", "stranger-2"))
			m.trees[1].Release(stable, 43, content)
		}, fault.OK, 43, []fault.Code{fault.Threshold}},
		{"forked-publisher", 2, func(m *machine) {
			m.trees[0].Release(stable, 43, content)
			m.trees[1].Release(stable, 43, agenttest.Program("other", 0))
		}, fault.OK, 43, []fault.Code{fault.Equivocation}},
		{"old-release-offered-by-one", 2, func(m *machine) {
			m.trees[0].Release(stable, 41, content)
			m.trees[1].Release(stable, 43, content)
		}, fault.OK, 43, []fault.Code{fault.Rollback}},
		{"bad-root-from-one", 2, func(m *machine) {
			m.trees[0].Put(tree.Root(2), m.trees[0].NextRoot(manifesttest.SignedBy("root-1")))
			m.trees[1].Release(stable, 43, content)
		}, fault.OK, 43, []fault.Code{fault.Threshold}},
		{"root-forked-by-its-keepers", 2, func(m *machine) {
			m.trees[0].Put(tree.Root(2), m.trees[0].NextRoot())
			m.trees[1].Put(tree.Root(2), m.trees[1].NextRoot(manifesttest.WithRoot(func(r *manifest.Root) { r.Reason = "other" })))
		}, fault.OK, 42, []fault.Code{fault.RootChain}},
		{"one-is-gone", 2, func(m *machine) {
			if err := os.RemoveAll(m.trees[0].Dir); err != nil {
				m.t.Fatal(err)
			}
			m.trees[1].Release(stable, 43, content)
		}, fault.OK, 43, nil},
		{"all-lie-the-first-failure-counts", 2, func(m *machine) {
			m.trees[0].Release(stable, 41, content)
			m.trees[1].Release(stable, 43, content, manifesttest.SignedBy("stranger"))
		}, fault.Rollback, 42, []fault.Code{fault.Rollback, fault.Threshold}},
		{"a-verdict-counts-before-silence", 2, func(m *machine) {
			if err := os.RemoveAll(m.trees[0].Dir); err != nil {
				m.t.Fatal(err)
			}
			m.trees[1].Release(stable, 41, content)
		}, fault.Rollback, 42, []fault.Code{fault.Rollback}},
		{"all-gone", 2, func(m *machine) {
			for _, p := range m.trees {
				if err := os.RemoveAll(p.Dir); err != nil {
					m.t.Fatal(err)
				}
			}
		}, fault.Unreachable, 42, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(t, r.sources)
			all(m, 42)
			if report, _ := m.cycle(); outcome(report) != fault.OK {
				t.Fatal(report.Err, report.Outcomes)
			}
			r.offer(m)
			report, f := m.cycle()
			if got := outcome(report); got != r.want {
				t.Errorf("%s, want %s", got, r.want)
			}
			if held, ok := f.Held(stable); !ok || held.Manifest.Sequence != r.sequence {
				t.Errorf("held %v, want sequence %d", held, r.sequence)
			}
			if got := codes(report.Events); !slices.Equal(got, r.events) {
				t.Errorf("events %v, want %v", got, r.events)
			}
		})
	}
}

// A chain of roots is followed to its end, across sources that each have a part of it.
func TestRootsFromSeveralSources(t *testing.T) {
	m := newMachine(t, 2)
	for range 3 {
		m.trees[1].Rotate()
	}
	m.trees[1].PutRoots()
	for _, p := range m.trees {
		p.Release(stable, 42, content)
	}
	report, f := m.cycle()
	if outcome(report) != fault.OK || f.trust.RootVersion() != 4 {
		t.Errorf("%s, root %d; want ok and 4", outcome(report), f.trust.RootVersion())
	}
}

// A manifest of an epoch that only a newer root knows sends for that root.
func TestHigherEpochFetchesTheRoot(t *testing.T) {
	m := newMachine(t, 1)
	p := m.trees[0]
	p.Release(stable, 42, content)
	m.cycle()
	p.Rotate(manifesttest.WithRoot(func(r *manifest.Root) { r.Channels[0].Epoch = 2 }))
	p.Release(stable, 1, content)
	f := m.open()
	late := &lateRoot{Source: source.Dir(p.Dir), arrives: func() { p.PutRoots() }}
	f.members[0].Source = late
	r, err := f.Cycle(t.Context(), Ask{Force: true}, stable)
	if err != nil || outcome(r) != fault.OK || f.trust.RootVersion() != 2 {
		t.Errorf("%v, %s, root %d; want ok under root 2", err, outcome(r), f.trust.RootVersion())
	}
}

// One source has a good manifest, and the next a root that ends it and a bad one: then
// the channel has none, and says why.
func TestLateRootEndsWhatWasGood(t *testing.T) {
	m := newMachine(t, 2)
	m.trees[0].Release(stable, 42, content)
	p := m.trees[1]
	p.Rotate(manifesttest.WithRoot(func(r *manifest.Root) { r.Channels[0].Epoch = 2 }))
	p.Release(stable, 1, content, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Epoch = 2; m.MinAgent = "99.0.0" }))
	f := m.open()
	f.members[1].Source = &lateRoot{Source: source.Dir(p.Dir), arrives: func() { p.PutRoots() }}
	r, err := f.Cycle(t.Context(), Ask{Force: true}, stable)
	if err != nil || f.trust.RootVersion() != 2 {
		t.Fatalf("%v, root %d; want root 2", err, f.trust.RootVersion())
	}
	if o := r.Outcomes[0]; o.Verified != nil || !errors.Is(o.Err, fault.AgentTooOld) {
		t.Errorf("verified %v, %v; want nothing, and agent_too_old", o.Verified, o.Err)
	}
}

// lateRoot publishes a root right after the manifest was read.
type lateRoot struct {
	source.Source
	arrives func()
}

func (s *lateRoot) Document(ctx context.Context, path string, limit int64) ([]byte, error) {
	b, err := s.Source.Document(ctx, path, limit)
	if strings.HasPrefix(path, "m/") {
		s.arrives()
	}
	return b, err
}

// silent counts how often it is asked, and never answers.
type silent struct{ asked int }

func (s *silent) Name() string { return "silent" }
func (s *silent) Document(context.Context, string, int64) ([]byte, error) {
	s.asked++
	return nil, fault.New(fault.Unreachable, "no answer")
}
func (s *silent) Data(context.Context, string, int64) (io.ReadCloser, int64, error) {
	return nil, 0, fault.New(fault.Unreachable, "no answer")
}

func TestSilentSourceIsLeftAloneForAWhile(t *testing.T) {
	m := newMachine(t, 1)
	m.trees[0].Release(stable, 42, content)
	m.cycle()
	dead := &silent{}
	m.source = []source.Source{dead, source.Dir(m.trees[0].Dir)}
	f := m.open()
	now := m.trees[0].Now
	f.c.Options.Clock = func() time.Time { return now }
	ask := func(force bool, want int) {
		t.Helper()
		dead.asked = 0
		r, err := f.Cycle(t.Context(), Ask{Force: force}, stable)
		if err != nil || outcome(r) != fault.OK {
			t.Fatal(err, outcome(r))
		}
		if dead.asked != want {
			t.Errorf("asked %d times, want %d", dead.asked, want)
		}
	}
	ask(false, 1)
	ask(false, 0) // at once again
	ask(true, 1)  // a person insists
	now = now.Add(2 * maxBackoff)
	ask(false, 1)
}

func TestLostStateOfAJoinedMachine(t *testing.T) {
	lose := func(t *testing.T, m *machine, more ...string) {
		for _, name := range append([]string{"anchor.json", "trust/state.json"}, more...) {
			if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows := []struct {
		name  string
		do    func(t *testing.T, m *machine)
		offer int64
		want  fault.Code
	}{
		{"stored-manifest-is-the-floor", func(t *testing.T, m *machine) { lose(t, m) }, 41, fault.Rollback},
		{"history-is-the-floor", func(t *testing.T, m *machine) {
			lose(t, m, "trust")
			m.floor = manifest.Order{Epoch: 1, Sequence: 42}
		}, 41, fault.Rollback},
		{"join-file-is-the-floor", func(t *testing.T, m *machine) {
			lose(t, m, "trust")
			m.pin.Raise(0, stable, manifest.Order{Epoch: 1, Sequence: 42})
		}, 41, fault.Rollback},
		{"all-three-gone", func(t *testing.T, m *machine) { lose(t, m, "trust") }, 41, fault.OK},
		{"and-it-goes-on", func(t *testing.T, m *machine) { lose(t, m) }, 43, fault.OK},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(t, 1)
			m.trees[0].Release(stable, 42, content)
			m.cycle()
			if err := os.WriteFile(filepath.Join(m.dir, "status.json"), []byte(`{"root_version":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
			r.do(t, m)
			m.trees[0].Release(stable, r.offer, content)
			report, f := m.cycle()
			if got := outcome(report); got != r.want {
				t.Errorf("%s, want %s", got, r.want)
			}
			if !slices.Contains(codes(report.Events), fault.StateLost) || f.Local().LostAt.IsZero() {
				t.Errorf("events %v, lost at %v; want state_lost", codes(report.Events), f.Local().LostAt)
			}
			// It is told until somebody acknowledges it.
			report, _ = m.cycle()
			if !slices.Contains(codes(report.Events), fault.StateLost) {
				t.Errorf("the next start tells %v", codes(report.Events))
			}
		})
	}
}

func TestFirstStartIsNoLoss(t *testing.T) {
	m := newMachine(t, 1)
	m.trees[0].Release(stable, 42, content)
	report, f := m.cycle()
	if outcome(report) != fault.OK || len(report.Events) > 0 || !f.Local().LostAt.IsZero() {
		t.Errorf("%s, events %v, lost %v", outcome(report), report.Events, f.Local().LostAt)
	}
}

func TestAnotherPinThanTheStates(t *testing.T) {
	m := newMachine(t, 1)
	m.trees[0].Release(stable, 42, content)
	m.cycle()
	m.pin = &state.Pin{Repo: manifest.FleetID(manifest.Sum([]byte("another fleet")))}
	report, _ := m.cycle()
	if !errors.Is(report.Err, fault.PinMismatch) {
		t.Errorf("%v, want pin_mismatch", report.Err)
	}
}

func TestSourceOfAnotherFleet(t *testing.T) {
	m := newMachine(t, 1)
	m.pin = &state.Pin{Repo: manifest.FleetID(manifest.Sum([]byte("another fleet")))}
	report, f := m.cycle()
	if !errors.Is(report.Err, fault.PinMismatch) || f.trust != nil {
		t.Errorf("%v, want pin_mismatch and nothing trusted", report.Err)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "trust")); !errors.Is(err, os.ErrNotExist) {
		t.Error("something was stored")
	}
}

// What cannot be stored is not acted on.
func TestWhatCannotBeStoredIsNotTrusted(t *testing.T) {
	m := newMachine(t, 1)
	m.trees[0].Release(stable, 42, content)
	m.cycle()
	m.trees[0].Release(stable, 43, content)
	// A directory where a file should go fails the write for every user, root too.
	path := filepath.Join(m.dir, "trust", "m", "acme", "stable.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := m.open()
	r, err := f.Cycle(t.Context(), Ask{Force: true}, stable)
	if err != nil {
		t.Fatal(err)
	}
	if outcome(r) != fault.IO || f.trust != nil {
		t.Errorf("%s with trust %v; want io, and nothing in memory that is not on disk", outcome(r), f.trust)
	}
	f.c.Store.Close()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if r, _ := m.cycle(); outcome(r) != fault.OK {
		t.Errorf("with room again: %s", outcome(r))
	}
}

// A disk that is full ends no process: the channels after the one that could not be
// stored say why nothing is known of them.
func TestNothingIsAskedOnceSomethingCannotBeStored(t *testing.T) {
	m := newMachine(t, 1)
	m.trees[0].Release(stable, 42, content)
	m.cycle()
	m.trees[0].Release(stable, 43, content)
	f := m.open()
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.dir, "trust", "m", "acme", "stable.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := f.Cycle(t.Context(), Ask{Force: true}, stable, manifesttest.Nightly)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range r.Outcomes {
		if !errors.Is(o.Err, fault.IO) || o.Freshness != manifest.FreshNone {
			t.Errorf("%s: %v and %q, want io and none", o.Channel, o.Err, o.Freshness)
		}
	}
	if len(r.Outcomes) != 2 {
		t.Errorf("%d outcomes, want one a channel", len(r.Outcomes))
	}
}
