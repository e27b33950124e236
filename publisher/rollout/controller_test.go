package rollout

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

var stable = manifesttest.Stable

// site is a repository whose newest release has three waves, a controller, and a machine
// that reads what it signs.
type site struct {
	*manifesttest.Fleet
	t    *testing.T
	repo *repo.Repo
	dir  string
	key  keys.Signer
	base time.Time // of the clock
	at   time.Time // when the test began
	// every is how often the controller looks; a minute where days go by.
	every time.Duration

	mu     sync.Mutex // guards what follows
	counts []Count
	since  time.Time // what was asked for last
	events []Event

	agent *manifest.Trust
}

// newSite is to be called inside a bubble.
func newSite(t *testing.T) *site {
	t.Helper()
	f := manifesttest.New(t)
	s := &site{Fleet: f, t: t, dir: t.TempDir(), key: f.Key("beacon-1"), base: f.Now, at: time.Now(), every: DefaultEvery, agent: f.Trust()}
	var err error
	if s.repo, err = repo.Create(t.TempDir(), f.Roots[0]); err != nil {
		t.Fatal(err)
	}
	s.release(1)
	return s
}

func (s *site) now() time.Time { return s.base.Add(time.Since(s.at)) }

// release publishes a manifest of the same content with three waves from now.
func (s *site) release(sequence int64, edits ...manifesttest.Edit) {
	s.t.Helper()
	start := s.base
	plan := manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Rollout = planned().Rollout
		m.Rollout.Start = start
		m.Artifacts = []manifest.Artifact{manifesttest.Artifact("acme", manifesttest.Platform, 1<<20, manifesttest.Content("1"))}
	})
	env := s.Manifest(stable, sequence, append([]manifesttest.Edit{plan}, edits...)...)
	s.put(tree.Manifest(stable), env)
}

func (s *site) put(name string, b []byte) {
	s.t.Helper()
	path := filepath.Join(s.repo.Tree(), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", b, 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) config() Config {
	return Config{
		Repo: s.repo, Dir: s.dir, Key: s.key, Clock: s.now, Every: s.every,
		Counts: func(ch manifest.Channel, m *manifest.Manifest, failedSince, now time.Time) ([]Count, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.since = failedSince
			return s.counts, nil
		},
		OnEvent: func(e Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		},
	}
}

func (s *site) reports(counts ...[5]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = waves(counts...)
}

// told is what OnEvent was told, and forgets it.
func (s *site) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kinds []string
	for _, e := range s.events {
		kinds = append(kinds, strings.TrimPrefix(e.Kind, "rollout."))
	}
	s.events = nil
	return strings.Join(kinds, " ")
}

// run runs a controller until stop is called.
func (s *site) run() (c *Controller, stop func()) {
	s.t.Helper()
	c, err := Open(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	return c, func() {
		cancel()
		<-done
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// sees is what a machine believes that comes by now.
func (s *site) sees() manifest.Brake {
	s.t.Helper()
	s.Now = s.now()
	cycle, err := s.agent.Begin()
	if err != nil {
		s.t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(s.repo.Tree(), filepath.FromSlash(tree.Manifest(stable))))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, _, err := cycle.Manifest(stable, env); err != nil {
		s.t.Fatal(err)
	}
	beacon, err := s.repo.StoredBeacon(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, events := cycle.Beacon(stable, beacon); len(events) > 0 {
		s.t.Errorf("a machine does not like the beacon: %+v", events)
	}
	return cycle.Brake(stable)
}

func (s *site) wants(wave int64, hold bool) {
	s.t.Helper()
	if b := s.sees(); b.Freshness != manifest.FreshCurrent || b.Wave != wave || b.Hold != hold {
		s.t.Errorf("a machine sees %s, wave %d, hold %v; want wave %d, hold %v", b.Freshness, b.Wave, b.Hold, wave, hold)
	}
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestControllerOpensGateAfterGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.reports([5]int{5, 0, 5, 0, 0}, [5]int{10, 0, 10, 0, 0}, [5]int{85, 0, 85, 0, 0})
		_, stop := s.run()
		defer stop()
		pass(time.Second)
		s.wants(0, false)
		if got := s.told(); got != "followed" {
			t.Errorf("told %q", got)
		}
		s.reports([5]int{5, 5, 0, 0, 0}, [5]int{10, 0, 10, 0, 0}, [5]int{85, 0, 85, 0, 0})
		pass(59 * time.Minute)
		s.wants(0, false)
		pass(time.Minute + DefaultEvery)
		s.wants(2, false)
		s.reports([5]int{5, 5, 0, 0, 0}, [5]int{10, 10, 0, 0, 0}, [5]int{85, 0, 85, 0, 0})
		pass(time.Hour + DefaultEvery)
		s.wants(3, false)
		if got := s.told(); got != "opened opened finished" {
			t.Errorf("told %q", got)
		}
		audited, err := Audit(s.dir, 100)
		if err != nil || len(audited) != 4 || audited[1].Kind != Opened || audited[1].Counts[0].Healthy != 5 {
			t.Errorf("audited %+v, %v", audited, err)
		}
	})
}

func TestControllerHoldsAndAPersonResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		c, stop := s.run()
		defer stop()
		s.reports([5]int{5, 0, 0, 5, 0}, none, none)
		pass(DefaultEvery)
		s.wants(0, true)
		if got := s.told(); got != "followed halted" {
			t.Errorf("told %q", got)
		}
		if b := s.sees(); !strings.Contains(b.Reason, "5 of 5 machines failed") {
			t.Errorf("reason %q", b.Reason)
		}
		// A new number offers the same bytes.
		s.release(2)
		pass(DefaultEvery)
		s.wants(0, true)

		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Promote}); fault.CodeOf(err) != fault.Held {
			t.Errorf("promoting what is held: %v", err)
		}
		done, err := c.Do(t.Context(), Command{Channel: stable, Action: Resume})
		if err != nil || !done.Changed || done.Status.Phase != PhaseRunning {
			t.Fatalf("%+v, %v", done, err)
		}
		s.wants(0, false)
		s.reports([5]int{5, 0, 5, 0, 0}, none, none)
		pass(DefaultEvery)
		s.wants(0, false)
		if want := s.now(); s.since.IsZero() || want.Sub(s.since) > 3*DefaultEvery {
			t.Errorf("failures are counted since %s, it is %s", s.since, want)
		}
		if done, err := c.Do(t.Context(), Command{Channel: stable, Action: Promote}); err != nil || done.Status.Waves[1].Open {
			t.Errorf("%+v, %v", done, err)
		}
		s.wants(2, false)
		if done, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt, Reason: "a person saw it crash"}); err != nil || !done.Changed {
			t.Errorf("%+v, %v", done, err)
		}
		s.wants(2, true)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Pause, Reason: strings.Repeat("x", 257)}); fault.CodeOf(err) != fault.Usage {
			t.Errorf("an endless reason: %v", err)
		}
		if _, err := c.Do(t.Context(), Command{Channel: manifesttest.Nightly, Action: Pause}); fault.CodeOf(err) != fault.Policy {
			t.Errorf("a channel without a beacon: %v", err)
		}
	})
}

// A reason that no beacon can say is refused before anything is written down, so that the
// brake still works.
func TestReasonThatNoBeaconCanSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		c, stop := s.run()
		defer stop()
		pass(DefaultEvery)
		for _, reason := range []string{"two\nlines", "\x1b[31mred", "turned \u202eround", "bad \xff", strings.Repeat("x", 257)} {
			if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt, Reason: reason}); fault.CodeOf(err) != fault.Usage {
				t.Errorf("%q: %v, want %s", reason, err, fault.Usage)
			}
		}
		s.wants(0, false)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt, Reason: "it crashes"}); err != nil {
			t.Fatal(err)
		}
		s.wants(0, true)
	})
}

// When the controller is gone, what is shut stays shut, and what was open shuts.
func TestWithoutAControllerTheGatesShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.every = time.Minute
		s.reports([5]int{5, 5, 0, 0, 0}, none, none)
		_, stop := s.run()
		pass(time.Hour + s.every)
		s.wants(2, false)
		// It is renewed long before it runs out.
		pass(72 * time.Hour)
		s.wants(2, false)
		if left := s.sees().Expires.Sub(s.now()); left < 35*time.Hour {
			t.Errorf("the beacon is fresh for %s more", left)
		}
		stop()
		pass(48 * time.Hour)
		if b := s.sees(); b.Freshness != manifest.FreshStale || b.Gate() != 0 {
			t.Errorf("without a controller a machine sees %s, gate %d", b.Freshness, b.Gate())
		}
		// It goes on where it was.
		_, stop = s.run()
		defer stop()
		pass(s.every)
		s.wants(2, false)
	})
}

func TestRestartKeepsTheHoldAndTheSoak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.every = time.Minute
		s.reports([5]int{5, 5, 0, 0, 0}, [5]int{10, 10, 0, 0, 0}, none)
		_, stop := s.run()
		pass(time.Hour + s.every) // wave 2 opens
		stop()
		pass(56 * time.Minute)
		_, stop = s.run()
		pass(s.every)
		s.wants(2, false)
		pass(4 * time.Minute) // the soak began before the restart
		s.wants(3, false)
		s.reports([5]int{5, 0, 0, 5, 0}, [5]int{10, 10, 0, 0, 0}, none)
		pass(s.every)
		s.wants(3, true)
		stop()
		s.reports(none, none, none)
		_, stop = s.run()
		pass(s.every)
		s.wants(3, true)
		stop()

		// A lost record ends no hold either.
		if err := os.Remove(filepath.Join(s.dir, stateFile)); err != nil {
			t.Fatal(err)
		}
		pass(100 * time.Hour) // and the beacon has run out
		_, stop = s.run()
		defer stop()
		pass(s.every)
		s.wants(3, true)
	})
}

// Each beacon is newer than the one before, even two in one second or of two manifests.
func TestBeaconsFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		c, stop := s.run()
		defer stop()
		pass(DefaultEvery)
		waveOf := func(promoted int) int64 { return []int64{0, 2, 3, 3, 3, 3}[promoted] }
		for i := range 5 {
			for _, a := range []Action{Pause, Resume} {
				if done, err := c.Do(t.Context(), Command{Channel: stable, Action: a}); err != nil || !done.Changed {
					t.Fatalf("%s: %+v, %v", a, done, err)
				}
				s.wants(waveOf(i), a == Pause)
			}
			s.release(int64(i + 2))
			if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Promote}); err != nil {
				t.Fatal(err)
			}
			s.wants(waveOf(i+1), false)
		}
	})
}

func TestOneHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		_, stop := s.run()
		if _, err := Open(s.config()); !errors.Is(err, fault.Locked) {
			t.Errorf("a second controller: %v, want locked", err)
		}
		stop()
		c, err := Open(s.config())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// A key that root does not name signs nothing, and one that it names no more stops.
func TestOnlyTheKeyThatRootNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.every = time.Minute
		cfg := s.config()
		cfg.Key = s.Key("release-1")
		if _, err := Open(cfg); !errors.Is(err, fault.Policy) {
			t.Errorf("a release key: %v, want policy", err)
		}
		_, stop := s.run()
		defer stop()
		pass(s.every)
		before, err := s.repo.StoredBeacon(stable)
		if err != nil {
			t.Fatal(err)
		}
		s.put(tree.Root(2), s.Rotate(manifesttest.WithRoot(func(r *manifest.Root) {
			beacon := s.Role(r, 1, "beacon-2")
			delete(r.Keys, s.key.Public().ID())
			r.Channels[0].Beacon = &beacon
		})))
		pass(72 * time.Hour)
		if after, err := s.repo.StoredBeacon(stable); err != nil || !bytes.Equal(after, before) {
			t.Errorf("a beacon by the old key was signed after root 2, %v", err)
		}
	})
}

// A broken record or log keeps a gate from opening, and nothing from being held.
func TestWithoutARecordOnlySlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		_, stop := s.run()
		defer stop()
		pass(DefaultEvery)
		// A directory in its place: nothing can be written there, by root neither.
		if err := os.Remove(filepath.Join(s.dir, auditFile)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(s.dir, auditFile), 0o700); err != nil {
			t.Fatal(err)
		}
		s.reports([5]int{5, 5, 0, 0, 0}, none, none)
		pass(2 * time.Hour)
		s.wants(0, false)
		s.reports([5]int{5, 0, 0, 5, 0}, none, none)
		pass(DefaultEvery)
		s.wants(0, true)
	})
}

// A crash may cut the log's last line short.
func TestAuditSurvivesATornLine(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		if err := audit(dir, Event{Kind: Paused, Channel: stable, Sequence: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, auditFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := audit(dir, Event{Kind: Resumed, Channel: stable, Sequence: 3}); err != nil {
		t.Fatal(err)
	}
	events, err := Audit(dir, 10)
	if err != nil || len(events) != 3 || events[2].Kind != Resumed || events[1].Sequence != 1 {
		t.Errorf("%+v, %v", events, err)
	}
}
