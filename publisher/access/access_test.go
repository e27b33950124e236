package access

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
)

const (
	viewerToken   = "viewer-viewer-viewer-viewer-viewer"
	operatorToken = "operator-operator-operator-operator"
)

func tokensFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func guard(t *testing.T, change ...func(*Config)) *Guard {
	t.Helper()
	cfg := Config{
		TokensFile: tokensFile(t, "# who\nviewer grafana "+viewerToken+"\noperator me "+operatorToken+"\n"),
		Names:      []string{"updates.acme.lan", "*.people.acme.lan"}, Port: 7800,
	}
	for _, c := range change {
		c(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// request is one from an address, to a host, with headers.
func request(from, host string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "http://x/", nil)
	r.RemoteAddr, r.Host = from+":40000", host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestWhoIsWho(t *testing.T) {
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	for _, row := range []struct {
		name    string
		from    string
		host    string
		headers []string
		open    Role
		keyed   Role
	}{
		{"loopback", "127.0.0.1", "127.0.0.1:7800", nil, Viewer, Nobody},
		{"loopback-by-name", "127.0.0.1", "localhost:7800", nil, Viewer, Nobody},
		{"loopback-v6", "[::1]", "[::1]:7800", nil, Viewer, Nobody},
		{"another-machine", "10.1.2.3", "10.0.0.1:7800", nil, Nobody, Nobody},
		{"another-machine-says-localhost", "10.1.2.3", "localhost:7800", nil, Nobody, Nobody},
		{"dns-rebinding", "127.0.0.1", "evil.example:7800", nil, Nobody, Nobody},
		{"dns-rebinding-with-a-token", "127.0.0.1", "evil.example:7800", bearer(operatorToken), Nobody, Nobody},
		{"no-host", "127.0.0.1", "", nil, Nobody, Nobody},
		{"host-that-begins-like-loopback", "127.0.0.1", "127.0.0.1.evil.example", nil, Nobody, Nobody},
		{"proxy-on-this-host-own-name", "127.0.0.1", "updates.acme.lan", nil, Nobody, Nobody},
		{"proxy-forwarded", "127.0.0.1", "127.0.0.1:7800", []string{"Forwarded", "for=10.1.2.3"}, Nobody, Nobody},
		{"proxy-x-forwarded-for", "127.0.0.1", "127.0.0.1:7800", []string{"X-Forwarded-For", "10.1.2.3"}, Nobody, Nobody},
		{"proxy-empty-header", "127.0.0.1", "127.0.0.1:7800", []string{"X-Forwarded-For", ""}, Nobody, Nobody},
		{"proxy-another-forwarded", "127.0.0.1", "127.0.0.1:7800", []string{"X-Forwarded-Server", "front"}, Nobody, Nobody},
		{"proxy-tunnel", "127.0.0.1", "127.0.0.1:7800", []string{"CF-Connecting-IP", "10.1.2.3"}, Nobody, Nobody},
		{"proxy-via", "127.0.0.1", "127.0.0.1:7800", []string{"Via", "1.1 squid"}, Nobody, Nobody},
		{"proxy-with-a-token", "127.0.0.1", "127.0.0.1:7800", append(bearer(operatorToken), "Forwarded", "for=10.1.2.3"), Operator, Operator},
		{"viewer", "10.1.2.3", "updates.acme.lan:7800", bearer(viewerToken), Viewer, Viewer},
		{"operator", "10.1.2.3", "Updates.Acme.LAN", bearer(operatorToken), Operator, Operator},
		{"viewer-by-a-name-of-a-wildcard", "10.1.2.3", "Fleet.People.acme.lan:7800", bearer(viewerToken), Viewer, Viewer},
		{"wildcard-is-one-label", "10.1.2.3", "a.b.people.acme.lan", bearer(viewerToken), Nobody, Nobody},
		{"wildcard-is-a-label", "10.1.2.3", "people.acme.lan", bearer(viewerToken), Nobody, Nobody},
		{"wildcard-is-a-whole-label", "10.1.2.3", ".people.acme.lan", bearer(viewerToken), Nobody, Nobody},
		{"wrong-token-from-loopback", "127.0.0.1", "127.0.0.1:7800", bearer(viewerToken + "x"), Nobody, Nobody},
		{"another-scheme", "127.0.0.1", "127.0.0.1:7800", []string{"Authorization", "Basic " + operatorToken}, Nobody, Nobody},
		{"made-up-cookie", "10.1.2.3", "10.0.0.1:7800", []string{"Cookie", "shoal-7800=AAAAAAAAAAAAAAAA"}, Nobody, Nobody},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := guard(t).Who(request(row.from, row.host, row.headers...)).Role; got != row.open {
				t.Errorf("in an open fleet: %s, want %s", got, row.open)
			}
			keyed := guard(t, func(c *Config) { c.Keyed = true })
			if got := keyed.Who(request(row.from, row.host, row.headers...)).Role; got != row.keyed {
				t.Errorf("in a fleet with a key: %s, want %s", got, row.keyed)
			}
		})
	}
}

// A proxy on this host that is told nothing: nginx speaks HTTP/1.0 then, by our address.
func TestProxyThatSaysNothing(t *testing.T) {
	g := guard(t)
	r := request("127.0.0.1", "127.0.0.1:7800")
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.0", 1, 0
	if v := g.Who(r); v.Role != Nobody {
		t.Errorf("without a token: %s", v.Role)
	}
	r.Header.Set("Authorization", "Bearer "+viewerToken)
	if v := g.Who(r); v.Role != Viewer {
		t.Errorf("with a viewer's: %s", v.Role)
	}
}

// login logs in and returns the request of a browser that did.
func login(t *testing.T, g *Guard, secret string) (*http.Request, bool) {
	t.Helper()
	w := httptest.NewRecorder()
	ok := g.Login(w, request("10.1.2.3", "updates.acme.lan"), secret)
	r := request("10.1.2.3", "updates.acme.lan")
	for _, c := range w.Result().Cookies() {
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
			t.Errorf("the cookie is %v", c)
		}
		r.AddCookie(c)
	}
	return r, ok
}

func TestLogin(t *testing.T) {
	now := time.Now()
	g := guard(t, func(c *Config) { c.Clock = func() time.Time { return now } })
	r, ok := login(t, g, viewerToken)
	if v := g.Who(r); !ok || v != (Visitor{Viewer, "grafana", true}) {
		t.Errorf("a viewer is %+v", v)
	}
	if _, ok := login(t, g, "wrong"); ok {
		t.Error("a wrong token logs in")
	}
	secret := g.Once(Operator)
	r, ok = login(t, g, secret)
	if v := g.Who(r); !ok || v.Role != Operator || !v.Cookie {
		t.Errorf("a one-use login is %+v", v)
	}
	if _, ok := login(t, g, secret); ok {
		t.Error("a one-use secret was used twice")
	}
	late := g.Once(Operator)
	now = now.Add(OnceTime)
	if _, ok := login(t, g, late); ok {
		t.Error("a one-use secret has no end")
	}
	now = now.Add(sessionTime)
	if v := g.Who(r); v.Role != Nobody {
		t.Errorf("after its time a session is %+v", v)
	}
	r, _ = login(t, g, operatorToken)
	g.Logout(httptest.NewRecorder(), r)
	if v := g.Who(r); v.Role != Nobody {
		t.Errorf("after the logout a session is %+v", v)
	}
	for range maxSessions + 10 {
		login(t, g, viewerToken)
	}
	if len(g.sessions) > maxSessions {
		t.Errorf("%d sessions", len(g.sessions))
	}
}

func TestTokenThatIsTakenAwayEndsItsSessions(t *testing.T) {
	var log bytes.Buffer
	g := guard(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	r, _ := login(t, g, operatorToken)
	if err := os.WriteFile(g.cfg.TokensFile, []byte("viewer me "+operatorToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.tokens.looked = time.Time{}
	if v := g.Who(r); v.Role != Viewer {
		t.Errorf("a session of a token that is now a viewer's: %+v", v)
	}
	if err := os.WriteFile(g.cfg.TokensFile, []byte("what is this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		g.tokens.looked = time.Time{}
		if v := g.Who(r); v.Role != Nobody {
			t.Errorf("with a file that is no good: %+v", v)
		}
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "line 1: the role is") || strings.Contains(said, operatorToken) {
		t.Errorf("the log says %q", said)
	}
	if err := os.WriteFile(g.cfg.TokensFile, []byte("operator me "+operatorToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.tokens.looked = time.Time{}
	if v := g.Who(r); v.Role != Operator {
		t.Errorf("with a good file again: %+v", v)
	}
}

func TestMeant(t *testing.T) {
	g := guard(t)
	browser, _ := login(t, g, operatorToken)
	other, _ := login(t, g, operatorToken)
	good := g.Form(httptest.NewRecorder(), browser)
	for _, row := range []struct {
		name    string
		from    *http.Request
		field   string
		headers []string
		want    bool
	}{
		{"our-page", browser, good, []string{"Origin", "http://updates.acme.lan", "Sec-Fetch-Site", "same-origin"}, true},
		{"without-javascript-or-headers", browser, good, nil, true},
		{"no-field", browser, "", nil, false},
		{"guessed-field", browser, strings.Repeat("0", 64), nil, false},
		{"field-of-another-session", other, good, nil, false},
		{"another-origin", browser, good, []string{"Origin", "http://evil.example"}, false},
		{"another-port", browser, good, []string{"Origin", "http://updates.acme.lan:8080"}, false},
		{"opaque-origin", browser, good, []string{"Origin", "null"}, false},
		{"another-site", browser, good, []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"same-site-another-origin", browser, good, []string{"Sec-Fetch-Site", "same-site"}, false},
		{"no-cookie", request("10.1.2.3", "updates.acme.lan"), good, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := row.from.Clone(t.Context())
			r.PostForm = url.Values{"csrf": {row.field}}
			for i := 0; i < len(row.headers); i += 2 {
				r.Header.Set(row.headers[i], row.headers[i+1])
			}
			if got := g.Meant(r); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

func TestTokensFile(t *testing.T) {
	for _, row := range []struct{ name, text, err string }{
		{"short", "viewer me short", "line 1: a token is"},
		{"odd-letters", "viewer me " + strings.Repeat("ä", 40), "line 1: a token is"},
		{"role", "admin me " + viewerToken, "line 1: the role"},
		{"two-words", "\nviewer " + viewerToken, "line 2 is not"},
		{"twice", "viewer a " + viewerToken + "\noperator b " + viewerToken, "line 2: the token of another"},
		{"endless", strings.Repeat("#", maxTokens+1), "larger than"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(Config{TokensFile: tokensFile(t, row.text)})
			if fault.CodeOf(err) != fault.Config || !strings.Contains(err.Error(), row.err) {
				t.Fatalf("%v, want %q", err, row.err)
			}
			if strings.Contains(err.Error(), viewerToken) {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
	if _, err := New(Config{TokensFile: filepath.Join(t.TempDir(), "none")}); fault.CodeOf(err) != fault.Config {
		t.Errorf("no file: %v", err)
	}
	if runtime.GOOS != "windows" {
		path := tokensFile(t, "viewer me "+viewerToken)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{TokensFile: path}); fault.CodeOf(err) != fault.Config {
			t.Errorf("a file that the group can read: %v", err)
		}
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add([]byte("viewer me " + viewerToken + "\n# comment\n"))
	f.Add([]byte("operator \t x y\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseTokens(text)
		if err != nil && all != nil {
			t.Error("tokens and an error")
		}
		for _, one := range all {
			if one.role == Nobody || one.name == "" {
				t.Errorf("%+v", one)
			}
		}
	})
}
