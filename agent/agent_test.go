package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

var stable = manifesttest.Stable

// failsWithin is how long a health check takes that fails. What is well, as the version
// before is that is put back, passes at once, also on a machine that is busy.
const failsWithin = time.Second

// bench is a publisher, and a machine that has joined its fleet and runs version 1.
type bench struct {
	*agenttest.Publisher
	t      *testing.T
	cfg    Config
	target string
	old    []byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	p := agenttest.New(t)
	dir := t.TempDir()
	b := &bench{Publisher: p, t: t, target: filepath.Join(dir, "opt", "acme"), old: agenttest.Program("1", 0)}
	if err := os.Mkdir(filepath.Dir(b.target), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.target, b.old, 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg = Config{
		StateDir: filepath.Join(dir, "state"), JoinFile: filepath.Join(dir, "join.json"), Listen: "127.0.0.1:0",
		Apps:    []AppConfig{{Name: "acme", Channel: "stable", Target: b.target}},
		Sources: Sources{Publisher: p.Serve()},
		Version: "1.0.0", Clock: func() time.Time { return p.Now },
		Logger: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	b.pin(p.Pin())
	return b
}

// logTo writes a log into a test's output.
type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (b *bench) pin(fleet manifest.Digest) {
	b.t.Helper()
	if err := (&state.Pin{Repo: manifest.FleetID(fleet)}).Write(b.cfg.JoinFile); err != nil {
		b.t.Fatal(err)
	}
}

// open opens the machine's agent until the test ends or it is closed.
func (b *bench) open() *Agent {
	b.t.Helper()
	a, err := Open(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if a.ctx.Err() == nil {
			a.Close()
		}
	})
	return a
}

// update updates with a fresh agent and returns how the app stands.
func (b *bench) update(c Choice) Updated {
	b.t.Helper()
	a := b.open()
	defer a.Close()
	updated, err := a.Update(b.t.Context(), nil, c, true, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return updated[0]
}

func (b *bench) want(u Updated, code fault.Code, s manifest.AppState) {
	b.t.Helper()
	if u.Code != code || u.State != s {
		b.t.Errorf("%s and %s (%v), want %s and %s", u.Code, u.State, u.Error, code, s)
	}
}

// installed fails unless the target has this content and nothing unfinished lies about.
func (b *bench) installed(content []byte) {
	b.t.Helper()
	got, err := os.ReadFile(b.target)
	if err != nil || !bytes.Equal(got, content) {
		b.t.Errorf("the target has %q, %v; want %q", clip(got), err, clip(content))
	}
	entries, err := os.ReadDir(filepath.Dir(b.target))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "acme" && e.Name() != ".acme.shoal-lock" && !strings.HasPrefix(e.Name(), ".acme.shoal-prev-") {
			b.t.Errorf("%q is left beside the target", e.Name())
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 80)] }

// running starts the installed program and returns a check that it still runs.
func (b *bench) running() (still func()) {
	b.t.Helper()
	cmd := exec.Command(b.target, "--serve")
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	return func() {
		b.t.Helper()
		select {
		case err := <-ended:
			b.t.Errorf("the running program ended: %v", err)
			ended <- err
		default:
		}
	}
}

func TestUpdateInstallsWhatIsOffered(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	still := b.running()
	u := b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	b.installed(next)
	still() // the old program's process is not this agent's to end
	if u.Version != "1.0.2" || u.SHA256 != manifest.Sum(next) || u.Sequence != 2 || len(u.Previous) != 1 || u.Why != nil {
		t.Errorf("status %+v", u.AppStatus)
	}
	if u.Update == nil || u.Update.Bytes.Webseed != int64(len(next)) {
		t.Errorf("the update cost %+v, want %d bytes by HTTP", u.Update, len(next))
	}
	b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)

	// A restart knows what it installed, from the disk.
	s, err := ReadStatus(b.cfg.StateDir)
	if err != nil || s.Apps[0].State != manifest.StateHealthy || s.Apps[0].Version != "1.0.2" || s.Running {
		t.Errorf("status on disk: %+v, %v", s, err)
	}
	a := b.open()
	if in := a.follow.Local().Installed["acme"]; in.Sequence != 2 || in.SHA256 != manifest.Sum(next) || in.PreviousSHA256 != manifest.Sum(b.old) {
		t.Errorf("remembered as installed: %+v", in)
	}
}

func TestFirstInstall(t *testing.T) {
	b := newBench(t)
	if err := os.Remove(b.target); err != nil {
		t.Fatal(err)
	}
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(next)
	if fi, err := os.Stat(b.target); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want the manifest's 0755", fi.Mode(), err)
	}
}

// run runs the machine's agent in the background until the returned function is called.
func (b *bench) run() (stop func()) {
	b.t.Helper()
	a := b.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(a.Run(ctx), a.Close()) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("the agent ended with %v", err)
		}
	}
	b.t.Cleanup(stop)
	return stop
}

// status asks the running agent.
func (b *bench) status() *Status {
	b.t.Helper()
	s, err := CurrentStatus(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// until waits until the running agent says that the app stands as wanted.
func (b *bench) until(what string, ok func(*AppStatus) bool) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	var last *Status
	for time.Now().Before(deadline) {
		if s, err := CurrentStatus(b.t.Context(), b.cfg); err == nil && s.Running {
			if last = s; ok(&s.Apps[0]) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("waited in vain for %s: %+v", what, last)
}

func TestWebServerAloneIsEnough(t *testing.T) {
	b := newBench(t)
	b.cfg.idle = 300 * time.Millisecond
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next) // no seed, no tracker, no peer
	u := b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	b.installed(next)
	if got := u.Update.Bytes; got.Webseed != int64(len(next)) {
		t.Errorf("bytes %+v, want all %d by HTTP", got, len(next))
	}
}

func TestUnwellReleaseIsPutBackAndNotTriedAgain(t *testing.T) {
	b := newBench(t)
	b.cfg.Apps[0].Health = HealthConfig{Type: "command", Command: []string{b.target, "--self-check"},
		Interval: 10 * time.Millisecond, Timeout: failsWithin, Successes: 1}
	bad := agenttest.Program("2", 3)
	b.Release(stable, 2, bad)
	u := b.update(Choice{})
	b.want(u, fault.HealthFailed, manifest.StateReverted)
	b.installed(b.old)
	if u.Why == nil || u.Why.Code != fault.HealthFailed {
		t.Errorf("why is %+v", u.Why)
	}

	asked := b.Asked()
	u = b.update(Choice{})
	b.want(u, fault.HealthFailed, manifest.StateReverted)
	if u.Error == nil || !slices.Contains(u.Error.Next, "shoal agent update --retry") {
		t.Errorf("the error does not say how to retry: %+v", u.Error)
	}
	if b.Asked() > asked+4 {
		t.Errorf("%d requests: it was fetched again", b.Asked()-asked)
	}

	// A new number with the same bytes changes nothing.
	b.Release(stable, 3, bad)
	failed := u.account().FailedAt
	if b.Now = b.Now.Add(time.Minute); failed.IsZero() {
		t.Error("it does not report when it failed")
	}
	u = b.update(Choice{})
	b.want(u, fault.HealthFailed, manifest.StateReverted)
	if again := u.account().FailedAt; !again.Equal(failed) {
		t.Errorf("it says that it failed at %s and, without another try, at %s", failed, again)
	}
	b.installed(b.old)
	// The signed plan may ask for another try, and so may the operator.
	b.Release(stable, 4, bad, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Rollout = &manifest.Rollout{Retry: 1} }))
	u = b.update(Choice{})
	b.want(u, fault.HealthFailed, manifest.StateReverted)
	if u.account().FailedAt.Equal(failed) {
		t.Error("another failure has the moment of the first")
	}
	if n := len(b.log()); n != 2 {
		t.Errorf("%d tries are on record, want 2", n)
	}
	b.want(b.update(Choice{Retry: true}), fault.HealthFailed, manifest.StateReverted)
	if n := len(b.log()); n != 3 {
		t.Errorf("%d tries are on record, want 3", n)
	}
	good := agenttest.Program("5", 0)
	b.Release(stable, 5, good)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(good)
}

func (b *bench) log() []string {
	b.t.Helper()
	cfg, err := b.cfg.WithDefaults()
	if err != nil {
		b.t.Fatal(err)
	}
	records, err := Log(cfg, "acme")
	if err != nil {
		b.t.Fatal(err)
	}
	var all []string
	for _, r := range records {
		all = append(all, fmt.Sprintf("%s %s %s", r.To.Version, r.State, r.Code))
	}
	return all
}

// A block that comes between download and swap stops the swap.
func TestBlockedWhileWaitingToSwap(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	begun, goOn := filepath.Join(dir, "begun"), filepath.Join(dir, "go-on")
	b.cfg.Apps[0].Hooks = HooksConfig{
		Pre: []string{"/bin/sh", "-c", "touch " + begun + "; while ! [ -e " + goOn + " ]; do sleep 0.02; done"},
	}
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	a := b.open()
	result := make(chan Updated, 1)
	go func() {
		updated, err := a.Update(t.Context(), nil, Choice{}, true, nil)
		if err != nil {
			t.Error(err)
		}
		result <- updated[0]
	}()
	waitForFile(t, begun)
	b.Release(stable, 3, b.old, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(next), Reason: "data loss"}}
	}))
	if _, err := a.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if u := <-result; u.Code != fault.Blocked {
		t.Errorf("%s (%v), want blocked", u.Code, u.Error)
	}
	b.installed(b.old)
}

func waitForFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain for %s", path)
}

func TestWavesAndPauses(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	rollout := func(sequence int64, change func(*manifest.Rollout)) {
		b.Release(stable, sequence, next, manifesttest.WithManifest(func(m *manifest.Manifest) {
			m.Rollout = &manifest.Rollout{Salt: "s", Start: b.Now, Waves: []manifest.Wave{
				{Name: "canary", Rings: []string{"canary"}}, {Name: "everyone", Percent: 100, After: 4 * time.Hour},
			}}
			change(m.Rollout)
		}))
	}
	rollout(2, func(*manifest.Rollout) {})
	u := b.update(Choice{})
	b.want(u, fault.Held, manifest.StateHeld)
	if u.Why == nil || !u.Why.Until.Equal(b.Now.Add(4*time.Hour)) || !strings.Contains(u.Why.Text, "wave 2 (everyone)") || u.Why.Next == "" {
		t.Errorf("why is %+v, want wave 2 and until when", u.Why)
	}
	b.installed(b.old)

	rollout(3, func(r *manifest.Rollout) { r.Paused = true })
	b.want(b.update(Choice{Override: true}), fault.Held, manifest.StateHeld)
	b.installed(b.old)

	rollout(4, func(r *manifest.Rollout) { r.Waves[1].Gate = manifest.GateBeacon })
	b.Now = b.Now.Add(5 * time.Hour)
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld) // its time has come, its gate is shut
	b.installed(b.old)

	rollout(5, func(r *manifest.Rollout) { r.Start = b.Now })
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.cfg.Labels = []Label{{Name: "ring", Value: "canary"}}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(next)
}

func TestOverrideSkipsTheWait(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Rollout = &manifest.Rollout{Salt: "s", Start: b.Now.Add(time.Hour), Waves: []manifest.Wave{{Name: "all", Percent: 100}}}
	}))
	b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
	b.want(b.update(Choice{Override: true}), fault.OK, manifest.StateHealthy)
	b.installed(next)
}

func TestBeaconHolds(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	env := b.Release(stable, 2, next)
	b.Put("b/acme/stable.json", b.Beacon(env, manifesttest.WithBeacon(func(bc *manifest.Beacon) { bc.Hold, bc.Reason = true, "looking into it" })))
	u := b.update(Choice{Override: true})
	b.want(u, fault.Held, manifest.StateHeld)
	b.installed(b.old)
	b.Now = b.Now.Add(time.Hour)
	b.Put("b/acme/stable.json", b.Beacon(env))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(next)
}

func TestBlockedReleaseIsReplaced(t *testing.T) {
	b := newBench(t)
	bad, good := agenttest.Program("2", 0), agenttest.Program("3", 0)
	b.Release(stable, 2, bad)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Release(stable, 3, good, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(bad), Reason: "data loss"}}
	}))
	a := b.open()
	if _, err := a.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	events := a.Status().Events
	if n := len(events); n == 0 || events[n-1].Code != fault.RunningBlocked {
		t.Errorf("events %+v, want running_blocked", events)
	}
	a.Close()
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(good)
}

// Every app stands for itself.
func TestSeveralApps(t *testing.T) {
	b := newBench(t)
	other := filepath.Join(filepath.Dir(b.target), "other")
	b.Rotate(manifesttest.WithRoot(func(r *manifest.Root) {
		second := r.Channels[0]
		second.App, second.Beacon, second.StaleAfter = "other", nil, 0
		r.Channels = append(r.Channels, second)
	}))
	b.PutRoots()
	b.cfg.Apps = append(b.cfg.Apps, AppConfig{Name: "other", Channel: "stable", Target: other})
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next, manifesttest.SignedBy("release-1")) // not enough
	b.Release(manifest.Channel{App: "other", Name: "stable"}, 7, agenttest.Program("7", 0))
	a := b.open()
	updated, err := a.Update(t.Context(), nil, Choice{}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if updated[0].Code != fault.Threshold || updated[1].Code != fault.OK || updated[1].Version != "1.0.7" {
		t.Errorf("%s and %s, want threshold and ok", updated[0].Code, updated[1].Code)
	}
	if got, err := os.ReadFile(other); err != nil || !bytes.Equal(got, agenttest.Program("7", 0)) {
		t.Errorf("the other app has %q, %v", got, err)
	}
	if got, err := os.ReadFile(b.target); err != nil || !bytes.Equal(got, b.old) {
		t.Errorf("the first app has %q, %v", got, err)
	}
	if _, err := a.Update(t.Context(), []string{"acme"}, Choice{}, true, nil); err != nil {
		t.Error(err)
	}
	if _, err := a.Update(t.Context(), []string{"unheard-of"}, Choice{}, true, nil); !errors.Is(err, fault.Usage) {
		t.Errorf("an unknown app: %v, want usage", err)
	}
}
