package hook

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

const secret = "0123456789abcdef0123"

func newStore(t *testing.T, dir string) *fleet.Store {
	t.Helper()
	s, err := fleet.Open(fleet.Config{Dir: dir, Repo: manifest.FleetID(manifest.Sum([]byte("fleet"))), CommitEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs the hooks until stop is called.
func start(t *testing.T, s *fleet.Store, hooks ...Config) (stop func()) {
	t.Helper()
	h, err := New(Hooks{Store: s, Fleet: "sha256:x", Hooks: hooks, retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func secretFile(t *testing.T, s string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(s+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func log(t *testing.T, s *fleet.Store, events ...fleet.Event) {
	t.Helper()
	if err := s.Log(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

// begin marks the hook as one that has begun, so that what is logged from now on is told.
func begin(t *testing.T, s *fleet.Store, c Config) {
	t.Helper()
	log(t, s, fleet.Event{Kind: "before"})
	if err := s.SetCursor(c.name(), 1); err != nil {
		t.Fatal(err)
	}
}

// reaches waits until the hook has come to the event with that number.
func reaches(t *testing.T, s *fleet.Store, c Config, seq uint64) {
	t.Helper()
	for {
		cursor, _, err := s.Cursor(c.name())
		if err != nil {
			t.Fatal(err)
		}
		if cursor == seq {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("not told")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestEventsArePostedSignedUntilTaken(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	type post struct {
		header http.Header
		body   []byte
	}
	got, refuse := make(chan post, 100), make(chan int, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		select {
		case status := <-refuse:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		default:
			got <- post{r.Header, b}
		}
	}))
	defer srv.Close()
	c := Config{URL: srv.URL, On: []string{"rollout.*", fleet.KindAgentFailed}, SecretFile: secretFile(t, secret)}
	begin(t, s, c)
	for _, status := range []int{500, 404, 302} { // each is tried again
		refuse <- status
	}
	stop := start(t, s, c)
	log(t, s, fleet.Event{Kind: fleet.KindAgentState, Host: "pos-1"},
		fleet.Event{Kind: fleet.KindAgentFailed, Host: "<!channel> pos-1", Text: "*x* @here https://evil <b>", Code: fault.HealthFailed},
		fleet.Event{Kind: "rollout.halted", Text: "5 % failed"})
	first, second := <-got, <-got
	var m message
	if err := json.Unmarshal(first.body, &m); err != nil {
		t.Fatal(err)
	}
	if m.Schema != "shoal.hook/v1" || m.Fleet != "sha256:x" || m.Event.Kind != fleet.KindAgentFailed || m.Event.Host != "<!channel> pos-1" {
		t.Errorf("%s", first.body)
	}
	for _, mark := range []string{"<", "*x", " @here", "://"} {
		if strings.Contains(m.Text, mark) {
			t.Errorf("%q is in %q", mark, m.Text)
		}
	}
	if !strings.Contains(string(second.body), "rollout.halted") {
		t.Errorf("then %s", second.body)
	}
	at, _, _ := strings.Cut(strings.TrimPrefix(first.header.Get("Shoal-Signature"), "t="), ",")
	unix, err := strconv.ParseInt(at, 10, 64)
	if err != nil || time.Since(time.Unix(unix, 0)).Abs() > 5*time.Minute {
		t.Errorf("time %q, %v", at, err)
	}
	if want := Sign([]byte(secret), time.Unix(unix, 0), first.body); !hmac.Equal([]byte(want), []byte(first.header.Get("Shoal-Signature"))) {
		t.Errorf("signature %q, want %q", first.header.Get("Shoal-Signature"), want)
	}

	// What happens while nobody runs is told after a restart, and nothing twice that was
	// taken.
	reaches(t, s, c, 4)
	stop()
	log(t, s, fleet.Event{Kind: "rollout.resumed"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, dir)
	defer s.Close()
	defer start(t, s, c)()
	log(t, s, fleet.Event{Kind: "rollout.done"})
	for _, want := range []string{"rollout.resumed", "rollout.done"} {
		if p := <-got; !strings.Contains(string(p.body), want) {
			t.Errorf("%s, want %s", p.body, want)
		}
	}
}

// The very first event of a hook is told, too, when nobody took it before the process
// ended.
func TestTheFirstEventOutlivesTheProcess(t *testing.T) {
	for name, before := range map[string][]fleet.Event{"empty-log": nil, "old-log": {{Kind: "before"}}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, dir)
			log(t, s, before...)
			refused, got := make(chan bool, 100), make(chan string, 100)
			var up atomic.Bool
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if !up.Load() {
					select {
					case refused <- true:
					default: // one is enough, and who waits here keeps the server from ending
					}
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				got <- string(b)
			}))
			defer srv.Close()
			c := Config{URL: srv.URL, On: []string{"*"}}
			stop := start(t, s, c)
			for known := false; !known; { // it has begun
				var err error
				if _, known, err = s.Cursor(c.name()); err != nil || t.Context().Err() != nil {
					t.Fatal(err, t.Context().Err())
				}
			}
			log(t, s, fleet.Event{Kind: "rollout.halted"})
			<-refused
			stop()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			srv.CloseClientConnections()
			up.Store(true)
			s = newStore(t, dir)
			defer s.Close()
			defer start(t, s, c)()
			log(t, s, fleet.Event{Kind: "rollout.resumed"})
			for _, want := range []string{"rollout.halted", "rollout.resumed"} {
				if b := <-got; !strings.Contains(b, want) {
					t.Errorf("%s, want %s", b, want)
				}
			}
		})
	}
}

// Where a webhook goes is often a secret itself.
func TestNoSecretIsLogged(t *testing.T) {
	s := newStore(t, t.TempDir())
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there
	c := Config{URL: "http://me:hunter2@" + l.Addr().String() + "/services/T0/hunter2?token=hunter2", On: []string{"*"}}
	begin(t, s, c)
	logged := make(lines, 100)
	h, err := New(Hooks{Store: s, Fleet: "sha256:x", Hooks: []Config{c}, Logger: slog.New(slog.NewTextHandler(logged, nil)), retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	log(t, s, fleet.Event{Kind: "rollout.halted"})
	line := <-logged
	cancel()
	<-done
	if strings.Contains(line, "hunter2") || !strings.Contains(line, l.Addr().String()) || !strings.Contains(line, "refused") {
		t.Errorf("logged %s", line)
	}
}

// lines are what was logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default:
	}
	return len(b), nil
}

func TestProgramsGetEventsOnStandardInputAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	s := newStore(t, t.TempDir())
	defer s.Close()
	dir := t.TempDir()
	c := Config{Exec: []string{"/bin/sh", "-c", `cat > "$0/in.tmp"; echo "$@" > "$0/args"; env > "$0/env"; mv "$0/in.tmp" "$0/in"`, dir}, On: []string{"*"}}
	begin(t, s, c)
	defer start(t, s, c)()
	log(t, s, fleet.Event{Kind: fleet.KindAgentFailed, Host: "$(touch pwned)", Text: "`id`"})
	reaches(t, s, c, 2)
	in, err := os.ReadFile(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(in, &m); err != nil || m.Event.Host != "$(touch pwned)" {
		t.Errorf("%v: %s", err, in)
	}
	for _, name := range []string{"args", "env"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.Contains(string(b), "pwned") || strings.Contains(string(b), "`id`") {
			t.Errorf("%s has the machine's words: %s, %v", name, b, err)
		}
	}
}

func TestHooksThatAreNone(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":        {On: []string{"*"}},
		"both":           {URL: "http://x", Exec: []string{"x"}, On: []string{"*"}},
		"no-url":         {URL: "file:///etc/passwd", On: []string{"*"}},
		"no-events":      {URL: "http://x"},
		"exec-secret":    {Exec: []string{"x"}, On: []string{"*"}, SecretFile: "x"},
		"secret-missing": {URL: "http://x", On: []string{"*"}, SecretFile: filepath.Join(t.TempDir(), "none")},
		"secret-short":   {URL: "http://x", On: []string{"*"}, SecretFile: secretFile(t, "short")},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(Hooks{Hooks: []Config{c}}); fault.CodeOf(err) != fault.Config {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSecretThatOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes on Windows")
	}
	c := Config{URL: "http://x", On: []string{"*"}, SecretFile: secretFile(t, "0123456789abcdef")}
	for mode, want := range map[os.FileMode]fault.Code{0o600: fault.OK, 0o400: fault.OK, 0o640: fault.Config, 0o604: fault.Config, 0o620: fault.Config} {
		if err := os.Chmod(c.SecretFile, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Hooks{Hooks: []Config{c}}); fault.CodeOf(err) != want {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

// FuzzText: whatever a machine says, no chat takes it for more than words.
func FuzzText(f *testing.F) {
	f.Add("pos-1", "<!channel>", "https://evil")
	f.Add("@here", "*bold* _x_ `code`", "\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, host, app, text string) {
		s := Text(&fleet.Event{Kind: "k", Host: host, App: app, Text: text})
		if strings.ContainsAny(s, "<>\n\r\x1b\u202e") || strings.Contains(s, "://") || strings.Contains(s, " @") || len(s) > 10*maxWords*4 {
			t.Errorf("%q", s)
		}
	})
}
