package publisher

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/rollout"
)

// waves are the machines of each wave, by their ring; those of the last have none.
var waves = [][]string{{"canary-1", "canary-2", "canary-3"}, {"early-1", "early-2", "early-3", "early-4"}, {"pos-1", "pos-2", "pos-3", "pos-4", "pos-5"}}

// stage is a publisher that steers rollouts, and machines that run 1.0.0 and are approved.
type stage struct {
	*watched
	old manifest.Digest
}

func newStage(t *testing.T) *stage {
	t.Helper()
	f := newFleet(t, 1, "release-1@acme")
	beacon := f.withBeacon()
	old := f.publish("1.0.0", "one")
	f.cfg.Clock, f.cfg.Serve.Beacon = time.Now, beacon
	s := &stage{watch(t, f), old.Artifacts[0].SHA256}
	for _, names := range waves {
		for _, name := range names {
			id := s.stands(name, manifest.StateHealthy, s.old, "1.0.0")
			if r, b := s.request("/api/v1/agents/"+url.PathEscape(string(id))+"/approve", "{}", bearer(testOperator)...); r.StatusCode != 200 {
				t.Fatalf("approving: %s %s", r.Status, b)
			}
		}
	}
	return s
}

// stands has a machine report how it stands with what is offered.
func (s *stage) stands(name string, state manifest.AppState, runs manifest.Digest, version string) keys.ID {
	s.t.Helper()
	return s.reports(name, state, runs, func(r *manifest.Report) {
		r.Time = time.Now().UTC().Truncate(time.Second)
		r.Apps[0].Version = version
		if ring, _, _ := strings.Cut(name, "-"); ring != "pos" {
			r.Labels = []manifest.Label{{Name: "ring", Value: ring}}
		}
	})
}

// release publishes 2.0.0 in three waves.
func (s *stage) release(soak time.Duration) manifest.Digest {
	s.t.Helper()
	req := s.testFleet.request("2.0.0", strings.Repeat("two", 1<<16), s.testFleet.release...)
	req.Plan, req.Start = &rollout.Plan{Waves: []string{"ring:canary", "ring:early", "100%"}, Soak: soak}, true
	res, err := s.open().Publish(s.t.Context(), req)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.Artifacts[0].SHA256
}

// brake is what the beacon says to a machine that has the pin and asks over HTTP, and what
// it is about.
func (s *stage) brake() (manifest.Brake, *manifest.Manifest) {
	s.t.Helper()
	take := func(name string) []byte {
		code, b := s.get("/" + name)
		if code != 200 {
			s.t.Fatalf("%s: status %d", name, code)
		}
		return b
	}
	first := take(tree.Root(1))
	env, err := manifest.ParseEnvelope(first, manifest.TypeRoot)
	if err != nil {
		s.t.Fatal(err)
	}
	trust, _, err := manifest.Pin(first, env.PayloadHash(), manifest.Options{Clock: time.Now})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := trust.UpdateRoot(take(tree.Root(2))); err != nil {
		s.t.Fatal(err)
	}
	cycle, err := trust.Begin()
	if err != nil {
		s.t.Fatal(err)
	}
	v, _, err := cycle.Manifest(stable, take(tree.Manifest(stable)))
	if err != nil {
		s.t.Fatal(err)
	}
	// The beacon of what was published a moment ago may be that of the release before.
	if _, events := cycle.Beacon(stable, take(tree.Beacon(stable))); len(events) > 0 && events[0].Code != fault.Rollback {
		s.t.Fatalf("the beacon: %+v", events)
	}
	return cycle.Brake(stable), v.Manifest
}

// may says which waves the beacon lets begin: "1", "12", or nothing.
func (s *stage) may() string {
	s.t.Helper()
	b, m := s.brake()
	if b.Hold || b.Freshness != manifest.FreshCurrent {
		return ""
	}
	open := ""
	for i := range waves {
		var rings []string
		if i < len(waves)-1 {
			rings = []string{m.Rollout.Waves[i].Rings[0]}
		}
		// No cohort is below 0 %, so it is the ring that counts.
		if m.Rollout.Turn(time.Now(), b.Gate(), manifest.Cohorts-1, rings).Open {
			open += fmt.Sprint(i + 1)
		}
	}
	return open
}

// record has the page note what its table of waves says, whenever that changes.
const record = `window.said = [];
new MutationObserver(() => {
  const now = JSON.stringify(Array.from(document.querySelectorAll("table.waves tbody tr"), (r) => ({Open: r.classList.contains("open"), Healthy: r.cells[3].innerText, Gate: r.cells[7].innerText})));
  if (said.at(-1) !== now) said.push(now);
}).observe(document.querySelector("main"), {childList: true, subtree: true}); 1`

type row struct {
	Open          bool
	Healthy, Gate string
}

// A rollout in three waves is watched on a page that is opened once, before there is one,
// and never again: each gate opens when the wave before it is well and has soaked.
func TestLongWebWaves(t *testing.T) {
	c := browse(t)
	s := newStage(t)
	c.do(chromedp.Navigate(s.url("/")), chromedp.WaitVisible("#f-tiles", chromedp.ByQuery))
	c.until("12 of 12", "#f-tiles")
	c.until("Live", "#live")
	var before, after float64
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &before), chromedp.Evaluate(record, nil))

	const gate = "table.waves tbody tr:nth-child(%d) td:last-child"
	const healthy = "table.waves tbody tr:nth-child(%d) td:nth-child(4)"
	next := s.release(6 * time.Second)
	c.until("running", "#c-0")
	c.until("0 of 12", "#f-tiles")
	for i, names := range waves {
		wave := i + 1
		c.until("open", fmt.Sprintf(gate, wave))
		until(t, fmt.Sprintf("the beacon to let wave %d begin", wave), func() bool { return s.may() == "123"[:wave] })
		for _, name := range names {
			s.stands(name, manifest.StateDownloading, s.old, "1.0.0")
		}
		c.until(fmt.Sprint(len(names)), strings.Replace(fmt.Sprintf(healthy, wave), "(4)", "(5)", 1)) // working
		for done, name := range names {
			if wave == 2 && done == len(names)-1 {
				c.until("waits for wave 2", fmt.Sprintf(gate, 3))
			}
			s.stands(name, manifest.StateHealthy, next, "2.0.0")
			c.until(fmt.Sprintf("%d/%d", done+1, len(names)), fmt.Sprintf(healthy, wave))
		}
	}
	c.until("finished", "#c-0")
	c.until("12 of 12", "#f-tiles")
	c.shot("waves")

	var said []string
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &after), chromedp.Evaluate(`said`, &said))
	if before != after {
		t.Error("the page was loaded again")
	}
	waited := map[int]bool{}
	for n, text := range said {
		var rows []row
		if err := json.Unmarshal([]byte(text), &rows); err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			continue // before the release
		}
		if len(rows) != len(waves) {
			t.Fatalf("it showed %d waves: %s", len(rows), text)
		}
		for i, r := range rows {
			whole := fmt.Sprintf("%d/%d", len(waves[i]), len(waves[i]))
			if i > 0 && r.Open && rows[i-1].Healthy != fmt.Sprintf("%d/%d", len(waves[i-1]), len(waves[i-1])) {
				t.Errorf("%d: wave %d is shown open before wave %d was well: %s", n, i+1, i, text)
			}
			if !r.Open && r.Healthy != "0"+whole[1:] {
				t.Errorf("%d: wave %d is shut and has %s: %s", n, i+1, r.Healthy, text)
			}
			waited[i+1] = waited[i+1] || strings.Contains(r.Gate, "waits for ")
		}
	}
	if !waited[2] || !waited[3] {
		t.Errorf("it did not show what each gate waited for: %q", said)
	}
	if !slices.ContainsFunc(said, func(text string) bool { return strings.Contains(text, `"Healthy":"2/4"`) }) {
		t.Errorf("it did not show each count: %q", said)
	}
	c.calm(s.url("/"))
}

// Who is logged in as an operator holds, resumes, promotes and halts a rollout with the
// buttons of the page; machines are told by the beacon, everybody else's page says so, and
// a viewer can only look.
func TestLongWebBrakes(t *testing.T) {
	operator, viewer := browse(t), browse(t)
	s := newStage(t)
	operator.login(s.watched)
	viewer.do(chromedp.Navigate(s.url("/login")), chromedp.SendKeys("input[name=token]", testViewer, chromedp.ByQuery),
		chromedp.Click("form button", chromedp.ByQuery), chromedp.WaitVisible("#f-tiles", chromedp.ByQuery))
	var loaded, still float64
	viewer.do(chromedp.Evaluate(`performance.timeOrigin`, &loaded))
	if got := viewer.text(".who"); !strings.Contains(got, "viewer · looker") {
		t.Errorf("the viewer is %q", got)
	}
	// The buttons come with the rollout, on a page that was there before it.
	s.release(time.Second) // no machine takes it, so no gate opens by itself
	operator.do(chromedp.WaitVisible("button.pause", chromedp.ByQuery))
	until(t, "wave 1 to begin", func() bool { return s.may() == "1" })

	press := func(action, reason string) {
		t.Helper()
		form := fmt.Sprintf(`form[action="/rollouts/acme/stable/%s"]`, action)
		if reason != "" {
			operator.do(chromedp.SendKeys(form+" input[name=reason]", reason, chromedp.ByQuery))
		}
		operator.press(form + " button")
	}
	both := func(what, selector string) {
		t.Helper()
		operator.until(what, selector)
		viewer.until(what, selector)
	}
	buttons := func(want string) {
		t.Helper()
		operator.until(want, "#f-brake-0")
		var all []string
		operator.do(chromedp.Evaluate(`Array.from(document.querySelectorAll("#f-brake-0 button"), (b) => b.innerText)`, &all))
		if got := strings.Join(all, " "); got != want {
			t.Errorf("the operator can %q, want %q", got, want)
		}
	}
	// tries has the viewer send what a button would, from a page of ours and with its mark.
	tries := func(action string) {
		t.Helper()
		if got := viewer.text("#f-brake-0"); got != "" {
			t.Errorf("the viewer has %q", got)
		}
		var status int
		viewer.do(chromedp.Evaluate(`fetch("/login").then((r) => r.text()).then((page) => fetch("/rollouts/acme/stable/`+action+`", {method: "POST", redirect: "manual",
			body: new URLSearchParams({csrf: /name="csrf" value="([0-9a-f]+)"/.exec(page)[1], reason: "by a viewer"})})).then((r) => r.status)`, &status,
			func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
		if status != 403 {
			t.Errorf("a viewer who wants to %s gets %d", action, status)
		}
		viewer.complains("403")
	}

	tries("pause")
	press("pause", "the support line is <b>closed</b>")
	both("held", "#c-0")
	both("the support line is <b>closed</b>", "#f-channel-0")
	if b, _ := s.brake(); !b.Hold || b.Reason != "the support line is <b>closed</b>" || s.may() != "" {
		t.Errorf("machines are told %+v", b)
	}
	buttons("resume")
	tries("resume")
	if b, _ := s.brake(); !b.Hold {
		t.Error("a viewer has resumed it")
	}

	press("resume", "")
	both("running", "#c-0")
	both("waits for wave 1", "table.waves tbody tr:nth-child(2) td:last-child")
	if got := s.may(); got != "1" {
		t.Errorf("once resumed the waves %q may begin", got)
	}

	press("promote", "")
	both("open", "table.waves tbody tr:nth-child(2) td:last-child")
	if got := s.may(); got != "12" {
		t.Errorf("once promoted the waves %q may begin", got)
	}
	tries("promote")

	// What somebody is writing outlives what the page draws again.
	const why = `#f-brake-0 form[action$="/halt"] input[name=reason]`
	operator.do(chromedp.SendKeys(why, "it cra", chromedp.ByQuery))
	if r, b := s.request("/api/v1/rollouts/acme/stable/promote", "{}", bearer(testOperator)...); r.StatusCode != 200 {
		t.Fatalf("promoting: %s %s", r.Status, b)
	}
	both("finished", "#c-0")
	until(t, "the button of the last gate to go", func() bool { return !strings.Contains(operator.text("#f-brake-0"), "promote") })
	operator.do(chromedp.SendKeys(why, "shes", chromedp.ByQuery))
	operator.press(`#f-brake-0 button.halt`)
	both("held", "#c-0")
	both("it crashes", "#f-channel-0")
	if b, _ := s.brake(); !b.Hold || b.Reason != "it crashes" {
		t.Errorf("machines are told %+v", b)
	}
	buttons("resume")

	operator.do(chromedp.Navigate(s.url("/audit")), chromedp.WaitReady("footer", chromedp.ByQuery))
	log := operator.text("#f-audit")
	for _, kind := range []string{rollout.Paused, rollout.Resumed, rollout.Promoted, rollout.Halted} {
		if !strings.Contains(log, kind) {
			t.Errorf("the log has no %s: %s", kind, log)
		}
	}
	if strings.Contains(log, "by a viewer") {
		t.Errorf("a viewer is in the log: %s", log)
	}
	if viewer.do(chromedp.Evaluate(`performance.timeOrigin`, &still)); loaded != still {
		t.Error("the viewer's page was loaded again")
	}
	operator.calm(s.url("/"))
	viewer.calm(s.url("/"))
}
