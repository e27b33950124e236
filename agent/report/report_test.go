package report

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// publisher takes reports as told, over a real socket.
type publisher struct {
	*httptest.Server
	f *mt.Fleet

	mu   sync.Mutex // guards what follows
	code fault.Code // of the answer
	got  chan *manifest.Report
}

func newPublisher(t *testing.T, f *mt.Fleet) *publisher {
	p := &publisher{f: f, code: fault.OK, got: make(chan *manifest.Report, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		doc, _, err := manifest.OpenReport(b, f.Pin())
		if err != nil || r.URL.Path != "/api/v1/reports" {
			t.Errorf("%s: %v", r.URL, err)
		}
		p.mu.Lock()
		code := p.code
		p.mu.Unlock()
		if code != fault.OK {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(answer{Code: code, Message: "as told", Approved: true})
		p.got <- doc
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) answers(c fault.Code) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code = c
}

// machine is what reports.
type machine struct {
	*Reporter
	cfg Config

	mu  sync.Mutex // guards app
	app manifest.AppReport
}

func newMachine(t *testing.T, f *mt.Fleet, to ...string) *machine {
	t.Helper()
	m := &machine{app: manifest.AppReport{App: "acme", Channel: "stable", State: manifest.StateHealthy, Version: "2.4.0", Freshness: manifest.FreshNone}}
	key, err := keys.Generate("test")
	if err != nil {
		t.Fatal(err)
	}
	m.cfg = Config{Dir: t.TempDir(), Key: key, To: to, Every: time.Hour, gap: time.Millisecond, Report: func() *manifest.Report {
		m.mu.Lock()
		defer m.mu.Unlock()
		return &manifest.Report{Repo: f.Pin(), Host: "pos-1", Platform: mt.Platform, AgentVersion: "1.0.0", Apps: []manifest.AppReport{m.app}}
	}}
	m.open(t)
	return m
}

func (m *machine) open(t *testing.T) {
	t.Helper()
	var err error
	if m.Reporter, err = New(m.cfg); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) runs(version string) {
	m.mu.Lock()
	m.app.Version = version
	m.mu.Unlock()
	m.Changed()
}

// start runs until the test ends or stop is called.
func (m *machine) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func event(code fault.Code, detail string) manifest.Event {
	return manifest.Event{Code: code, Doc: "manifest acme/stable", Detail: detail}
}

func TestReportsOnChange(t *testing.T) {
	f := mt.New(t)
	p := newPublisher(t, f)
	m := newMachine(t, f, p.URL)
	m.start(t)
	first := <-p.got
	m.runs("2.4.1")
	second := <-p.got
	if first.Apps[0].Version != "2.4.0" || second.Apps[0].Version != "2.4.1" || second.Counter <= first.Counter ||
		second.Run == "" || second.Run != first.Run || second.Agent != m.cfg.Key.Public().ID() {
		t.Errorf("%+v\n%+v", first, second)
	}
	for range 10 {
		m.Changed() // nothing has
	}
	m.runs("2.4.2")
	if third := <-p.got; third.Apps[0].Version != "2.4.2" {
		t.Errorf("a report without a change: %+v", third)
	}
}

func TestWhatNobodyTookIsKeptAndMerged(t *testing.T) {
	f := mt.New(t)
	p := newPublisher(t, f)
	m := newMachine(t, f, p.URL)
	p.answers(fault.NoSpace)
	stop := m.start(t)
	for range 3 {
		m.Note(event(fault.Rollback, "sequence 40 < 43"))
	}
	m.Note(event(fault.Expired, "ran out"))
	first := <-p.got
	stop()
	m.open(t) // the machine is started again
	m.Note(event(fault.Rollback, "sequence 40 < 43"))
	p.answers(fault.OK)
	m.start(t)
	got := <-p.got
	if got.Counter <= first.Counter || got.Run == first.Run {
		t.Errorf("%+v\n%+v", first, got)
	}
	if s := fmt.Sprint(got.Events); s != "[{rollback 4 manifest acme/stable: sequence 40 < 43} {expired 1 manifest acme/stable: ran out}]" {
		t.Errorf("events %s", s)
	}
	m.runs("2.4.1")
	if again := <-p.got; len(again.Events) != 0 {
		t.Errorf("told again: %+v", again.Events)
	}
}

func TestEventsAreBounded(t *testing.T) {
	f := mt.New(t)
	m := newMachine(t, f)
	const n = 1000
	for i := range n {
		m.Note(event(fault.Rollback, fmt.Sprint(i, strings.Repeat("x", 5000))))
	}
	b, err := m.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	doc, _, err := manifest.OpenReport(b, f.Pin())
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, e := range doc.Events {
		sum += e.Count
	}
	if len(doc.Events) > maxEvents || sum != n {
		t.Errorf("%d kinds, %d events", len(doc.Events), sum)
	}
	if err := m.Exported(b); err != nil {
		t.Fatal(err)
	}
	if b, err = m.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	if doc, _, err = manifest.OpenReport(b, f.Pin()); err != nil || len(doc.Events) != 0 {
		t.Errorf("%v, told again: %+v", err, doc.Events)
	}
}

// What went into a file that was never whole, goes into the next one.
func TestEventsWaitForAFileThatIsWhole(t *testing.T) {
	f := mt.New(t)
	m := newMachine(t, f)
	export := func(events string) []byte {
		t.Helper()
		b, err := m.Export(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		doc, _, err := manifest.OpenReport(b, f.Pin())
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(doc.Events); got != events {
			t.Errorf("it tells %s, want %s", got, events)
		}
		return b
	}
	exported := func(b []byte) {
		t.Helper()
		if err := m.Exported(b); err != nil {
			t.Fatal(err)
		}
	}
	m.Note(event(fault.Rollback, "one"))
	export("[{rollback 1 manifest acme/stable: one}]") // which cannot be written
	m.open(t)                                          // nor later: the machine is started again
	lost := export("[{rollback 1 manifest acme/stable: one}]")
	m.Note(event(fault.Rollback, "one"), event(fault.Expired, "two"))
	whole := export("[{rollback 2 manifest acme/stable: one} {expired 1 manifest acme/stable: two}]")
	m.Note(event(fault.Rollback, "one")) // while the file is written
	exported(lost)                       // says nothing of what came since
	exported(whole)
	exported(whole)
	last := export("[{rollback 1 manifest acme/stable: one}]")
	m.open(t)
	exported(last) // of another run, which does not know what was in it
	exported(export("[{rollback 1 manifest acme/stable: one}]"))
	m.open(t)
	export("[]")
	if err := m.Exported([]byte("nonsense")); err == nil {
		t.Error("nonsense is a report")
	}
}

func TestCounterNeverFalls(t *testing.T) {
	f := mt.New(t)
	m := newMachine(t, f)
	now := time.Now()
	m.cfg.Clock = func() time.Time { return now }
	m.open(t)
	counter := func() int64 {
		b, err := m.Export(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		doc, _, err := manifest.OpenReport(b, f.Pin())
		if err != nil {
			t.Fatal(err)
		}
		return doc.Counter
	}
	last := counter()
	for _, step := range []time.Duration{0, -time.Hour, time.Hour, 0, 24 * time.Hour, -48 * time.Hour} {
		now = now.Add(step)
		m.open(t) // and over restarts
		if next := counter(); next <= last {
			t.Errorf("after %s: %d, not above %d", step, next, last)
		} else {
			last = next
		}
	}
	// A damaged file is begun anew, by the clock.
	if err := os.WriteFile(filepath.Join(m.cfg.Dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	if got := counter(); got != now.Unix() {
		t.Errorf("%d, want %d", got, now.Unix())
	}
}

func TestLargestAccountFits(t *testing.T) {
	f := mt.New(t)
	m := newMachine(t, f)
	m.cfg.Report = func() *manifest.Report {
		doc := &manifest.Report{Repo: f.Pin(), Host: strings.Repeat("h", 500), Platform: mt.Platform, AgentVersion: "1.0.0"}
		for i := range 32 {
			doc.Labels = append(doc.Labels, manifest.Label{Name: fmt.Sprint("l", i), Value: strings.Repeat("ü", 1000)})
		}
		for i := range 64 {
			doc.Apps = append(doc.Apps, manifest.AppReport{App: fmt.Sprint("app", i), Channel: "stable", Version: "1", SHA256: mt.Content("1"), Offered: mt.Content("2"),
				State: manifest.StateFailed, Why: &manifest.Why{Code: fault.HealthFailed, Text: strings.Repeat("\x00é", 5000), Next: strings.Repeat("n", 5000)}, Freshness: manifest.FreshNone})
		}
		return doc
	}
	m.open(t)
	b, err := m.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := manifest.OpenReport(b, f.Pin()); err != nil {
		t.Error(err)
	}
}

func TestNobodyThereIsNoFailure(t *testing.T) {
	f := mt.New(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	m := newMachine(t, f, gone.URL)
	m.start(t)
	for m.Status()[0].Code == "" {
		select {
		case <-t.Context().Done():
			t.Fatal("nothing was tried")
		case <-time.After(time.Millisecond):
		}
	}
	if s := m.Status()[0]; s.Code != fault.Unreachable || s.Approved || !s.Next.After(s.At) {
		t.Errorf("%+v", s)
	}
	gone.Close()
}
