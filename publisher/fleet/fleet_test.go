package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/publisher/fleet"
)

// world is a store with a fleet of test keys and a clock of its own.
type world struct {
	t   testing.TB
	f   *mt.Fleet
	dir string
	cfg fleet.Config
	*fleet.Store

	mu  sync.Mutex // guards now
	now time.Time
}

func newWorld(t testing.TB, change ...func(*fleet.Config)) *world {
	t.Helper()
	w := &world{t: t, f: mt.New(t), dir: t.TempDir()}
	w.now = w.f.Now
	w.cfg = fleet.Config{Dir: w.dir, Repo: manifest.FleetID(w.f.Pin()), CommitEvery: time.Millisecond, Clock: w.clock}
	for _, c := range change {
		c(&w.cfg)
	}
	w.open()
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := fleet.Open(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Store = s
}

// reopen is a restart of the process.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// report is one of the machine name, which is healthy on 2.4.0, as change makes it.
func (w *world) report(name string, change ...func(*manifest.Report)) []byte {
	w.t.Helper()
	r := &manifest.Report{
		Repo: w.f.Pin(), Agent: w.f.Key(name).Public().ID(), Counter: w.clock().Unix(), Time: w.clock(),
		Host: name, Platform: mt.Platform, AgentVersion: "1.0.0", RootVersion: 1,
		Apps: []manifest.AppReport{{
			App: "acme", Channel: "stable", Epoch: 1, Sequence: 42, Version: "2.4.0", SHA256: mt.Content("2.4.0"), Offered: mt.Content("2.4.0"),
			State: manifest.StateHealthy, Freshness: manifest.FreshCurrent,
		}},
	}
	for _, c := range change {
		c(r)
	}
	payload, err := manifest.DraftReport(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.f.Sign(manifest.TypeReport, payload, name)
}

// state makes the first app stand so, about what is offered.
func state(s manifest.AppState, offered string) func(*manifest.Report) {
	return func(r *manifest.Report) {
		r.Apps[0].State, r.Apps[0].Offered = s, mt.Content(offered)
		if s != manifest.StateHealthy {
			r.Apps[0].Why = &manifest.Why{Code: fault.HealthFailed, Text: "exit status 3"}
		}
	}
}

func ring(value string) func(*manifest.Report) {
	return func(r *manifest.Report) { r.Labels = append(r.Labels, manifest.Label{Name: "ring", Value: value}) }
}

// hears has the machine report, a second later.
func (w *world) hears(name string, change ...func(*manifest.Report)) {
	w.t.Helper()
	w.pass(time.Second)
	if _, err := w.Take(w.t.Context(), w.report(name, change...), fleet.Via{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) approve(names ...string) {
	w.t.Helper()
	var ids []string
	for _, name := range names {
		ids = append(ids, string(w.f.Key(name).Public().ID()))
	}
	if _, err := w.Approve(w.t.Context(), ids, false); err != nil {
		w.t.Fatal(err)
	}
}

// offer is a manifest of 2.4.1 in waves: canary by ring, then everyone.
func offer() *manifest.Manifest {
	return &manifest.Manifest{App: "acme", Channel: "stable",
		Artifacts: []manifest.Artifact{mt.Artifact("acme", mt.Platform, 100, mt.Content("2.4.1"))},
		Rollout: &manifest.Rollout{Salt: "s", Waves: []manifest.Wave{
			{Name: "canary", Rings: []string{"canary"}}, {Name: "everyone", Percent: 100},
		}},
	}
}

func (w *world) waves(since time.Time) string {
	w.t.Helper()
	counts, err := w.Waves(mt.Stable, offer(), since, w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(counts)
}

func TestWavesCountApprovedMachinesOnce(t *testing.T) {
	w := newWorld(t)
	runs := func(version string) func(*manifest.Report) {
		return func(r *manifest.Report) {
			r.Apps[0].SHA256, r.Apps[0].Offered = mt.Content(version), mt.Content("2.4.1")
		}
	}
	w.hears("canary-1", ring("canary"), runs("2.4.1"))
	w.hears("canary-2", ring("canary"), state(manifest.StateReverted, "2.4.1"))
	w.hears("pos-1", state(manifest.StateDownloading, "2.4.1"))
	w.hears("pos-2", runs("2.4.1"))
	w.hears("other", func(r *manifest.Report) { r.Apps[0].Channel = "nightly" })
	if got := w.waves(time.Time{}); got != "[{0 0 0 0 0} {0 0 0 0 0}]" {
		t.Errorf("before anybody is approved: %s", got)
	}
	w.approve("canary-1", "canary-2", "pos-1", "pos-2", "other")
	if got := w.waves(time.Time{}); got != "[{2 1 0 1 0} {2 1 1 0 0}]" {
		t.Errorf("approved: %s", got)
	}
	failed := w.clock()
	w.pass(time.Minute)
	if got := w.waves(w.clock()); got != "[{2 1 1 0 0} {2 1 1 0 0}]" {
		t.Errorf("a failure before %s counts as new: %s", failed, got)
	}
	since := w.clock()
	w.hears("canary-2", ring("canary"), state(manifest.StateHeld, "2.4.1"))
	w.hears("canary-2", ring("canary"), state(manifest.StateReverted, "2.4.1"))
	if got := w.waves(since); got != "[{2 1 1 0 0} {2 1 1 0 0}]" {
		t.Errorf("the same failure told again counts as new: %s", got)
	}
	w.hears("canary-2", ring("canary"), state(manifest.StateStaged, "2.4.1"))
	w.hears("canary-2", ring("canary"), state(manifest.StateFailed, "2.4.1"))
	if got := w.waves(since); got != "[{2 1 0 1 0} {2 1 1 0 0}]" {
		t.Errorf("a second failure does not count: %s", got)
	}
	// What fails again before the next report differs by the machine's moment alone.
	at := func(moment time.Time) func(*manifest.Report) {
		return func(r *manifest.Report) { r.Apps[0].FailedAt = moment }
	}
	first := w.clock()
	w.hears("canary-2", ring("canary"), state(manifest.StateFailed, "2.4.1"), at(first))
	since = w.clock().Add(time.Second)
	w.hears("canary-2", ring("canary"), state(manifest.StateFailed, "2.4.1"), at(first))
	if got := w.waves(since); got != "[{2 1 1 0 0} {2 1 1 0 0}]" {
		t.Errorf("the same moment told again counts as new: %s", got)
	}
	w.hears("canary-2", ring("canary"), state(manifest.StateFailed, "2.4.1"), at(first.Add(time.Second)))
	if got := w.waves(since); got != "[{2 1 0 1 0} {2 1 1 0 0}]" {
		t.Errorf("a failure at another moment does not count: %s", got)
	}
	w.reopen()
	if got := w.waves(since); got != "[{2 1 0 1 0} {2 1 1 0 0}]" {
		t.Errorf("after a restart: %s", got)
	}
	w.pass(25 * time.Hour)
	w.hears("pos-1", runs("2.4.1"))
	if got := w.waves(since); got != "[{2 0 0 0 2} {2 1 0 0 1}]" {
		t.Errorf("a day later: %s", got)
	}
	all := offer()
	all.Rollout = nil
	if counts, _ := w.Waves(mt.Stable, all, since, w.clock()); fmt.Sprint(counts) != "[{4 1 0 0 3}]" {
		t.Errorf("without waves: %v", counts)
	}
}

func TestStrangersMoveNoNumber(t *testing.T) {
	w := newWorld(t)
	w.hears("pos-1", state(manifest.StateDownloading, "2.4.1"))
	w.approve("pos-1")
	before := w.waves(time.Time{})
	envs := [][]byte{}
	for i := range fleet.MaxUnapproved + 20 {
		envs = append(envs, w.report(fmt.Sprintf("stranger-%d", i), ring("canary"), func(r *manifest.Report) {
			r.Apps[0].SHA256 = mt.Content("2.4.1")
			r.Events = []manifest.EventCount{{Code: fault.Rollback, Count: 1}}
		}))
	}
	w.pass(time.Second)
	res, err := w.Import(t.Context(), envs)
	if err != nil || res.Taken != len(envs) || res.Unapproved != len(envs) {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := w.waves(time.Time{}); got != before {
		t.Errorf("strangers turned %s into %s", before, got)
	}
	sum, err := w.Summary(t.Context())
	if err != nil || sum.Agents != 1 || sum.Unapproved != fleet.MaxUnapproved || sum.Channels[0].Agents != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
	page, err := w.Events(t.Context(), fleet.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Events {
		if e.Host != "pos-1" {
			t.Errorf("a stranger is in the log: %+v", e)
		}
	}
	w.reopen()
	if sum, _ := w.Summary(t.Context()); sum.Unapproved != fleet.MaxUnapproved {
		t.Errorf("%d strangers after a restart", sum.Unapproved)
	}
}

func TestReportsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.hears("pos-1")
	w.approve("pos-1")
	old := w.report("pos-1", func(r *manifest.Report) { r.Counter -= 10 })
	last := w.report("pos-1")
	far := w.report("pos-1", func(r *manifest.Report) { r.Counter += 3600 })
	forged, err := manifest.DraftReport(&manifest.Report{Repo: w.f.Pin(), Agent: w.f.Key("pos-1").Public().ID(), Counter: 1 << 40,
		Time: w.now, Host: "pos-1", Platform: mt.Platform, AgentVersion: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		name string
		env  []byte
		want fault.Code
	}{
		{"replayed", last, fault.Rollback},
		{"replayed-from-before", old, fault.Rollback},
		{"signed-by-another", w.f.Sign(manifest.TypeReport, forged, "pos-2"), fault.Threshold},
		{"for-another-fleet", w.report("pos-1", func(r *manifest.Report) { r.Repo = manifest.Sum(nil); r.Counter++ }), fault.WrongTarget},
		{"cut-off", last[:len(last)/2], fault.Malformed},
		{"huge", append(last, strings.Repeat(" ", manifest.MaxReport)...), fault.TooLarge},
		{"empty", nil, fault.Malformed},
	} {
		t.Run(r.name, func(t *testing.T) {
			if _, err := w.Take(t.Context(), r.env, fleet.Via{}); fault.CodeOf(err) != r.want {
				t.Errorf("%v, want %s", err, r.want)
			}
		})
	}
	// A clock an hour ahead is the machine's own affair, and so is setting it right again:
	// the counter goes on from there.
	if _, err := w.Take(t.Context(), far, fleet.Via{}); err != nil {
		t.Errorf("an hour ahead: %v", err)
	}
	next := w.report("pos-1", func(r *manifest.Report) { r.Counter = manifest.NextCounter(r.Counter+3600, w.clock()) })
	if _, err := w.Take(t.Context(), next, fleet.Via{}); err != nil {
		t.Errorf("set right again: %v", err)
	}
	if c := w.Counters(); c.Replayed != 2 || c.Bad != 4 || c.Foreign != 1 || c.Taken != 3 {
		t.Errorf("%+v", c)
	}
}

func TestCloneIsNoticed(t *testing.T) {
	w := newWorld(t)
	from := func(run, host string) func(*manifest.Report) {
		return func(r *manifest.Report) { r.Run, r.Host = run, host }
	}
	w.hears("pos-1", from("aaaa", "pos-1"))
	w.approve("pos-1")
	w.hears("pos-1", from("bbbb", "pos-1")) // started again
	w.hears("pos-1", from("cccc", "pos-1"))
	if a, err := w.Find(t.Context(), "pos-1"); err != nil || a.Cloned {
		t.Fatalf("a machine that restarts is taken for two: %+v, %v", a, err)
	}
	w.hears("pos-1", from("bbbb", "pos-2"))
	w.hears("pos-1", from("cccc", "pos-1"))
	a, err := w.Find(t.Context(), "pos-1")
	if err != nil || !a.Cloned {
		t.Fatalf("not noticed: %+v, %v", a, err)
	}
	page, err := w.Events(t.Context(), fleet.EventQuery{Agent: a.ID})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range page.Events {
		if e.Kind == fleet.KindAgentCloned {
			n++
		}
	}
	if n != 1 {
		t.Errorf("logged %d times: %+v", n, page.Events)
	}
	w.pass(25 * time.Hour)
	w.hears("pos-1", from("cccc", "pos-1"))
	if a, _ := w.Find(t.Context(), "pos-1"); a.Cloned {
		t.Error("shown for longer than a day")
	}
}

func TestFloodOfOneKeyIsBounded(t *testing.T) {
	w := newWorld(t)
	w.hears("pos-1")
	w.approve("pos-1")
	limited := 0
	for i := range 100 {
		_, err := w.Take(t.Context(), w.report("pos-1", func(r *manifest.Report) {
			r.Counter += int64(i) + 1
			for range 60 {
				r.Events = append(r.Events, manifest.EventCount{Code: fault.Rollback, Count: 1})
			}
		}), fleet.Via{})
		if errors.Is(err, fault.Quota) {
			limited++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	page, err := w.Events(t.Context(), fleet.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if limited < 60 || len(page.Events) > 250 || w.Counters().Unlogged == 0 {
		t.Errorf("%d of 100 refused, %d events logged", limited, len(page.Events))
	}
}

func TestEventsByNumber(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 30 {
		e := fleet.Event{Kind: "rollout.opened", Text: fmt.Sprint(i)}
		if i%3 == 0 {
			e.Agent = "SHA256:x"
		}
		if err := w.Log(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	texts := func(q fleet.EventQuery) string {
		page, err := w.Events(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range page.Events {
			got = append(got, e.Text)
		}
		return strings.Join(got, " ")
	}
	for q, want := range map[fleet.EventQuery]string{
		{After: 27}:                               "27 28 29",
		{After: 5, Limit: 3}:                      "5 6 7",
		{Last: true, Limit: 2}:                    "28 29",
		{Agent: "SHA256:x", After: 20}:            "21 24 27",
		{Agent: "SHA256:x", Last: true, Limit: 2}: "24 27",
		{Agent: "SHA256:y"}:                       "",
		{Agent: "SHA256:", Last: true}:            "",
		{After: 30}:                               "",
		{After: 1<<64 - 2}:                        "",
	} {
		if got := texts(q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	for range 2 {
		if err := w.LogOnce(ctx, "root 1 7d", fleet.Event{Kind: fleet.KindExpirySoon, Text: "once"}); err != nil {
			t.Fatal(err)
		}
	}
	w.reopen()
	if err := w.LogOnce(ctx, "root 1 7d", fleet.Event{Kind: fleet.KindExpirySoon, Text: "twice"}); err != nil {
		t.Fatal(err)
	}
	if got := texts(fleet.EventQuery{After: 30}); got != "once" {
		t.Errorf("logged once: %q", got)
	}
	// Who waits is woken by what comes.
	got := make(chan string)
	go func() { got <- texts(fleet.EventQuery{After: 31, Wait: time.Minute}) }()
	if err := w.Log(ctx, fleet.Event{Kind: "rollout.halted", Text: "now"}); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "now" {
		t.Errorf("woken with %q", s)
	}
	if err := w.SetCursor("hook", 31); err != nil {
		t.Fatal(err)
	}
	w.pass(91 * 24 * time.Hour)
	if err := w.Log(ctx, fleet.Event{Kind: "rollout.opened", Text: "later"}); err != nil {
		t.Fatal(err)
	}
	if got := texts(fleet.EventQuery{}); got != "later" {
		t.Errorf("after 91 days: %q", got)
	}
	if got := texts(fleet.EventQuery{Agent: "SHA256:x"}); got != "" {
		t.Errorf("after 91 days, of one machine: %q", got)
	}
	w.reopen()
	if n, known, err := w.Cursor("hook"); n != 31 || !known || err != nil {
		t.Errorf("cursor %d, %v", n, err)
	}
	if err := w.Log(ctx, fleet.Event{Kind: "rollout.opened"}); err != nil {
		t.Fatal(err)
	}
	if page, _ := w.Events(ctx, fleet.EventQuery{After: 33}); len(page.Events) != 1 || page.Events[0].Seq != 34 {
		t.Errorf("numbers after a restart: %+v", page)
	}
}

func TestPeopleApproveLabelAndForget(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, name := range []string{"pos-1", "pos-2", "pos-3"} {
		w.hears(name)
	}
	if _, err := w.Approve(ctx, []string{"nobody"}, false); !errors.Is(err, fault.NotFound) {
		t.Errorf("approving nobody: %v", err)
	}
	w.approve("pos-1")
	if got, err := w.Approve(ctx, nil, true); err != nil || len(got) != 2 || !got[0].Approved {
		t.Errorf("approving the rest: %v, %v", got, err)
	}
	if a, err := w.Label(ctx, "pos-2", []manifest.Label{{Name: "floor", Value: "2"}}); err != nil || len(a.Notes) != 1 {
		t.Errorf("%v, %v", a, err)
	}
	if page, err := w.Agents(ctx, fleet.Query{Labels: []manifest.Label{{Name: "floor", Value: "2"}}}); err != nil || len(page.Agents) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	// What somebody wrote into the file by hand stays.
	path := filepath.Join(w.dir, "agents.allow")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, "# mine\n"+w.f.Key("pos-4").Public().String()+" by hand\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Forget(ctx, []string{"pos-1"}); err != nil {
		t.Fatal(err)
	}
	b, _ = os.ReadFile(path)
	if s := string(b); !strings.Contains(s, "# mine\n") || !strings.Contains(s, " by hand\n") || strings.Contains(s, w.f.Key("pos-1").Public().String()) {
		t.Errorf("the file is now:\n%s", b)
	}
	w.hears("pos-4")
	w.hears("pos-1")
	for name, want := range map[string]bool{"pos-1": false, "pos-2": true, "pos-4": true} {
		if a, err := w.Find(ctx, name); err != nil || a.Approved != want {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	w.pass(91 * 24 * time.Hour)
	w.reopen()
	if page, err := w.Agents(ctx, fleet.Query{}); err != nil || len(page.Agents) != 0 {
		t.Errorf("after 91 days there are %d machines, %v", len(page.Agents), err)
	}
	if err := os.WriteFile(path, []byte("ssh-rsa AAAA\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := fleet.Open(w.cfg); !errors.Is(err, fault.BadKey) {
		t.Errorf("with a key that is none: %v", err)
	}
	os.Remove(path)
	w.open()
}

// What a machine calls itself, be it another's id, never makes it count.
func TestOnlyAKeyIsApproved(t *testing.T) {
	w := newWorld(t)
	id := func(name string) string { return string(w.f.Key(name).Public().ID()) }
	w.hears("pos-1")
	w.hears("impostor", func(r *manifest.Report) { r.Host = id("pos-2") })
	refused := func(name string, want fault.Code) {
		t.Helper()
		if got, err := w.Approve(t.Context(), []string{name}, false); fault.CodeOf(err) != want {
			t.Errorf("%q: %v, %v, want %s", name, got, err, want)
		}
	}
	refused("pos-1", fault.Usage)
	refused(id("pos-2"), fault.Usage) // it has not reported yet: only the impostor has that name
	refused(id("pos-1")[:len("SHA256:")+4], fault.Usage)
	refused("SHA256:", fault.NotFound)
	refused("", fault.NotFound)
	if sum, err := w.Summary(t.Context()); err != nil || sum.Agents != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
	w.hears("pos-2")
	for _, name := range []string{id("pos-1")[:len("SHA256:")+8], strings.TrimPrefix(id("pos-2"), "SHA256:")} {
		if got, err := w.Approve(t.Context(), []string{name}, false); err != nil || len(got) != 1 {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for name, want := range map[string]bool{"pos-1": true, "pos-2": true, "impostor": false} {
		if a, err := w.Find(t.Context(), id(name)); err != nil || a.Approved != want {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestMembersCountWhereThePublisherSaysSo(t *testing.T) {
	w := newWorld(t, func(c *fleet.Config) { c.Approve = fleet.ApproveMembers })
	from := netip.MustParseAddr("192.0.2.1")
	for name, via := range map[string]fleet.Via{"member": {From: from, Member: true}, "stranger": {From: from}} {
		if _, err := w.Take(t.Context(), w.report(name), via); err != nil {
			t.Fatal(err)
		}
	}
	w.hears("member") // in a file: it is a member all the same
	if sum, _ := w.Summary(t.Context()); sum.Agents != 1 || sum.Unapproved != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestPagesHaveEveryMachineOnce(t *testing.T) {
	w := newWorld(t)
	var envs [][]byte
	for i := range 250 {
		envs = append(envs, w.report(fmt.Sprintf("pos-%d", i)))
	}
	if _, err := w.Import(t.Context(), envs); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for q := (fleet.Query{State: fleet.StateUnapproved}); ; {
		page, err := w.Agents(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Agents {
			seen[a.Report.Host]++
		}
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if len(seen) != 250 {
		t.Errorf("%d machines", len(seen))
	}
	for host, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", host, n)
		}
	}
}

func TestOneProcessHasTheStore(t *testing.T) {
	w := newWorld(t)
	if _, err := fleet.Open(w.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("opened twice: %v", err)
	}
	other := w.cfg
	other.Repo = manifest.FleetID(manifest.Sum([]byte("other")))
	w.Close()
	if _, err := fleet.Open(other); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("opened for another fleet: %v", err)
	}
	w.open()
}

func TestCancelledWaiting(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Events(ctx, fleet.EventQuery{Wait: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
