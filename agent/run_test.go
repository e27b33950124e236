package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/window"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// connect returns the running agent, and fails when the command would work alone.
func (b *bench) connect() Handle {
	b.t.Helper()
	h, err := Connect(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	if !h.Serving() {
		b.t.Fatal("no agent is running")
	}
	return h
}

func (b *bench) serving() {
	b.t.Helper()
	b.until("a first check", func(s *AppStatus) bool { return s.LastCheck != nil && s.LastCheck.At.Equal(b.Now) })
}

func TestRunningAgentInstallsByItself(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	b.cfg.Check.Every = time.Second
	defer b.run()()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	next := agenttest.Program("3", 0)
	b.Release(stable, 3, next)
	b.until("version 1.0.3", func(s *AppStatus) bool { return s.Version == "1.0.3" && s.State == manifest.StateHealthy })
	b.installed(next)
}

func TestCommandsGoToTheRunningAgent(t *testing.T) {
	b := newBench(t)
	b.cfg.idle = 200 * time.Millisecond
	first := agenttest.Program("2", 0)
	b.Release(stable, 2, first)
	defer b.run()()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	h := b.connect()

	checks, err := h.Check(t.Context(), nil)
	if err != nil || len(checks.Apps) != 1 || checks.Apps[0].Code != fault.Same || checks.Apps[0].Available {
		t.Fatalf("check: %+v, %v; want same", checks, err)
	}
	next := agenttest.Large("3", 0)
	b.Release(stable, 3, next, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Rollout = &manifest.Rollout{Salt: "s", Start: b.Now.Add(time.Hour), Waves: []manifest.Wave{{Name: "all", Percent: 100}}}
	}))
	checks, err = h.Check(t.Context(), nil)
	if err != nil || checks.Apps[0].Code != fault.Held || !checks.Apps[0].Available || checks.Apps[0].Offered.Version != "1.0.3" {
		t.Fatalf("check: %+v, %v; want held", checks, err)
	}
	if s := b.status(); !s.Running || s.PID != os.Getpid() || s.Apps[0].State != manifest.StateHeld || s.Apps[0].Why.Until.IsZero() {
		t.Errorf("status %+v", s.Apps[0])
	}
	var states []manifest.AppState
	updated, err := h.Update(t.Context(), nil, Choice{Override: true}, true, func(p Progress) {
		if n := len(states); n == 0 || states[n-1] != p.State {
			states = append(states, p.State)
		}
	})
	if err != nil || updated[0].Code != fault.OK || updated[0].Version != "1.0.3" {
		t.Fatalf("update: %+v, %v", updated, err)
	}
	if !slices.Contains(states, manifest.StateConfirming) && !slices.Contains(states, manifest.StateHealthy) {
		t.Errorf("progress told only of %v", states)
	}
	b.installed(next)

	b.Release(stable, 2, first)
	checks, err = h.Check(t.Context(), nil)
	if err != nil || checks.Apps[0].Code != fault.Rollback || checks.Apps[0].Error == nil || len(checks.Apps[0].Error.Next) == 0 {
		t.Errorf("check: %+v, %v; want rollback, whole", checks, err)
	}
	if err := h.(remote).c.Do(t.Context(), "update", "nonsense", nil, new(string)); !errors.Is(err, fault.Usage) {
		t.Errorf("a nonsense request: %v, want usage", err)
	}
	if _, err := Open(t.Context(), b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("beside the running agent: %v, want locked", err)
	}
	if err := Leave(t.Context(), b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("leaving under the running agent: %v, want locked", err)
	}
}

// Out of date is said, and ends nothing.
func TestExpiryStopsNothing(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	for _, years := range []int{1, 4} { // first the manifest, then the root as well
		b.Now = b.Now.AddDate(years, 0, 0)
		stop := b.run()
		b.serving()
		s := b.status()
		want := fault.Expired
		if years > 1 {
			want = fault.RootExpired
		}
		if app := s.Apps[0]; app.LastCheck.Code != want || app.State != manifest.StateHealthy || app.Version != "1.0.2" {
			t.Errorf("%+v with check %+v; want healthy, and %s", app, app.LastCheck, want)
		}
		stop()
	}
}

// A publisher that is away when the agent starts, and comes back.
func TestStartsWithoutAPublisher(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	good := b.cfg.Sources.Publisher
	b.cfg.Sources.Publisher = "http://127.0.0.1:1"
	stop := b.run()
	b.serving()
	if app := b.status().Apps[0]; app.State != manifest.StateWaiting || app.Why.Code != fault.Unreachable {
		t.Errorf("%+v, want waiting for an answer", app)
	}
	stop()
	b.cfg.Sources.Publisher = good
	u := b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	for _, e := range mustStatus(t, b).Events {
		if e.Code == fault.StateLost {
			t.Errorf("a first start counts as a loss: %+v", e)
		}
	}
}

func mustStatus(t *testing.T, b *bench) *Status {
	t.Helper()
	s, err := ReadStatus(b.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatusWithoutAnAgent(t *testing.T) {
	b := newBench(t)
	s := b.status() // nothing has ever run
	if s.Running || len(s.Apps) != 1 || s.Apps[0].State != manifest.StateWaiting || s.Fleet != b.Pin().Prefixed() {
		t.Errorf("before anything ran: %+v", s)
	}
	b.Release(stable, 2, agenttest.Program("2", 0))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	if s := b.status(); s.Running || s.Apps[0].Version != "1.0.2" {
		t.Errorf("after an update: %+v", s)
	}
	b.cfg.JoinFile, b.cfg.StateDir = filepath.Join(t.TempDir(), "join.json"), t.TempDir()
	if _, err := CurrentStatus(t.Context(), b.cfg); !errors.Is(err, fault.Config) {
		t.Errorf("on a machine that has not joined: %v, want config", err)
	}
}

func TestCloseInTheMiddleOfADownload(t *testing.T) {
	b := newBench(t)
	b.cfg.idle = time.Minute
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next) // nobody seeds: it waits for peers
	a := b.open()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan []Updated, 1)
	go func() {
		updated, _ := a.Update(ctx, nil, Choice{}, true, nil)
		result <- updated
	}()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if s := a.Status(); s != nil && s.Apps[0].State == manifest.StateDownloading {
			break
		}
	}
	cancel()
	if updated := <-result; len(updated) != 1 || updated[0].Code != fault.Interrupted {
		t.Errorf("%+v, want interrupted", updated)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	b.installed(b.old)
	if _, err := control.Dial(t.Context(), b.cfg.StateDir, "agent"); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("after closing: %v, want ErrNotRunning", err)
	}
}

// A source that is fast enough to be borne, and no faster, does not keep the others from
// being asked.
func TestSlowSourceIsLeft(t *testing.T) {
	b := newBench(t)
	b.cfg.idle, b.cfg.direct = 50*time.Millisecond, 300*time.Millisecond
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next)
	good := b.cfg.Sources.Publisher
	left := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/data/") {
			http.FileServer(http.Dir(b.Dir)).ServeHTTP(w, r)
			return
		}
		for sent := 0; r.Context().Err() == nil; sent += 100 {
			w.Write(next[sent : sent+100])
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				close(left)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}))
	defer slow.Close()
	b.cfg.Sources = Sources{Publisher: good, Mirrors: []string{slow.URL}} // the publisher is asked last
	u := b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	b.installed(next)
	<-left
	if got := u.Update.Bytes.Webseed; got < int64(len(next)) || got > int64(len(next))+64<<10 { // at most a piece was begun
		t.Errorf("%d bytes were fetched for %d", got, len(next))
	}
}

func TestNextCheck(t *testing.T) {
	b := newBench(t)
	a := b.open()
	if err := a.recovered(t.Context()); err != nil {
		t.Fatal(err)
	}
	app := a.apps[0]
	rows := []struct {
		name              string
		silences, retries int
		state             manifest.AppState
		jitter            float64
		want              time.Duration
	}{
		{"early-by-jitter", 0, 0, manifest.StateHealthy, 0, 12 * time.Minute},
		{"late-by-jitter", 0, 0, manifest.StateHealthy, 1, 18 * time.Minute},
		{"nobody-answered", 1, 0, manifest.StateHealthy, 0, firstRetry},
		{"nobody-answered-again", 3, 0, manifest.StateHealthy, 0, 4 * firstRetry},
		{"nobody-answers-for-days", 500, 0, manifest.StateHealthy, 0, 12 * time.Minute},
		{"update-ended-by-something-passing", 0, 2, manifest.StateWaiting, 0, 2 * firstRetry},
		{"update-that-failed-for-good", 0, 2, manifest.StateReverted, 0, 12 * time.Minute},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var got time.Duration
			a.do(t.Context(), func() {
				app.silences, app.retries, app.status.State = r.silences, r.retries, r.state
				got = a.nextCheck(r.jitter)
			})
			if got != r.want {
				t.Errorf("in %s, want %s", got, r.want)
			}
		})
	}
	t.Run("short-window-is-not-slept-through", func(t *testing.T) {
		opens := b.Now.Add(2 * time.Minute).UTC()
		w, err := window.Parse(fmt.Sprintf("%s %s-%s UTC", opens.Format("Mon"), opens.Format("15:04"), opens.Add(10*time.Minute).Format("15:04")))
		if err != nil {
			t.Fatal(err)
		}
		a.do(t.Context(), func() {
			app.cfg.Windows, app.retries, app.silences, app.status.State = window.Set{w}, 0, 0, manifest.StateHeld
			a.showWishes(app)
			for jitter, want := range map[float64]time.Duration{0: 2 * time.Minute, 1: 7 * time.Minute} {
				if got := a.nextCheck(jitter); got != want {
					t.Errorf("in %s, want %s", got, want)
				}
			}
		})
	})
}
