package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/agent"
	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher"
	"shoal/publisher/fleet"
	"shoal/publisher/hook"
	"shoal/publisher/rollout"
)

// theatre is a publisher with a beacon key and twenty machines that run version 1, four of
// them canaries: real agents, real sockets, one process.
type theatre struct {
	t        *testing.T
	dir      string
	cfg      publisher.Config
	release  []keys.Signer
	serving  publisher.Serving
	stop     func() // ends the publisher that serves
	machines []*machine
	beacon   string     // the file of its key
	posted   chan error // one for each post to the webhook: nil for a halt that is signed
}

type machine struct {
	*agent.Agent
	cfg    agent.Config
	canary bool
	target string
}

var acme = manifest.Channel{App: "acme", Name: "stable"}

// newTheatre serves in this process, or as one of its own.
func newTheatre(t *testing.T, serve func(*theatre)) *theatre {
	t.Helper()
	th := &theatre{t: t, dir: t.TempDir(), posted: make(chan error, 100)}
	res, err := publisher.Init(t.Context(), publisher.InitRequest{
		App: "acme", Channels: []string{"stable"}, NoFleetKey: true, Beacon: true,
		KeyDir: filepath.Join(th.dir, "keys"), ConfigFile: filepath.Join(th.dir, "publisher.yaml"), Store: filepath.Join(th.dir, "store"),
	})
	if err != nil {
		t.Fatal(err)
	}
	open := func(k publisher.KeyFile) keys.Signer {
		s, err := keys.Open(t.Context(), "file:"+k.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	th.release = []keys.Signer{open(res.ReleaseKeys[0])}
	th.cfg = publisher.Config{
		App: "acme", Store: res.Store,
		Serve:    publisher.ServeConfig{Listen: "127.0.0.1:0", Swarm: "127.0.0.1:0", Beacon: open(res.BeaconKeys[0])},
		Webhooks: []hook.Config{th.receive()},
	}
	th.beacon = res.BeaconKeys[0].Path
	th.publish("1.0.0", agenttest.Program("1.0.0", 0), nil)
	serve(th)
	for i := range 20 {
		th.join(i, res.FleetID)
	}
	th.approve()
	th.start()
	return th
}

// receive runs a web server that is told of halts, as people write one.
func (th *theatre) receive() hook.Config {
	th.t.Helper()
	const secret = "0123456789abcdef"
	file := filepath.Join(th.dir, "hook.secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		th.t.Fatal(err)
	}
	check := func(r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		sig := r.Header.Get("Shoal-Signature")
		at, _, _ := strings.Cut(strings.TrimPrefix(sig, "t="), ",")
		unix, err := strconv.ParseInt(at, 10, 64)
		sent := time.Unix(unix, 0)
		if err != nil || time.Since(sent).Abs() > 5*time.Minute || !hmac.Equal([]byte(sig), []byte(hook.Sign([]byte(secret), sent, body))) {
			return fmt.Errorf("signature %q", sig)
		}
		var m struct {
			Text  string      `json:"text"`
			Event fleet.Event `json:"event"`
		}
		if err := json.Unmarshal(body, &m); err != nil || m.Event.Kind != rollout.Halted || m.Event.Version != "2.0.0" || !strings.Contains(m.Text, "machines failed") {
			return fmt.Errorf("%v: %s", err, body)
		}
		return nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { th.posted <- check(r) }))
	th.t.Cleanup(srv.Close)
	return hook.Config{URL: srv.URL, On: []string{rollout.Halted}, SecretFile: file}
}

func (th *theatre) publisher() *publisher.Publisher {
	th.t.Helper()
	p, err := publisher.Open(th.cfg)
	if err != nil {
		th.t.Fatal(err)
	}
	return p
}

func (th *theatre) publish(version string, content []byte, plan *rollout.Plan) {
	th.t.Helper()
	path := filepath.Join(th.dir, "acme-"+version)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		th.t.Fatal(err)
	}
	_, err := th.publisher().Publish(th.t.Context(), publisher.PublishRequest{
		Channel: acme, Version: version, Files: []publisher.File{{Path: path, Platform: manifest.Host()}}, Plan: plan, Start: true,
		Keys: func(context.Context) ([]keys.Signer, error) { return th.release, nil },
	})
	if err != nil {
		th.t.Fatal(err)
	}
}

// inProcess serves until stop is called.
func inProcess(th *theatre) {
	th.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan publisher.Serving, 1), make(chan error, 1)
	p := th.publisher()
	go func() { ended <- p.Serve(ctx, func(s publisher.Serving) { ready <- s }) }()
	select {
	case th.serving = <-ready:
	case err := <-ended:
		cancel()
		th.t.Fatal(err)
	}
	stopped := false
	th.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			th.t.Error(err)
		}
	}
	th.t.Cleanup(func() { th.stop() })
}

// asProcess runs shoal serve until stop is called, which kills it.
func asProcess(th *theatre) {
	th.t.Helper()
	th.serving.HTTP = netip.MustParseAddrPort(freeAddress(th.t))
	var out bytes.Buffer
	cmd := exec.Command("shoal", "--config", filepath.Join(th.dir, "publisher.yaml"), "serve", "--beacon-key", "file:"+th.beacon,
		"--listen", th.serving.HTTP.String(), "--swarm", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "SHOAL_SERVE_LAN_ENABLED=false")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		th.t.Fatal(err)
	}
	th.stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	th.t.Cleanup(th.stop)
	if !comes(func() bool {
		res, err := http.Get("http://" + th.serving.HTTP.String() + "/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}) {
		th.stop()
		th.t.Fatalf("shoal serve does not begin:\n%s", &out)
	}
}

// join makes machine i. It finds what is published
// in a directory, too, so that nothing but the publisher's word ends with the publisher.
func (th *theatre) join(i int, id manifest.FleetID) {
	th.t.Helper()
	dir := filepath.Join(th.dir, fmt.Sprintf("m%d", i))
	m := &machine{canary: i%5 == 0, target: filepath.Join(dir, "opt", "acme")}
	if err := os.MkdirAll(filepath.Dir(m.target), 0o755); err != nil {
		th.t.Fatal(err)
	}
	if err := os.WriteFile(m.target, agenttest.Program("1.0.0", 0), 0o755); err != nil {
		th.t.Fatal(err)
	}
	m.cfg = agent.Config{
		StateDir: filepath.Join(dir, "state"), JoinFile: filepath.Join(dir, "join.json"), Listen: "127.0.0.1:0", Version: "1.0.0",
		Apps: []agent.AppConfig{{
			Name: "acme", Channel: "stable", Target: m.target,
			Health: agent.HealthConfig{Type: "command", Command: []string{m.target, "--self-check"}, Timeout: 3 * time.Second, Interval: 50 * time.Millisecond},
		}},
		Sources: agent.Sources{Publisher: "http://" + th.serving.HTTP.String(), Mirrors: []string{th.publisher().Tree()}},
		Check:   agent.CheckConfig{Every: time.Second}, Reports: agent.ReportsConfig{Every: time.Second},
		Logger: slog.New(slog.DiscardHandler),
	}
	if m.canary {
		m.cfg.Labels = []agent.Label{{Name: "ring", Value: "canary"}}
	}
	if err := (&state.Pin{Repo: id}).Write(m.cfg.JoinFile); err != nil {
		th.t.Fatal(err)
	}
	var err error
	if m.Agent, err = agent.Open(th.t.Context(), m.cfg); err != nil {
		th.t.Fatal(err)
	}
	th.machines = append(th.machines, m)
}

// start runs every machine's agent until the test ends.
func (th *theatre) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, len(th.machines))
	for _, m := range th.machines {
		go func() { ended <- errors.Join(m.Run(ctx), m.Close()) }()
	}
	th.t.Cleanup(func() {
		cancel()
		for range th.machines {
			if err := <-ended; err != nil {
				th.t.Error(err)
			}
		}
	})
}

// approve approves every machine, as a person does who edits the file.
func (th *theatre) approve() {
	th.t.Helper()
	var lines []byte
	for _, m := range th.machines {
		k, err := keys.Open(th.t.Context(), "file:"+filepath.Join(m.cfg.StateDir, "agent.key"), nil)
		if err != nil {
			th.t.Fatal(err)
		}
		lines = fmt.Appendln(lines, k.Public())
	}
	if err := os.WriteFile(filepath.Join(th.cfg.Store, "agents.allow"), lines, 0o644); err != nil {
		th.t.Fatal(err)
	}
}

func (th *theatre) until(what string, ok func() bool) {
	th.t.Helper()
	if comes(ok) {
		return
	}
	for i, m := range th.machines {
		s := m.Status().Apps[0]
		th.t.Logf("m%d canary %v: %s %s #%d %+v", i, m.canary, s.Version, s.State, s.Sequence, s.Why)
	}
	if st, err := th.publisher().RolloutStatus(th.t.Context(), acme); err == nil {
		th.t.Logf("%+v", st)
	}
	th.t.Fatalf("waited in vain for %s", what)
}

// every reports whether all canaries, or all others, stand as said.
func (th *theatre) every(canary bool, ok func(agent.AppStatus) bool) bool {
	for _, m := range th.machines {
		if m.canary == canary && !ok(m.Status().Apps[0]) {
			return false
		}
	}
	return true
}

// onlyCanariesTried fails unless canaries alone have ever run the release, once, and
// every machine runs version 1.
func (th *theatre) onlyCanariesTried() {
	th.t.Helper()
	for i, m := range th.machines {
		got, err := os.ReadFile(m.target)
		if err != nil || !bytes.Equal(got, agenttest.Program("1.0.0", 0)) {
			th.t.Errorf("m%d runs %q, %v", i, got, err)
		}
		cfg, err := m.cfg.WithDefaults()
		if err != nil {
			th.t.Fatal(err)
		}
		log, err := agent.Log(cfg, "acme")
		if err != nil {
			th.t.Fatal(err)
		}
		if want := map[bool]int{true: 1}[m.canary]; len(log) != want {
			th.t.Errorf("m%d, canary %v, has tried %d releases: %+v", i, m.canary, len(log), log)
		}
	}
}

var threeWaves = &rollout.Plan{Waves: []string{"ring:canary", "50%", "100%"}, Soak: time.Second}

func reverted(s agent.AppStatus) bool { return s.State == manifest.StateReverted && s.Sequence == 2 }

// A release that crashes everywhere is run by the canaries alone, each of which goes back,
// and is held, all by itself.
func TestCrashingReleaseIsStoppedAtTheCanaries(t *testing.T) {
	t.Parallel()
	th := newTheatre(t, inProcess)
	th.publish("2.0.0", agenttest.Program("2.0.0", 1), threeWaves)
	th.until("every canary to go back", func() bool { return th.every(true, reverted) })
	th.until("the webhook to be told", func() bool { return len(th.posted) > 0 })
	if err := <-th.posted; err != nil {
		t.Errorf("the webhook was told: %v", err)
	}
	th.until("everybody else to be told of the hold", func() bool {
		return th.every(false, func(s agent.AppStatus) bool {
			return s.State == manifest.StateHeld && s.Why != nil && strings.Contains(s.Why.Text, "the publisher holds this release")
		})
	})
	th.onlyCanariesTried()
	th.until("the reports of all canaries", func() bool {
		st, err := th.publisher().RolloutStatus(t.Context(), acme)
		if err != nil {
			t.Fatal(err)
		}
		if st.Phase != rollout.PhaseHeld || !st.Controlled || st.Waves[1].Open && st.Beacon.Wave > 0 {
			t.Fatalf("%+v", st)
		}
		return st.Waves[0].Count.Failed == 4
	})
	// What a machine says at first is how it went back; what stays is why.
	th.until("the status to tell why each failed", func() bool {
		out, err := exec.Command("shoal", "--config", filepath.Join(th.dir, "publisher.yaml"), "rollout", "status").CombinedOutput()
		if err != nil {
			t.Fatalf("rollout status: %v\n%s", err, out)
		}
		return strings.Count(string(out), "reverted  health_failed  acme 2.0.0 failed on this machine") == 4
	})
	events, err := rollout.Audit(th.publisher().RolloutLog(), 100)
	if err != nil || len(events) == 0 || events[len(events)-1].Kind != rollout.Halted || events[len(events)-1].By != "controller" {
		t.Errorf("audited %+v, %v", events, err)
	}
	cfg, err := th.publisher().FleetConfig()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := f.Events(t.Context(), fleet.EventQuery{Last: true})
	if err != nil || !slices.ContainsFunc(page.Events, func(e fleet.Event) bool {
		return e.Kind == rollout.Halted && strings.Contains(e.Text, "machines failed")
	}) {
		t.Errorf("the fleet's log has %+v, %v", page, err)
	}
}

// The same when nobody opens gates any more from the moment the canaries begin.
func TestCrashingReleaseWithoutAController(t *testing.T) {
	t.Parallel()
	onlyCanariesWithoutAController(t, inProcess)
}

// And when its process is killed, in the middle of whatever it does.
func TestLongCrashingReleaseWhenServeIsKilled(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("takes fifteen seconds; set SHOAL_LONG=1")
	}
	onlyCanariesWithoutAController(t, asProcess)
}

func onlyCanariesWithoutAController(t *testing.T, serve func(*theatre)) {
	t.Helper()
	th := newTheatre(t, serve)
	th.publish("2.0.0", agenttest.Program("2.0.0", 1), threeWaves)
	th.until("the first canary to begin", func() bool {
		return !th.every(true, func(s agent.AppStatus) bool { return s.Sequence < 2 || s.State == manifest.StateHealthy })
	})
	th.stop()
	th.until("every canary to go back", func() bool { return th.every(true, reverted) })
	// Everybody else asks again after the signed times of all waves, and waits.
	after := time.Now().Add(2 * time.Second)
	th.until("everybody else to ask again", func() bool {
		return th.every(false, func(s agent.AppStatus) bool {
			return s.LastCheck != nil && s.LastCheck.At.After(after) && s.Sequence == 2
		})
	})
	for i, m := range th.machines {
		if s := m.Status().Apps[0]; !m.canary && (s.State != manifest.StateHeld || !strings.Contains(s.Why.Text, "waits for its gate")) {
			t.Errorf("m%d: %s, %+v", i, s.State, s.Why)
		}
	}
	th.onlyCanariesTried()
}

// And a good one reaches everybody, wave by wave, by itself.
func TestLongGoodReleaseReachesEverybody(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("takes fifteen seconds; set SHOAL_LONG=1")
	}
	th := newTheatre(t, inProcess)
	th.publish("2.0.0", agenttest.Program("2.0.0", 0), threeWaves)
	healthy := func(s agent.AppStatus) bool { return s.State == manifest.StateHealthy && s.Version == "2.0.0" }
	th.until("everybody to be on 2.0.0", func() bool { return th.every(true, healthy) && th.every(false, healthy) })
	events, err := rollout.Audit(th.publisher().RolloutLog(), 100)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range events {
		if e.Version == "2.0.0" {
			kinds = append(kinds, e.Kind)
		}
	}
	if want := []string{rollout.Followed, rollout.Opened, rollout.Opened, rollout.Finished}; fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("decisions %q, want %q", kinds, want)
	}
}
