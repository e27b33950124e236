package publisher

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/publisher/api"
	"shoal/publisher/fleet"
	members "shoal/swarm/fleet"
)

const (
	testViewer   = "viewer-viewer-viewer-viewer-viewer"
	testOperator = "operator-operator-operator-operator"
)

// evil is what a machine says where it can: it would run, if it were taken for HTML, in
// an attribute or in a script.
const evil = `"'><img src=x onerror=pwned()><script>pwned()</script></td>{{.}}javascript:pwned()`

// watched is a publisher with a page, and machines that report.
type watched struct {
	*served
	machines map[string]keys.Signer
	counter  int64
}

func watch(t testing.TB, f *testFleet) *watched {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("viewer looker "+testViewer+"\noperator doer "+testOperator+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.cfg.UI.TokensFile = path
	return &watched{served: serve(t, f), machines: map[string]keys.Signer{}}
}

// reports has a machine report. It runs version, and stands so.
func (w *watched) reports(name string, state manifest.AppState, sha256 manifest.Digest, change ...func(*manifest.Report)) keys.ID {
	w.t.Helper()
	key := w.machines[name]
	if key == nil {
		key = keystest.New(w.t, name)
		w.machines[name] = key
	}
	w.counter++
	r := &manifest.Report{
		Repo: manifest.Digest(w.fleetID()), Agent: key.Public().ID(), Counter: w.counter, Time: w.now,
		Host: name, Platform: manifest.Platform{OS: "linux", Arch: "amd64"}, AgentVersion: "1.0.0", RootVersion: 1,
		Apps: []manifest.AppReport{{
			App: "acme", Channel: "stable", Epoch: 1, Sequence: 1, Version: "1.0.0", SHA256: sha256, Offered: sha256,
			State: state, Freshness: manifest.FreshCurrent, Bytes: manifest.ByteCount{LAN: 900, Origin: 100},
		}},
	}
	if state != manifest.StateHealthy {
		r.Apps[0].Why = &manifest.Why{Code: "health_failed", Text: "exit status 3"}
	}
	for _, c := range change {
		c(r)
	}
	payload, err := manifest.DraftReport(r)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.Post(w.url(fleet.ReportsPath), "application/json", bytes.NewReader(w.sign(payload, manifest.TypeReport, key)))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		w.t.Fatalf("a report: %s %s", res.Status, b)
	}
	return key.Public().ID()
}

func (w *watched) fleetID() manifest.FleetID {
	id, err := w.open().repo.FleetID()
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// says has a machine say evil things wherever it can.
func says(r *manifest.Report) {
	r.Host = evil
	r.Labels = []manifest.Label{{Name: "site", Value: evil}, {Name: "ring", Value: evil}}
	a := &r.Apps[0]
	a.State, a.Version = manifest.StateFailed, "1.0.0-onerror"
	a.Why = &manifest.Why{Code: "pwned", Text: evil, Next: evil}
	r.Events = []manifest.EventCount{{Code: "pwned", Count: 2, Detail: evil}}
}

// request sends one with headers, as pairs; a body makes it a POST of a form.
func (w *watched) request(path, body string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequest(method, w.url(path), strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, string(b)
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// browser logs in and returns a client that has the cookie.
func (w *watched) browser(token string) *http.Client {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	res, err := c.Get(w.url("/login"))
	if err != nil {
		w.t.Fatal(err)
	}
	res2, err := c.PostForm(w.url("/login"), url.Values{"csrf": {csrf(w.t, res)}, "token": {token}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer res2.Body.Close()
	if res2.StatusCode != http.StatusOK || res2.Request.URL.Path != "/" {
		w.t.Fatalf("logging in ends at %s with %s", res2.Request.URL, res2.Status)
	}
	return c
}

var csrfField = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

func csrf(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := csrfField.FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s has no form: %.200s", res.Request.URL, b)
	}
	return string(m[1])
}

var pages = []string{"/", "/agents", "/agents?trouble=1", "/releases", "/swarm", "/audit"}

// Every page is there, small, without a word of a machine's as HTML, and has a twin in JSON.
func TestPages(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	w := watch(t, f)
	good := w.reports("pos-1", manifest.StateHealthy, res.Artifacts[0].SHA256)
	bad := w.reports("pos-2", manifest.StateHealthy, res.Artifacts[0].SHA256, says)
	for _, id := range []keys.ID{good, bad} {
		if r, b := w.request("/api/v1/agents/"+url.PathEscape(string(id))+"/approve", "{}", bearer(testOperator)...); r.StatusCode != http.StatusOK {
			t.Fatalf("approving: %s %s", r.Status, b)
		}
	}
	w.reports("pos-2", manifest.StateHealthy, res.Artifacts[0].SHA256, says) // and now it is logged
	twin := regexp.MustCompile(`<a href="([^"]+)">This page as JSON`)
	for _, path := range append(pages, "/audit?before=3", "/agents/"+url.PathEscape(string(bad))) {
		r, body := w.request(path, "")
		if r.StatusCode != http.StatusOK || len(body) > 300<<10 {
			t.Errorf("%s: %s, %d bytes", path, r.Status, len(body))
		}
		if got := r.Header.Get("Content-Security-Policy"); got != "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:" {
			t.Errorf("%s: policy %q", path, got)
		}
		for _, word := range []string{"<img", "onerror=pwned()>", "pwned()</script>", `href="javascript`, "<style", " style=", " onclick"} {
			if strings.Contains(body, word) {
				t.Errorf("%s has %q", path, word)
			}
		}
		m := twin.FindStringSubmatch(body)
		if m == nil {
			t.Errorf("%s has no twin", path)
			continue
		}
		m[1] = html.UnescapeString(m[1])
		r, body = w.request(m[1], "")
		if !json.Valid([]byte(body)) || r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("the twin %s of %s: %s %.200s", m[1], path, r.Status, body)
		}
		if again, body := w.request(m[1], "", "If-None-Match", r.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("the twin %s again: %s", m[1], again.Status)
		}
	}
	_, body := w.request("/", "")
	for _, words := range []string{`<p class="big">1<span class="of"> of 2</span>`, `<code>pwned</code>`, "manifest acme/stable"} {
		if !strings.Contains(body, words) {
			t.Errorf("the first page does not say %q", words)
		}
	}
	if r, _ := w.request("/agents/nobody", ""); r.StatusCode != http.StatusNotFound {
		t.Errorf("a machine that is not there: %s", r.Status)
	}
	if r, _ := w.request("/agents?channel=acme&label=x", ""); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a filter that is none: %s", r.Status)
	}
}

// Who may not look gets nothing, and who may only look does nothing.
func TestWhoMayLookAndDo(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	w := watch(t, f)
	id := w.reports("pos-1", manifest.StateHealthy, res.Artifacts[0].SHA256)
	agent := "/agents/" + url.PathEscape(string(id))
	operator, viewer := w.browser(testOperator), w.browser(testViewer)
	cookie := func(c *http.Client) string {
		u, _ := url.Parse(w.url("/"))
		return c.Jar.Cookies(u)[0].String()
	}
	page, err := operator.Get(w.url(agent))
	if err != nil {
		t.Fatal(err)
	}
	good := "csrf=" + csrf(t, page)
	own := "csrf=" + csrf(t, mustGet(t, viewer, w.url("/login"))) // what the viewer's own pages have
	for _, row := range []struct {
		name    string
		path    string
		body    string
		headers []string
		status  int
	}{
		{"loopback", "/", "", nil, 200},
		{"foreign-host", "/", "", []string{"Host", "evil.example"}, 421},
		{"foreign-host-with-the-port", "/api/v1/agents", "", []string{"Host", "evil.example:7800"}, 421},
		{"foreign-host-with-a-cookie", "/", "", []string{"Host", "evil.example", "Cookie", cookie(operator)}, 421},
		{"foreign-host-metrics", "/metrics", "", []string{"Host", "evil.example"}, 421},
		{"foreign-host-posts", agent + "/approve", good, []string{"Host", "evil.example", "Cookie", cookie(operator)}, 421},
		{"proxy", "/", "", []string{"X-Forwarded-For", "10.0.0.9"}, 401},
		{"proxy-api", "/api/v1/overview", "", []string{"Forwarded", "for=10.0.0.9"}, 401},
		{"proxy-metrics", "/metrics", "", []string{"X-Forwarded-For", "10.0.0.9"}, 401},
		{"proxy-events", "/events", "", []string{"Via", "1.1 proxy"}, 401},
		{"proxy-with-a-viewer", "/", "", append(bearer(testViewer), "X-Forwarded-For", "10.0.0.9"), 200},
		{"metrics", "/metrics", "", nil, 200},
		{"wrong-token", "/api/v1/overview", "", bearer("wrong"), 401},
		{"loopback-does-nothing", "/api/v1" + agent + "/approve", "{}", nil, 403},
		{"viewer-does-nothing", "/api/v1" + agent + "/approve", "{}", bearer(testViewer), 403},
		{"cookie-does-nothing-in-the-api", "/api/v1" + agent + "/approve", "{}", []string{"Cookie", cookie(operator)}, 403},
		{"loopback-form", agent + "/approve", good, nil, 403},
		{"viewer-form", agent + "/approve", own, []string{"Cookie", cookie(viewer)}, 403},
		{"viewer-brake", "/rollouts/acme/stable/pause", own, []string{"Cookie", cookie(viewer)}, 403},
		{"another-session's-form", agent + "/approve", own, []string{"Cookie", cookie(operator)}, 403},
		{"another-site", agent + "/approve", good, []string{"Cookie", cookie(operator), "Sec-Fetch-Site", "cross-site"}, 403},
		{"another-port", agent + "/approve", good, []string{"Cookie", cookie(operator), "Origin", "http://127.0.0.1:1"}, 403},
		{"origin-null", agent + "/approve", good, []string{"Cookie", cookie(operator), "Origin", "null"}, 403},
		{"no-csrf", agent + "/approve", "csrf=", []string{"Cookie", cookie(operator)}, 403},
		{"another-origin", agent + "/approve", good, []string{"Cookie", cookie(operator), "Origin", "http://evil.example"}, 403},
		{"operator-token-in-a-form", agent + "/approve", good, bearer(testOperator), 403},
		{"huge-form", agent + "/approve", good + "&x=" + strings.Repeat("x", 32<<10), []string{"Cookie", cookie(operator)}, 400},
		{"huge-body", "/api/v1" + agent + "/label", `{"notes":[]}` + strings.Repeat(" ", 32<<10), bearer(testOperator), 413},
		{"odd-body", "/api/v1" + agent + "/label", `{"sign":true}`, bearer(testOperator), 400},
		{"two-bodies", "/api/v1" + agent + "/label", `{"notes":[]}{"notes":[]}`, bearer(testOperator), 400},
		{"method", "/api/v1/overview", "{}", bearer(testOperator), 405},
		{"nothing-of-the-api", "/api/v1/everything", "", nil, 404},
		{"log-in-without-a-form", "/login", "token=" + testOperator, nil, 403},
		{"static", "/ui/live.js", "", nil, 200},
		{"static-up", "/ui/../ui/live.js", "", nil, 404},
		{"static-encoded-up", "/ui/%2e%2e/%2e%2e/etc/passwd", "", nil, 404},
		{"static-folder", "/ui/", "", nil, 404},
		{"static-double-slash", "//ui/live.js", "", nil, 404},
		{"static-backslash", `/ui/..%5clive.js`, "", nil, 404},
		{"static-nul", "/ui/live.js%00", "", nil, 404},
		{"page-source", "/ui/pages/layout.html", "", nil, 404},
		{"long-query", "/agents?q=" + strings.Repeat("x", 8<<10), "", nil, 414},
		{"before-nothing", "/audit?before=0", "", nil, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, body := w.request(row.path, row.body, row.headers...)
			if r.StatusCode != row.status {
				t.Errorf("%s, want %d: %.300s", r.Status, row.status, body)
			}
			if row.status == 421 && strings.Contains(body, "acme") || row.status == 401 && strings.Contains(body, "sha256:") {
				t.Errorf("it tells a stranger: %.300s", body)
			}
			if row.name == "foreign-host" && !strings.Contains(body, "serve.public_url") {
				t.Errorf("it does not say what to do: %q", body)
			}
			if row.status >= 400 && strings.HasPrefix(row.path, "/api/") && r.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("it is a %s: %.200s", r.Header.Get("Content-Type"), body)
			}
		})
	}
	a, err := http.Get(w.url("/api/v1" + agent))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if b, _ := io.ReadAll(a.Body); !strings.Contains(string(b), `"approved":false`) {
		t.Errorf("one of them was done: %s", b)
	}
	r, err := operator.PostForm(w.url(agent+"/approve"), url.Values{"csrf": {strings.TrimPrefix(good, "csrf=")}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK || !strings.Contains(string(b), "approved") || r.Request.URL.EscapedPath() != agent {
		t.Errorf("what an operator does with the page ends at %s with %s", r.Request.URL, r.Status)
	}
	if r, _ := w.request("/rollouts/acme/stable/promote", good, "Cookie", cookie(operator)); r.StatusCode != http.StatusNotFound {
		t.Errorf("a brake that nobody has: %s", r.Status)
	}
}

// Whoever logged in can log out, who only looks too.
func TestAViewerLogsOut(t *testing.T) {
	w := watch(t, newFleet(t, 1, "release-1@acme"))
	viewer := w.browser(testViewer)
	u, err := url.Parse(w.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	cookie := viewer.Jar.Cookies(u)[0].String()
	elsewhere := func() int {
		r, _ := w.request("/", "", "X-Forwarded-For", "10.0.0.9", "Cookie", cookie)
		return r.StatusCode
	}
	if got := elsewhere(); got != http.StatusOK {
		t.Fatalf("logged in: %d", got)
	}
	res, err := viewer.PostForm(w.url("/logout"), url.Values{"csrf": {csrf(t, mustGet(t, viewer, w.url("/")))}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := elsewhere(); got != http.StatusUnauthorized || res.Request.URL.Path != "/login" {
		t.Errorf("logged out, at %s: %d", res.Request.URL, got)
	}
}

// In a fleet with a key a page takes a token, whatever certificate a browser has, and is
// there over plain HTTP for this machine alone.
func TestPageOfAFleetWithAKey(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	k := f.keyed()
	f.publish("1.0.0", "content")
	w := watch(t, f)
	member := &http.Client{Transport: members.Transport(joined(t, k))}
	for _, path := range append(pages, "/events", "/metrics", "/api/v1/overview") {
		if r, _ := w.request(path, ""); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("from this machine without a token %s is %s", path, r.Status)
		}
		res, err := member.Get("https://" + w.HTTP.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("for a machine of the fleet %s is %s", path, res.Status)
		}
	}
	if r, _ := w.request("/api/v1/overview", "", bearer(testViewer)...); r.StatusCode != http.StatusOK {
		t.Errorf("with a token: %s", r.Status)
	}
	// What a browser would be refused is no link.
	if _, b := w.request("/releases", "", bearer(testViewer)...); strings.Contains(b, `href="/data/`) || strings.Contains(b, ".torrent") || !strings.Contains(b, "shoal fetch acme/stable --platform linux/amd64") {
		t.Errorf("the releases: %s", b)
	}
	if r, b := w.request("/api/v1/status", "", bearer(testOperator)...); r.StatusCode != http.StatusForbidden || b != "" {
		t.Errorf("what is for machines is %s", r.Status)
	}
	if !strings.HasPrefix(w.Page, "http://127.0.0.1:") {
		t.Errorf("the page is at %q", w.Page)
	}
	jar, _ := cookiejar.New(nil)
	once := &http.Client{Jar: jar}
	link := w.Login()
	secret := link[strings.Index(link, "once=")+5:]
	res, err := once.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"csrf": {csrf(t, res)}, "token": {secret}}
	for i, want := range []int{200, 403} {
		res, err := once.PostForm(w.url("/login"), form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("login %d with a one-use link: %s, want %d", i+1, res.Status, want)
		}
		form["csrf"] = []string{csrf(t, mustGet(t, once, w.url("/login")))}
	}
}

func mustGet(t *testing.T, c *http.Client, url string) *http.Response {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A thousand who look on and read nothing: most are told to come back, and the rest does
// not keep the others, or the end, waiting.
func TestThousandSlowReaders(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	w := watch(t, f)
	var mu sync.Mutex
	statuses := map[string]int{}
	var wg sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range 1000 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%8))}}
		c, err := d.Dial("tcp", w.HTTP.String())
		if err != nil {
			t.Skipf("skipped: a second loopback address is needed: %v", err)
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(60 * time.Second))
		fmt.Fprintf(c, "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		wg.Go(func() {
			line, _ := bufio.NewReaderSize(c, 16).ReadSlice(' ')
			b := make([]byte, 3)
			io.ReadFull(c, b)
			mu.Lock()
			defer mu.Unlock()
			statuses[string(line)]++
		})
	}
	wg.Wait()
	if n := statuses["HTTP/1.1 "]; n < 900 {
		t.Errorf("%d were answered", n)
	}
	w.reports("pos-1", manifest.StateHealthy, res.Artifacts[0].SHA256)
	if r, _ := w.request("/", ""); r.StatusCode != http.StatusOK {
		t.Errorf("meanwhile the page is %s", r.Status)
	}
	if r, _ := w.request("/events", "", "X-Probe", "1"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more is %s", r.Status)
	}
	began := time.Now()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > shutdownTimeout+20*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

// The interface is what its document says, both ways.
func TestOpenAPI(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "content")
	w := watch(t, f)
	_, text := w.request("/api/openapi.yaml", "")
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, does := range doc.Paths {
		for method := range does {
			if method != "parameters" {
				documented[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	served := map[string]bool{"GET /api/v1/status": true, "POST /api/v1/reports": true} // of other packages
	for _, r := range api.New(nil, nil, nil).Routes() {
		served[r] = true
	}
	for r := range served {
		if !documented[r] {
			t.Errorf("%s is not in the document", r)
		}
	}
	for r := range documented {
		if !served[r] {
			t.Errorf("%s is in the document alone", r)
		}
	}
	if len(served) < 15 {
		t.Errorf("%d routes", len(served))
	}
}

// Machines are paged through, each once.
func TestAgentsInPages(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	w := watch(t, f)
	for i := range 25 {
		w.reports(fmt.Sprintf("pos-%d", i), manifest.StateHealthy, res.Artifacts[0].SHA256)
	}
	seen := map[string]bool{}
	for after := ""; ; {
		_, body := w.request("/api/v1/agents?limit=10&after="+url.QueryEscape(after), "")
		var page struct {
			Agents []struct{ Agent string }
			Next   string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Agents) > 10 {
			t.Fatalf("%v: %.200s", err, body)
		}
		for _, a := range page.Agents {
			if seen[a.Agent] {
				t.Errorf("%s is there twice", a.Agent)
			}
			seen[a.Agent] = true
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(seen) != 25 {
		t.Errorf("%d machines", len(seen))
	}
}

// The gates of a channel whose beacon nobody renews are shut, and a number says so.
func TestMetricsOfABeaconThatRanOut(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.withBeacon()
	f.publish("1.0.0", "content")
	w := watch(t, f)
	if _, body := w.request("/metrics", ""); !strings.Contains(body, "\nshoal_beacon_expiry_timestamp_seconds{channel=\"acme/stable\"} 0\n") {
		t.Errorf("%s", body)
	}
}

// The numbers say what the page says.
func TestMetrics(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	w := watch(t, f)
	for i := range 3 {
		id := w.reports(fmt.Sprintf("pos-%d", i), manifest.StateHealthy, res.Artifacts[0].SHA256)
		if i < 2 {
			w.request("/api/v1/agents/"+url.PathEscape(string(id))+"/approve", "{}", bearer(testOperator)...)
		}
	}
	w.reports("pos-1", manifest.StateFailed, res.Artifacts[0].SHA256)
	until(t, "the numbers", func() bool {
		_, body := w.request("/metrics", "", bearer(testViewer)...)
		missing := ""
		for _, line := range []string{
			`shoal_fleet_up 1`,
			`shoal_agents{channel="acme/stable",state="healthy",version="1.0.0"} 1`,
			`shoal_agents{channel="acme/stable",state="failed",version="1.0.0"} 1`,
			`shoal_agents_on_target{channel="acme/stable"} 1`,
			`shoal_agents_attention 2`,
			`shoal_machines{kind="seen"} 2`,
			`shoal_machines{kind="unapproved"} 1`,
			`shoal_update_blocked{channel="acme/stable",code="health_failed"} 1`,
			`shoal_update_bytes{channel="acme/stable",source="lan"} 1800`,
			`shoal_reports_total{result="taken"} 4`,
			`shoal_rollout_hold{channel="acme/stable"} 0`,
			`shoal_manifest_expiry_timestamp_seconds{channel="acme/stable"} `,
		} {
			if !strings.Contains(body, "\n"+line) {
				missing = line
			}
		}
		return missing == ""
	})
}
