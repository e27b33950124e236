//go:build !windows

package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shoal/agent/service"
)

// patient tries often, and gives up when no machine is that slow.
var patient = Policy{Interval: time.Millisecond, Timeout: time.Minute}

func must(t *testing.T, c Check, err error) Check {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sees fails unless the check finds that all is well, or each try contains what it wants.
func sees(t *testing.T, c Check, want string) {
	t.Helper()
	if want == "" {
		wants(t, c.Check(t.Context()), "")
	} else {
		wants(t, c.Probe(t.Context()), want)
	}
}

// wants fails unless err contains want; an empty want means no error.
func wants(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestRepeated(t *testing.T) {
	sick := errors.New("sick")
	rows := []struct {
		name  string
		p     Policy
		probe func(n int) error // n counts from 1
		tries int               // expected; 0 means any number
		err   string
	}{
		{"well-at-once", Policy{}, func(int) error { return nil }, 1, ""},
		{"several-in-a-row", Policy{Successes: 3}, func(int) error { return nil }, 3, ""},
		{"flapping-then-well", Policy{Successes: 2}, func(n int) error {
			if n == 1 || n == 3 {
				return sick
			}
			return nil
		}, 5, ""},
		{"successes-must-be-in-a-row", Policy{Successes: 2, Timeout: 9 * time.Second}, func(n int) error {
			if n%2 == 0 {
				return sick
			}
			return nil
		}, 5, "2 of 5 tries failed in 9s, the last: sick"},
		{"never-well", Policy{Timeout: 5 * time.Second}, func(int) error { return sick }, 3, "3 of 3 tries failed in 5s, the last: sick"},
		{"well-too-late", Policy{Successes: 2, Timeout: 3 * time.Second}, func(n int) error {
			if n == 1 {
				return sick
			}
			return nil
		}, 2, "1 of 2 tries failed in 3s, the last: sick"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := r.p.defaults(); err != nil {
					t.Fatal(err)
				}
				n := 0
				c := &repeated{r.p, func(context.Context) error { n++; return r.probe(n) }}
				wants(t, c.Check(t.Context()), r.err)
				if n != r.tries {
					t.Errorf("%d tries, want %d", n, r.tries)
				}
			})
		})
	}
}

func TestHangingTriesAreCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Policy{Timeout: 25 * time.Second, Try: 10 * time.Second}
		if err := p.defaults(); err != nil {
			t.Fatal(err)
		}
		n := 0
		hang := &repeated{p, func(ctx context.Context) error {
			n++
			ctx, cancel := context.WithTimeout(ctx, p.Try)
			defer cancel()
			<-ctx.Done()
			return fmt.Errorf("no answer to try %d", n)
		}}
		// The third try is cut short by the end of the whole, and says nothing.
		wants(t, hang.Check(t.Context()), "2 of 2 tries failed in 25s, the last: no answer to try 2")

		n, hang.p.Timeout = 0, 5*time.Second // shorter than one try: better than nothing
		wants(t, hang.Check(t.Context()), "1 of 1 tries failed in 5s, the last: no answer to try 1")
	})
}

func TestEndOfContextIsNoFinding(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &repeated{Policy{Successes: 1, Interval: time.Hour, Timeout: 2 * time.Hour}, func(context.Context) error {
		cancel()
		return errors.New("sick")
	}}
	if err := c.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestCommand(t *testing.T) {
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	flag := filepath.Join(t.TempDir(), "once")
	rows := []struct {
		name string
		argv []string
		err  string
	}{
		{"exit-0", sh("exit 0"), ""},
		{"exit-3", sh("echo license.dat: no such file >&2; exit 3"), `exited 3: "license.dat: no such file"`},
		{"fails-once-then-well", sh("[ -e " + flag + " ] || { touch " + flag + "; exit 1; }"), ""},
		{"cannot-start", []string{"/nonexistent"}, "no such file"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c, err := Command(r.argv, patient)
			sees(t, must(t, c, err), r.err)
		})
	}
	t.Run("hangs", func(t *testing.T) {
		for try := 50 * time.Millisecond; ; try *= 4 { // until it has had the time to say something
			c, err := Command(sh("echo waiting; sleep 600"), Policy{Try: try})
			err = must(t, c, err).Probe(t.Context())
			wants(t, err, fmt.Sprintf("timed out after %v", try))
			if err != nil && strings.Contains(err.Error(), `: "waiting"`) {
				return
			}
			if try > 10*time.Second {
				t.Fatalf("what it said is not told: %v", err)
			}
		}
	})
}

func TestHTTP(t *testing.T) {
	var tries atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/well", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "no database\n%s", strings.Repeat("x", 1<<20))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/well", http.StatusFound) })
	mux.HandleFunc("/flapping", func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for path, want := range map[string]string{
		"/well":     "",
		"/flapping": "",
		"/broken":   `answered 500 Internal Server Error: "no database"`,
		"/moved":    "answered 302 Found",
	} {
		c, err := HTTP(srv.URL+path, patient)
		sees(t, must(t, c, err), want)
	}
	hang, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hang.Close()
	c, err := HTTP("http://"+hang.Addr().String(), Policy{Timeout: time.Second, Try: 50 * time.Millisecond})
	wants(t, must(t, c, err).Probe(t.Context()), "context deadline exceeded")
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := TCP(l.Addr().String(), patient)
	check := must(t, c, err)
	sees(t, check, "")
	l.Close()
	sees(t, check, "connection refused")
}

// fakeService is up with the states that at gives for a time.
type fakeService struct {
	service.None
	start time.Time
	at    func(time.Duration) service.State
}

func (f *fakeService) State(context.Context) (service.State, error) {
	return f.at(time.Since(f.start)), nil
}

func TestStayUp(t *testing.T) {
	up := func(pid, restarts int) service.State {
		return service.State{Running: true, PID: pid, Restarts: restarts}
	}
	down := service.State{Failed: true, Detail: "failed (failed), exit-code, exit status 3"}
	rows := []struct {
		name string
		at   func(time.Duration) service.State
		took time.Duration
		err  string
	}{
		{"stays-up", func(time.Duration) service.State { return up(7, 0) }, 10 * time.Second, ""},
		{"crashed-once-then-stays", func(d time.Duration) service.State {
			if d < 5*time.Second {
				return up(7, 0)
			}
			return up(8, 1)
		}, 16 * time.Second, ""},
		{"dies-just-before-the-end", func(d time.Duration) service.State {
			if d < 9*time.Second {
				return up(7, 0)
			}
			return down
		}, 70 * time.Second, "not up for 10s within 1m10s: the service is not running: failed (failed), exit-code, exit status 3"},
		{"crashes-again-and-again", func(d time.Duration) service.State { n := int(d / (4 * time.Second)); return up(7+n, n) },
			70 * time.Second, "process 23, now 24; restarted 16 times, now 17"},
		{"same-process-id-but-restarted", func(d time.Duration) service.State { return up(7, int(d/(4*time.Second))) },
			70 * time.Second, "restarted 16 times, now 17"},
		{"comes-up-late", func(d time.Duration) service.State {
			if d < 3*time.Second {
				return down
			}
			return up(7, 0)
		}, 14 * time.Second, ""},
		{"starting-and-crashing", func(time.Duration) service.State {
			return service.State{Running: true, Failed: true, Detail: "activating (auto-restart)"}
		}, 70 * time.Second, "activating (auto-restart)"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c, err := StayUp(&fakeService{start: start, at: r.at}, 10*time.Second, Policy{})
				wants(t, must(t, c, err).Check(t.Context()), r.err)
				if took := time.Since(start); took != r.took {
					t.Errorf("took %v, want %v", took, r.took)
				}
			})
		})
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	some := &fakeService{}
	rows := map[string]func() (Check, error){
		"command-without-command":     func() (Check, error) { return Command(nil, patient) },
		"http-without-scheme":         func() (Check, error) { return HTTP("127.0.0.1:80/health", patient) },
		"http-of-a-file":              func() (Check, error) { return HTTP("file:///etc/passwd", patient) },
		"tcp-without-port":            func() (Check, error) { return TCP("127.0.0.1", patient) },
		"stay-up-without-service":     func() (Check, error) { return StayUp(service.None{}, time.Second, patient) },
		"stay-up-of-nil":              func() (Check, error) { return StayUp(nil, time.Second, patient) },
		"stay-up-longer-than-timeout": func() (Check, error) { return StayUp(some, time.Minute, Policy{Timeout: time.Minute}) },
		"stay-up-for-no-time":         func() (Check, error) { return StayUp(some, 0, patient) },
		"negative":                    func() (Check, error) { return TCP("127.0.0.1:80", Policy{Successes: -1}) },
		"cannot-pass":                 func() (Check, error) { return TCP("127.0.0.1:80", Policy{Successes: 100}) },
	}
	for name, make := range rows {
		if c, err := make(); err == nil || c != nil {
			t.Errorf("%s: was taken", name)
		}
	}
}
