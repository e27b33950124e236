package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/agent/window"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// wish tells a fresh agent what the operator wants.
func (b *bench) wish(w Wish) (Wished, error) {
	b.t.Helper()
	a := b.open()
	defer a.Close()
	if err := a.recovered(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	wished, err := a.Wish(b.t.Context(), nil, w)
	if err != nil {
		return Wished{}, err
	}
	return wished[0], nil
}

func (b *bench) mustWish(w Wish, changed bool) Wished {
	b.t.Helper()
	got, err := b.wish(w)
	if err != nil || got.Changed != changed {
		b.t.Fatalf("wish %+v: changed %v, %v; want %v", w, got.Changed, err, changed)
	}
	return got
}

// revert puts a version back with a fresh agent that has no source.
func (b *bench) revert(version string) (*Reverted, error) {
	b.t.Helper()
	cfg := b.cfg
	cfg.Sources, cfg.Peers = Sources{}, nil
	a, err := Open(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Close()
	return a.Revert(b.t.Context(), "acme", version)
}

func (b *bench) mustRevert(version string, want fault.Code, content []byte) *Reverted {
	b.t.Helper()
	r, err := b.revert(version)
	if err != nil || r.Code != want {
		b.t.Fatalf("revert %q: %+v, %v; want %s", version, r, err, want)
	}
	b.installed(content)
	return r
}

// trusted is what is stored of the channel.
func (b *bench) trusted() manifest.ChannelState {
	b.t.Helper()
	s, err := state.Open(b.cfg.StateDir, filepath.Join(b.cfg.StateDir, "anchor.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	m, err := s.Read()
	if err != nil {
		b.t.Fatal(err)
	}
	return m.Snapshot.State.Channels[stable]
}

func TestRevert(t *testing.T) {
	b := newBench(t)
	two, three, four := agenttest.Program("2", 0), agenttest.Program("3", 0), agenttest.Program("4", 0)
	if _, err := b.revert(""); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("with nothing to go back to: %v, want not_found", err)
	}
	b.Release(stable, 2, two)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Release(stable, 3, three)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	before := b.trusted()

	r := b.mustRevert("", fault.OK, two)
	if r.From != "1.0.3" || r.Version != "1.0.2" || r.State != manifest.StateHeld || r.RevertedFrom != manifest.Sum(three) || r.Why.Next == "" {
		t.Errorf("reverted: %+v", r)
	}
	if after := b.trusted(); after.Order() != before.Order() || after.ManifestSHA256 != before.ManifestSHA256 {
		t.Errorf("what is trusted was %+v and is %+v", before, after)
	}
	b.mustRevert("", fault.Same, two) // not back to what was left
	b.mustRevert("1.0.2", fault.Same, two)
	if _, err := b.revert("0.9"); fault.CodeOf(err) != fault.NotFound || !strings.Contains(detail(err), "1.0.3") {
		t.Errorf("to a version that is not kept: %v (%s), want not_found and what is kept", err, detail(err))
	}

	// It holds against the same bytes, whatever is overridden and under whatever number.
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.want(b.update(Choice{Override: true, Retry: true}), fault.Held, manifest.StateHeld)
	b.Release(stable, 4, three)
	b.want(b.update(Choice{Override: true}), fault.Held, manifest.StateHeld)
	b.installed(two)

	// Something else is offered.
	b.Release(stable, 5, four)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(four)
	// From there on what was reverted from is as good as any.
	b.Release(stable, 6, three)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(three)

	b.mustRevert("", fault.OK, four)
	b.mustWish(Wish{Resume: true}, true)
	b.mustWish(Wish{Resume: true}, false)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(three)
}

func detail(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return strings.Join(e.Detail, "\n")
	}
	return ""
}

// Reverts one after the other do not bring back the one that was left first.
func TestRevertFurtherBack(t *testing.T) {
	b := newBench(t)
	two, three, four := agenttest.Program("2", 0), agenttest.Program("3", 0), agenttest.Program("4", 0)
	for i, content := range [][]byte{two, three, four} {
		b.Release(stable, int64(i+2), content)
		b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	}
	b.mustRevert("1.0.3", fault.OK, three)
	if r := b.mustRevert("1.0.2", fault.OK, two); r.RevertedFrom != manifest.Sum(four) {
		t.Errorf("held is %s, want what is offered", r.RevertedFrom)
	}
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.installed(two)
}

// An unwell old version does not stay, and then nothing is held either.
func TestRevertToAnUnwellVersion(t *testing.T) {
	b := newBench(t)
	two := agenttest.Program("2", 0)
	b.Release(stable, 2, two)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.cfg.Apps[0].Health = HealthConfig{Type: "command", Command: []string{"/bin/sh", "-c", `test "$($0)" = 2`, b.target},
		Interval: time.Millisecond, Timeout: failsWithin, Successes: 1}
	if _, err := b.revert(""); fault.CodeOf(err) != fault.HealthFailed {
		t.Errorf("%v, want health_failed", err)
	}
	b.installed(two)
	b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)
}

func TestRevertToABlockedRelease(t *testing.T) {
	b := newBench(t)
	two, three := agenttest.Program("2", 0), agenttest.Program("3", 0)
	b.Release(stable, 2, two)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Release(stable, 3, three, blocking(two))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	for range 2 { // in time, and when the manifest that blocks it has run out
		if _, err := b.revert(""); fault.CodeOf(err) != fault.Blocked || !strings.Contains(detail(err), "because") {
			t.Errorf("%v (%s), want blocked and why", err, detail(err))
		}
		b.installed(three)
		b.Now = b.Now.AddDate(1, 0, 0)
	}
}

func blocking(content []byte) manifesttest.Edit {
	return manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(content), Reason: "because"}}
	})
}

func TestWishes(t *testing.T) {
	b := newBench(t)
	two, three := agenttest.Program("2", 0), agenttest.Program("3", 0)
	b.Release(stable, 2, two)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Release(stable, 3, three)
	held := func(why string, c Choice) {
		t.Helper()
		u := b.update(c)
		b.want(u, fault.Held, manifest.StateHeld)
		if u.Error == nil || !strings.Contains(u.Error.Message, why) || len(u.Error.Next) == 0 {
			t.Errorf("%+v, want %q and what to do", u.Error, why)
		}
		b.installed(two)
	}

	b.mustWish(Wish{HoldUntil: state.NoEnd}, true)
	if w := b.mustWish(Wish{HoldUntil: state.NoEnd}, false); !w.HoldUntil.Equal(state.NoEnd) {
		t.Errorf("status: %+v", w)
	}
	held("held by this machine's operator", Choice{})
	b.mustWish(Wish{Resume: true}, true)
	b.mustWish(Wish{Resume: true}, false)

	b.mustWish(Wish{HoldUntil: b.Now.Add(time.Hour)}, true)
	held("until "+b.Now.Add(time.Hour).Format("2006-01-02 15:04"), Choice{})
	if _, err := b.wish(Wish{HoldUntil: b.Now}); fault.CodeOf(err) != fault.Usage {
		t.Errorf("a hold that is over: %v, want usage", err)
	}
	held("until", Choice{})

	b.mustWish(Wish{Pin: "1.0.2"}, true)
	b.mustWish(Wish{Pin: "1.0.2"}, false)
	held("pinned to 1.0.2", Choice{Override: true, Retry: true, AllowExpired: true})
	if _, err := b.wish(Wish{Pin: "1.O.2"}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a pin on what nobody offers: %v, want not_found", err)
	}
	b.mustWish(Wish{Unpin: true}, true)
	b.mustWish(Wish{Unpin: true}, false)
	held("until", Choice{})
	b.mustWish(Wish{Pin: "1.0.3"}, true)
	held("until", Choice{})

	b.Now = b.Now.Add(time.Hour)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(three)
	if w := b.mustWish(Wish{Resume: true}, false); !w.HoldUntil.IsZero() || w.Pin != "1.0.3" {
		t.Errorf("status: %+v", w)
	}
}

// What a person may skip, and what not.
func TestOverride(t *testing.T) {
	later := func(r manifest.Rollout) manifesttest.Edit {
		return manifesttest.WithManifest(func(m *manifest.Manifest) { m.Rollout = &r })
	}
	wave := []manifest.Wave{{Name: "all", Percent: 100}}
	rows := []struct {
		name   string
		before func(b *bench)
		edit   func(b *bench) manifesttest.Edit
		choice Choice
		want   fault.Code
	}{
		{name: "hold", before: func(b *bench) { b.mustWish(Wish{HoldUntil: state.NoEnd}, true) }, want: fault.OK},
		{name: "closed-window", before: func(b *bench) { b.window(b.Now.AddDate(0, 0, 1)) }, want: fault.OK},
		{name: "wave-to-come", edit: func(b *bench) manifesttest.Edit {
			return later(manifest.Rollout{Salt: "s", Start: b.Now.Add(time.Hour), Waves: wave})
		}, want: fault.OK},
		{name: "paused", edit: func(b *bench) manifesttest.Edit { return later(manifest.Rollout{Paused: true}) }, want: fault.Held},
		{name: "pinned", before: func(b *bench) { b.update(Choice{}); b.mustWish(Wish{Pin: "1.0.1"}, true) }, want: fault.Held},
		{name: "failed-before", before: func(b *bench) {
			b.cfg.Apps[0].Health = HealthConfig{Type: "command", Command: []string{"/bin/sh", "-c", `test "$($0)" = 1`, b.target},
				Interval: time.Millisecond, Timeout: failsWithin, Successes: 1}
			b.Release(stable, 2, agenttest.Program("2", 0))
			b.want(b.update(Choice{}), fault.HealthFailed, manifest.StateReverted)
		}, want: fault.HealthFailed},
		{name: "expired", edit: func(b *bench) manifesttest.Edit {
			return manifesttest.WithManifest(func(m *manifest.Manifest) { m.Expires = b.Now })
		}, want: fault.Expired},
		{name: "expired-and-allowed", edit: func(b *bench) manifesttest.Edit {
			return manifesttest.WithManifest(func(m *manifest.Manifest) { m.Expires = b.Now })
		}, choice: Choice{AllowExpired: true}, want: fault.OK},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			b.Release(stable, 1, b.old)
			b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)
			if r.before != nil {
				r.before(b)
			}
			var edits []manifesttest.Edit
			if r.edit != nil {
				edits = append(edits, r.edit(b))
			}
			b.Now = b.Now.Add(time.Second)
			b.Release(stable, 3, agenttest.Program("2", 0), edits...)
			c := r.choice
			if r.want == fault.OK { // without it there is something to skip
				if u := b.update(Choice{}); u.Code == fault.OK {
					t.Fatalf("%+v: nothing was in the way", u)
				}
			}
			c.Override = true
			u := b.update(c)
			if u.Code != r.want {
				t.Errorf("%s (%v), want %s", u.Code, u.Error, r.want)
			}
			if r.want != fault.OK {
				b.installed(b.old)
			}
		})
	}
}

// window gives the app a window for the whole of the day that is at the time.
func (b *bench) window(at time.Time) {
	b.t.Helper()
	w, err := window.Parse(at.UTC().Format("Mon") + " any UTC")
	if err != nil {
		b.t.Fatal(err)
	}
	b.cfg.Apps[0].Windows = window.Set{w}
}

func TestWindows(t *testing.T) {
	b := newBench(t)
	tomorrow := b.Now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	b.window(tomorrow)
	two := agenttest.Program("2", 0)
	b.Release(stable, 2, two)
	asked := b.Asked()
	u := b.update(Choice{})
	b.want(u, fault.Held, manifest.StateHeld)
	if !u.Why.Until.Equal(tomorrow) || u.Window == nil || u.Window.Open || !u.Window.Changes.Equal(tomorrow) {
		t.Errorf("until %v, window %+v; want %v", u.Why.Until, u.Window, tomorrow)
	}
	if b.Asked() > asked+4 {
		t.Errorf("%d requests: it was fetched while the window is closed", b.Asked()-asked)
	}
	b.Now = tomorrow
	u = b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	if u.Window == nil || !u.Window.Open || !u.Window.Changes.Equal(tomorrow.AddDate(0, 0, 1)) {
		t.Errorf("window %+v", u.Window)
	}
	// What is critical and immediate does not wait.
	b.Now = tomorrow.AddDate(0, 0, 1)
	b.Release(stable, 3, agenttest.Program("3", 0))
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.Release(stable, 4, agenttest.Program("3", 0), manifesttest.WithManifest(func(m *manifest.Manifest) { m.Release.Severity = "critical" }))
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.Release(stable, 5, agenttest.Program("3", 0), manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Release.Severity, m.Release.Immediate = "critical", true
	}))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
}

// A window that closes while an update is under way does not end it.
func TestWindowGatesTheBeginningOnly(t *testing.T) {
	b := newBench(t)
	b.window(b.Now)
	two := agenttest.Program("2", 0)
	b.Release(stable, 2, two)
	b.cfg.Apps[0].Hooks = HooksConfig{Pre: []string{"/bin/sh", "-c", "touch " + b.cfg.StateDir + "/began"}}
	began := func() bool { _, err := os.Stat(b.cfg.StateDir + "/began"); return err == nil }
	b.cfg.Clock = func() time.Time {
		if began() {
			return b.Now.AddDate(0, 0, 1)
		}
		return b.Now
	}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(two)
	if !began() {
		t.Error("the hook did not run")
	}
}

// The operator's word reaches an agent that is running, at once and for good.
func TestRunningAgentObeys(t *testing.T) {
	b := newBench(t)
	two, three := agenttest.Program("2", 0), agenttest.Program("3", 0)
	b.Release(stable, 2, two)
	stop := b.run()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	h := b.connect()
	ctx := t.Context()
	if _, err := h.Wish(ctx, []string{"acme"}, Wish{HoldUntil: state.NoEnd}); err != nil {
		t.Fatal(err)
	}
	b.Release(stable, 3, three)
	if checks, err := h.Check(ctx, nil); err != nil || checks.Apps[0].Code != fault.Held {
		t.Fatalf("%+v, %v; want held", checks, err)
	}
	stop()
	stop = b.run()
	b.serving()
	b.until("a hold", func(s *AppStatus) bool { return s.State == manifest.StateHeld && s.HoldUntil.Equal(state.NoEnd) })
	h = b.connect()
	// Nobody has to ask for an update after this.
	if w, err := h.Wish(ctx, nil, Wish{Resume: true}); err != nil || !w[0].Changed {
		t.Fatalf("%+v, %v", w, err)
	}
	b.until("version 1.0.3", func(s *AppStatus) bool { return s.Version == "1.0.3" && s.State == manifest.StateHealthy })
	r, err := h.Revert(ctx, "acme/stable", "")
	if err != nil || r.Version != "1.0.2" || r.From != "1.0.3" || r.State != manifest.StateHeld {
		t.Fatalf("%+v, %v", r, err)
	}
	b.installed(two)
	if checks, err := h.Check(ctx, nil); err != nil || checks.Apps[0].Code != fault.Held {
		t.Fatalf("%+v, %v; want held", checks, err)
	}
	stop()
	b.installed(two)
}

// A revert ends a download that nobody needs any more.
func TestRevertDuringADownload(t *testing.T) {
	b := newBench(t)
	two := agenttest.Program("2", 0)
	b.Release(stable, 2, two)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.cfg.idle = time.Minute
	b.Release(stable, 3, agenttest.Large("3", 0))
	b.cfg.Peers = []string{"127.0.0.1:1"} // who never delivers
	stop := b.run()
	b.until("a download", func(s *AppStatus) bool { return s.State == manifest.StateDownloading })
	if r, err := b.connect().Revert(t.Context(), "acme", ""); err != nil || r.SHA256 != manifest.Sum(b.old) {
		t.Errorf("%+v, %v", r, err)
	}
	stop()
	b.installed(b.old)
}

func TestCache(t *testing.T) {
	b := newBench(t)
	two, three := agenttest.Program("2", 0), agenttest.Program("3", 0)
	for i, content := range [][]byte{two, three} {
		b.Release(stable, int64(i+2), content)
		b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	}
	a := b.open()
	defer a.Close()
	sums := func(all []Stored) string {
		var names []string
		for _, s := range all {
			names = append(names, s.Version)
		}
		return strings.Join(names, " ")
	}
	all, err := a.Stored(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("stored %+v, %v", all, err)
	}
	for _, s := range all {
		if s.App != "acme" || !s.Whole || s.Wanted != (s.SHA256 == manifest.Sum(three)) || s.Bytes != int64(len(three)) {
			t.Errorf("stored %+v", s)
		}
	}
	for which, want := range map[string]fault.Code{"12345": fault.Usage, "00000000": fault.NotFound, "": fault.Usage} {
		if _, err := a.Drop(t.Context(), []string{which}); fault.CodeOf(err) != want {
			t.Errorf("dropping %q: %v, want %s", which, err, want)
		}
	}
	gone, err := a.Drop(t.Context(), nil)
	if err != nil || sums(gone.Files) != "1.0.2" || gone.Bytes != int64(len(two)) {
		t.Errorf("dropped %+v, %v", gone, err)
	}
	if gone, err = a.Drop(t.Context(), nil); err != nil || len(gone.Files) != 0 {
		t.Errorf("dropped again %+v, %v", gone, err)
	}
	if gone, err = a.Drop(t.Context(), []string{strings.ToUpper(manifest.Sum(three).String()[:8])}); err != nil || sums(gone.Files) != "1.0.3" {
		t.Errorf("dropped by name %+v, %v", gone, err)
	}
	b.installed(three)
}

// Nobody is given what the publisher has blocked, though it is what runs here.
func TestBlockedReleaseIsNotGiven(t *testing.T) {
	b := newBench(t)
	two := agenttest.Program("2", 0)
	b.Release(stable, 2, two)
	b.cfg.Check.Every = time.Second
	stop := b.run()
	defer stop()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.State == manifest.StateHealthy && s.Version == "1.0.2" })
	h := b.connect()
	given := func() bool {
		all, err := h.Stored(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.SHA256 == manifest.Sum(two) {
				return s.Given
			}
		}
		return false
	}
	b.until("a seed", func(*AppStatus) bool { return given() })
	if _, err := h.Wish(t.Context(), nil, Wish{HoldUntil: state.NoEnd}); err != nil {
		t.Fatal(err)
	}
	b.Release(stable, 3, agenttest.Program("3", 0), blocking(two))
	b.until("an end of giving", func(s *AppStatus) bool { return s.Sequence == 3 && !given() })
}
