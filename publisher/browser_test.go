package publisher

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"shoal/manifest"
)

const (
	axeFile = "testdata/axe/axe.min.js"
	axeHash = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
)

// chromium is a browser, and what it complained of.
type chromium struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // guards what follows
	ran      []string   // scripts of others that ran, and dialogs
	refused  []string   // what the policy kept from happening, and errors
	requests []string
}

// browse starts a browser, or skips where there is none.
func browse(t *testing.T) *chromium {
	t.Helper()
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("skipped: it takes a browser: make test-web")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("skipped: there is no Chromium here")
	}
	profile, err := os.MkdirTemp("", "shoal-browser-")
	if err != nil {
		t.Fatal(err)
	}
	// Its processes write for a moment after it has ended.
	t.Cleanup(func() {
		until(t, "the browser to leave its files", func() bool { return os.RemoveAll(profile) == nil })
	})
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 1600),
		chromedp.Flag("no-proxy-server", true), chromedp.UserDataDir(profile))
	alloc, end := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(end)
	c := &chromium{t: t}
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		chromedp.Cancel(ctx)
		stop()
	})
	c.ctx = ctx
	chromedp.ListenTarget(ctx, func(e any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch e := e.(type) {
		case *page.EventJavascriptDialogOpening:
			c.ran = append(c.ran, "dialog "+e.Message)
		case *runtime.EventBindingCalled:
			c.ran = append(c.ran, e.Name)
		case *runtime.EventExceptionThrown:
			c.refused = append(c.refused, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError {
				c.refused = append(c.refused, e.Entry.Text+" "+e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			c.requests = append(c.requests, e.Request.URL)
		}
	})
	c.do(log.Enable(), network.Enable(), runtime.AddBinding("pwned"))
	return c
}

func (c *chromium) do(actions ...chromedp.Action) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	if c.ctx.Err() == nil && chromedp.FromContext(c.ctx).Target == nil {
		ctx = c.ctx // the first one starts the browser, which ends with its context
	}
	if err := chromedp.Run(ctx, actions...); err != nil {
		c.t.Fatal(err)
	}
}

// calm fails when something ran or was asked for that the pages have no part in.
func (c *chromium) calm(base string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ran) > 0 {
		c.t.Errorf("what a machine said ran: %q", c.ran)
	}
	for _, r := range c.refused {
		c.t.Errorf("the browser complains: %s", r)
	}
	for _, r := range c.requests {
		if !strings.HasPrefix(r, base) && r != "about:blank" {
			c.t.Errorf("the page asks for %s", r)
		}
	}
}

// text is what a person reads; nothing where there is no such place. It is asked for in
// one step, since what a live page shows may be replaced between two.
func (c *chromium) text(selector string) string {
	c.t.Helper()
	var s string
	c.do(chromedp.Evaluate(fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector), &s))
	return s
}

// until waits for the page to say something.
func (c *chromium) until(what, selector string) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%q in %s", what, selector), func() bool { return strings.Contains(c.text(selector), what) })
}

// press clicks a button that leads to another page, or to this one anew, and waits for that:
// what is seen and done before is seen and done on the page that goes.
func (c *chromium) press(selector string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(selector, chromedp.ByQuery)); err != nil {
		c.t.Fatal(err)
	}
}

// complains waits until the browser has said that it was refused something, and forgets it:
// it may say so after the page has its answer.
func (c *chromium) complains(of string) {
	c.t.Helper()
	until(c.t, "the browser to complain of "+of, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, r := range c.refused {
			if strings.Contains(r, of) {
				c.refused = slices.Delete(c.refused, i, i+1)
				return true
			}
		}
		return false
	})
}

// axe fails for what keeps people from using the page.
func (c *chromium) axe(name string) {
	c.t.Helper()
	src, err := os.ReadFile(axeFile)
	if err != nil {
		c.t.Fatal(err)
	}
	if sum := sha256.Sum256(src); hex.EncodeToString(sum[:]) != axeHash {
		c.t.Fatalf("%s is not what it was: %x", axeFile, sum)
	}
	var raw string
	c.do(chromedp.Evaluate(string(src)+"\n;1", nil),
		chromedp.Evaluate(`axe.run().then(r => JSON.stringify({v: r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 160) + " " + n.failureSummary).join(" | ")), p: r.passes.length}))`,
			&raw, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	var r struct {
		V []string
		P int
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil || r.P < 10 {
		c.t.Fatalf("axe on %s: %v, %d rules passed: %.300s", name, err, r.P, raw)
	}
	for _, v := range r.V {
		c.t.Errorf("%s: %s", name, v)
	}
}

func (c *chromium) scheme(dark bool) {
	value := "light"
	if dark {
		value = "dark"
	}
	c.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}))
}

// login opens the one-use link, as an operator does.
func (c *chromium) login(w *watched) {
	c.t.Helper()
	c.do(chromedp.Navigate(w.Login()), chromedp.Click("form button", chromedp.ByQuery), chromedp.WaitVisible("#f-tiles", chromedp.ByQuery))
}

// shot keeps a picture where SHOAL_SHOTS says, for people to look at.
func (c *chromium) shot(name string) {
	dir := os.Getenv("SHOAL_SHOTS")
	if dir == "" {
		return
	}
	var b []byte
	c.do(chromedp.FullScreenshot(&b, 100))
	if err := os.WriteFile(dir+"/"+name+".png", b, 0o644); err != nil {
		c.t.Error(err)
	}
}

// crowd is a fleet with machines of every kind.
func crowd(t *testing.T) (*watched, *PublishResult, string) {
	t.Helper()
	f := newFleet(t, 1, "release-1@acme")
	old := f.publish("1.0.0", "one")
	f.now = f.now.Add(time.Second)
	res := f.publish("2.0.0", strings.Repeat("two", 1<<18))
	w := watch(t, f)
	names := []string{}
	for i := range 12 {
		name := fmt.Sprintf("pos-%04d", i)
		names = append(names, string(w.reports(name, manifest.StateHealthy, old.Artifacts[0].SHA256, func(r *manifest.Report) {
			r.Labels = []manifest.Label{{Name: "site", Value: []string{"munich", "lyon", "graz"}[i%3]}}
			r.Apps[0].Bytes = manifest.ByteCount{LAN: 40 << 20, WAN: 6 << 20, Origin: 2 << 20, Given: 30 << 20}
		})))
	}
	bad := string(w.reports("evil", manifest.StateHealthy, old.Artifacts[0].SHA256, says))
	for _, id := range append(names, bad) {
		if r, b := w.request("/api/v1/agents/"+url.PathEscape(id)+"/approve", "{}", bearer(testOperator)...); r.StatusCode != 200 {
			t.Fatalf("approving: %s %s", r.Status, b)
		}
	}
	w.reports("evil", manifest.StateHealthy, old.Artifacts[0].SHA256, says)
	w.reports("stranger", manifest.StateHealthy, old.Artifacts[0].SHA256, says)
	return w, res, bad
}

// Nothing that a machine says runs, on any page, and nothing keeps a person from using
// one, in light and in dark.
func TestLongWebPages(t *testing.T) {
	c := browse(t)
	w, _, bad := crowd(t)
	c.login(w)
	all := append(pages, "/agents/"+url.PathEscape(bad), "/agents?state=failed&q="+url.QueryEscape(evil), "/login", "/agents/nobody")
	for _, dark := range []bool{false, true} {
		c.scheme(dark)
		for i, path := range all {
			c.mu.Lock()
			c.refused = nil // a page that says "not found" is one, to the browser
			c.mu.Unlock()
			c.do(chromedp.Navigate(w.url(path)), chromedp.WaitReady("footer", chromedp.ByQuery))
			c.do(chromedp.Evaluate(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil))
			c.axe(fmt.Sprintf("%s (dark: %v)", path, dark))
			c.shot(fmt.Sprintf("page-%d-%v", i, dark))
			if !strings.HasSuffix(path, "nobody") {
				c.calm(w.url("/"))
			}
		}
	}
	if got := c.text("body"); strings.Contains(got, "<img") {
		t.Error("the last page is another one") // it has none of their words
	}
	c.do(chromedp.Navigate(w.url("/agents/"+url.PathEscape(bad))), chromedp.WaitReady("footer", chromedp.ByQuery))
	if got := c.text("main"); !strings.Contains(got, "<img src=x onerror=pwned()>") {
		t.Errorf("a machine's words are not shown as it said them: %.500s", got)
	}
}

// A rollout is watched from its beginning to its end on a page that is loaded once.
func TestLongWebRolloutLive(t *testing.T) {
	c := browse(t)
	w, res, _ := crowd(t)
	c.login(w)
	c.until("0 of 13", "#f-tiles")
	var before float64
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &before))
	c.do(chromedp.Evaluate(`document.querySelector("#d-0").open = true`, nil))
	digest := res.Artifacts[0].SHA256
	stand := func(name string, state manifest.AppState) {
		w.reports(name, state, digest, func(r *manifest.Report) { r.Apps[0].Version, r.Apps[0].Sequence = "2.0.0", 2 })
	}
	for i := range 12 {
		stand(fmt.Sprintf("pos-%04d", i), manifest.StateDownloading)
	}
	c.until("13 working", "#f-channel-0")
	for i := range 12 {
		name := fmt.Sprintf("pos-%04d", i)
		if i == 7 {
			stand(name, manifest.StateFailed)
			continue
		}
		stand(name, manifest.StateHealthy)
		if i == 3 {
			c.until(" of 13", "#f-tiles")
		}
	}
	c.until("11 of 13", "#f-tiles")
	c.until("pos-0007", "#f-trouble")
	stand("pos-0007", manifest.StateHealthy)
	w.reports("evil", manifest.StateHealthy, digest, func(r *manifest.Report) { r.Apps[0].Version = "2.0.0" })
	c.until("13 of 13", "#f-tiles")
	c.until("Live", "#live")
	var after float64
	var open bool
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &after), chromedp.Evaluate(`document.querySelector("#d-0").open`, &open))
	if before != after {
		t.Error("the page was loaded again")
	}
	if !open {
		t.Error("what a person had opened is shut")
	}
	c.shot("done")
	c.calm(w.url("/"))
}

// Without JavaScript everything can be read, and an operator can do everything.
func TestLongWebWithoutJavaScript(t *testing.T) {
	c := browse(t)
	w, _, _ := crowd(t)
	c.do(emulation.SetScriptExecutionDisabled(true))
	c.login(w)
	for _, path := range pages {
		c.do(chromedp.Navigate(w.url(path)), chromedp.WaitReady("footer", chromedp.ByQuery))
		if got := c.text("main"); len(got) < 100 {
			t.Errorf("%s says %q", path, got)
		}
	}
	c.do(chromedp.Navigate(w.url("/agents?state=unapproved")), chromedp.Click("#f-agents tbody a", chromedp.ByQuery),
		chromedp.WaitVisible("dl.facts", chromedp.ByQuery), chromedp.Click(`form[action$="/approve"] button`, chromedp.ByQuery),
		chromedp.WaitVisible("dl.facts .s-healthy", chromedp.ByQuery))
	if got := c.text("dl.facts"); !strings.Contains(got, "approved") {
		t.Errorf("after it was approved the machine's page says %q", got)
	}
	c.calm(w.url("/"))
}

// A page elsewhere can neither read what is here nor have the browser do something, with
// an operator who is logged in, and by whatever name it gives this publisher.
func TestLongWebForeignPage(t *testing.T) {
	c := browse(t)
	w, _, bad := crowd(t)
	c.login(w)
	foreign := `<!doctype html><title>elsewhere</title><form method=post action="` + w.url("/agents/"+url.PathEscape(bad)+"/forget") + `"><input name=csrf value=0><button>win</button></form>`
	chromedp.ListenTarget(c.ctx, func(e any) {
		if e, ok := e.(*fetch.EventRequestPaused); ok {
			go chromedp.Run(c.ctx, fetch.FulfillRequest(e.RequestID, 200).WithResponseHeaders([]*fetch.HeaderEntry{{Name: "Content-Type", Value: "text/html"}}).WithBody(base64.StdEncoding.EncodeToString([]byte(foreign))))
		}
	})
	c.do(fetch.Enable().WithPatterns([]*fetch.RequestPattern{{URLPattern: "http://elsewhere.example/*"}}))
	c.do(chromedp.Navigate("http://elsewhere.example/"), chromedp.WaitVisible("form button", chromedp.ByQuery))
	var read string
	c.do(chromedp.Evaluate(`fetch("`+w.url("/api/v1/overview")+`", {credentials: "include"}).then(r => r.text()).catch(e => "kept out")`, &read,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if read != "kept out" {
		t.Errorf("a page elsewhere reads %.200s", read)
	}
	c.do(chromedp.Click("form button", chromedp.ByQuery), chromedp.WaitVisible("main", chromedp.ByQuery))
	if got := c.text("main"); !strings.Contains(got, "Not done") && !strings.Contains(got, "Log in") {
		t.Errorf("a form elsewhere ends at %q", got)
	}
	if r, _ := w.request("/api/v1/agents/"+url.PathEscape(bad), ""); r.StatusCode != 200 {
		t.Error("a form elsewhere had a machine forgotten")
	}
}
