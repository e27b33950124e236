package rollout

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// moody is a key that cannot always be reached.
type moody struct {
	keys.Signer
	away bool
}

func (m *moody) Sign(ctx context.Context, namespace string, b []byte) (keys.Signature, error) {
	if m.away {
		return nil, errors.New("the token is not plugged in")
	}
	return m.Signer.Sign(ctx, namespace, b)
}

// A decision whose beacon cannot be signed is told when it takes effect after all, by the
// next process too, and once.
func TestWhatCouldNotBeSignedIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		key := &moody{Signer: s.key}
		s.key = key
		_, stop := s.run()
		pass(DefaultEvery)
		s.told()
		key.away = true
		s.reports([5]int{5, 0, 0, 5, 0}, none, none)
		pass(DefaultEvery)
		s.wants(0, false)
		if got := s.told(); got != "" {
			t.Errorf("told %q before it was true", got)
		}
		stop()
		key.away = false
		_, stop = s.run()
		pass(DefaultEvery)
		s.wants(0, true)
		if got := s.told(); got != "halted" {
			t.Errorf("told %q, want halted", got)
		}
		stop()
		_, stop = s.run()
		defer stop()
		pass(DefaultEvery)
		if got := s.told(); got != "" {
			t.Errorf("told %q again", got)
		}
	})
}

// A hold that could not be written down is in force, and stays so after a restart; it is
// written down when that is possible again.
func TestHoldWithoutARecordOutlivesTheProcess(t *testing.T) {
	for _, restart := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			c, stop := s.run()
			defer func() { stop() }()
			pass(DefaultEvery)
			path := filepath.Join(s.dir, stateFile)
			record, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt, Reason: "it crashes"}); err != nil {
				t.Fatal(err)
			}
			s.wants(0, true)
			if restart {
				stop()
			}
			if err := errors.Join(os.Remove(path), os.WriteFile(path, record, 0o600)); err != nil {
				t.Fatal(err)
			}
			if restart {
				_, stop = s.run()
			}
			pass(DefaultEvery)
			s.wants(0, true)
			states, err := readStates(s.dir)
			if st := states[stable]; err != nil || !st.Hold || st.Reason != "it crashes" {
				t.Errorf("the record has %+v, %v", st, err)
			}
			s.release(2)
			pass(DefaultEvery)
			s.wants(0, true)
		})
	}
}

// A resumption that was written down and not signed yet is no hold that was forgotten.
func TestResumptionOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		key := &moody{Signer: s.key}
		s.key = key
		c, stop := s.run()
		pass(DefaultEvery)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Pause}); err != nil {
			t.Fatal(err)
		}
		pass(DefaultEvery)
		key.away = true
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Resume}); err == nil {
			t.Error("resumed without a signature")
		}
		s.wants(0, true)
		stop()
		key.away = false
		_, stop = s.run()
		defer stop()
		pass(DefaultEvery)
		s.wants(0, false)
	})
}

// The record is lost, and then a new number offers the same content.
func TestLostRecordAndANewNumberEndNoHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		c, stop := s.run()
		pass(DefaultEvery)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt}); err != nil {
			t.Fatal(err)
		}
		s.wants(0, true)
		stop()
		if err := os.Remove(filepath.Join(s.dir, stateFile)); err != nil {
			t.Fatal(err)
		}
		s.release(2)
		_, stop = s.run()
		defer stop()
		pass(DefaultEvery)
		s.wants(0, true)
	})
}

// What was held and is offered again after something else is held still: machines
// remember it, and a beacon that says otherwise would end that.
func TestHeldContentThatComesBackIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		other := manifesttest.WithManifest(func(m *manifest.Manifest) {
			m.Artifacts = []manifest.Artifact{manifesttest.Artifact("acme", manifesttest.Platform, 1<<20, manifesttest.Content("2"))}
		})
		c, stop := s.run()
		defer stop()
		pass(DefaultEvery)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Halt}); err != nil {
			t.Fatal(err)
		}
		s.wants(0, true)
		s.release(2, other)
		pass(DefaultEvery)
		s.wants(0, false)
		s.release(3)
		pass(DefaultEvery)
		s.wants(0, true)
		if _, err := c.Do(t.Context(), Command{Channel: stable, Action: Resume}); err != nil {
			t.Fatal(err)
		}
		s.release(4, other)
		pass(DefaultEvery)
		s.release(5)
		pass(DefaultEvery)
		s.wants(0, false)
	})
}

// A clock that was ahead when a person resumed, and is put right, does not hide the
// failures of the time between.
func TestClockPutBackBlindsNoBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		asked := func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.since
		}
		c, stop := s.run()
		pass(DefaultEvery)
		for _, a := range []Action{Pause, Resume} {
			if _, err := c.Do(t.Context(), Command{Channel: stable, Action: a}); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		s.base = s.base.Add(-time.Hour)
		_, stop = s.run()
		pass(DefaultEvery)
		first := asked()
		if now := s.now(); first.After(now) {
			t.Errorf("failures are counted since %s, it is %s", first, now)
		}
		pass(10 * DefaultEvery)
		if last := asked(); !last.Equal(first) {
			t.Errorf("and then since %s, before since %s", last, first)
		}
		stop()
	})
}
