package agent

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
)

// supervisor is systemd, as far as it listens to its service.
type supervisor struct {
	t     *testing.T
	heard chan string
	all   string
}

func newSupervisor(t *testing.T, watchdog string) *supervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Skipf("skipped: no datagram sockets here: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	s := &supervisor{t: t, heard: make(chan string, 10000)}
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			s.heard <- string(buf[:n])
		}
	}()
	return s
}

// hear waits until what was said, ever.
func (s *supervisor) hear(what string) {
	s.t.Helper()
	for timeout := time.After(time.Minute); !strings.Contains(s.all, what); {
		select {
		case line := <-s.heard:
			s.all += line + "\n"
		case <-timeout:
			s.t.Fatalf("never heard %q in:\n%s", what, s.all)
		}
	}
}

// systemd hears that the agent is ready, how it stands, that it lives, and that it stops.
func TestTellsTheSupervisor(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	s := newSupervisor(t, "200000")
	stop := b.run()
	s.hear("READY=1")
	s.hear("WATCHDOG=1")
	s.hear("acme/stable 1.0.2 healthy")
	stop()
	s.hear("STOPPING=1")
}

// Sources that do not answer keep neither the supervisor nor a person waiting.
func TestSlowSourcesKeepNobodyWaiting(t *testing.T) {
	b := newBench(t)
	s := newSupervisor(t, "20000")
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.cfg.Sources.Publisher = "http://" + l.Addr().String()
	stop := b.run()
	conn, err := l.Accept() // the check is under way
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for { // what was said before does not count
		select {
		case <-s.heard:
			continue
		default:
		}
		break
	}
	s.hear("WATCHDOG=1")
	s.hear("EXTEND_TIMEOUT_USEC=")
	if st := b.status(); !st.Running || len(st.Apps) != 1 {
		t.Errorf("status %+v", st)
	}
	// What only the owner can do is done, too.
	if _, err := b.connect().Wish(t.Context(), nil, Wish{Pin: "9"}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a wish: %v, want an answer", err)
	}
	if strings.Contains(s.all, "READY=1") {
		t.Error("ready before a cycle is done")
	}
	stop() // and it stops although the check does not end
}

func TestStatusLine(t *testing.T) {
	app := func(change func(*AppStatus)) *Status {
		a := AppStatus{App: "acme", Channel: "stable", Version: "1.0.2", State: manifest.StateHealthy}
		change(&a)
		return &Status{Apps: []AppStatus{a}}
	}
	rows := []struct {
		name string
		s    *Status
		want string
	}{
		{"no-app", &Status{}, "no app is configured"},
		{"healthy", app(func(*AppStatus) {}), "acme/stable 1.0.2 healthy"},
		{"downloading", app(func(a *AppStatus) {
			a.State, a.Update = manifest.StateDownloading, &UpdateStatus{Version: "1.0.3", Done: 43, Length: 100}
			a.Why = &Why{Code: fault.OK, Text: "downloading 1.0.3"}
		}), "acme/stable 1.0.2 downloading 1.0.3, 43%"},
		{"reverted", app(func(a *AppStatus) {
			a.State, a.Why = manifest.StateReverted, &Why{Code: fault.HealthFailed, Text: "exited 3\nsecond line"}
		}), "acme/stable 1.0.2 reverted (health_failed: exited 3 second line)"},
		{"check-failed", app(func(a *AppStatus) {
			a.LastCheck = &CheckStatus{Code: fault.Unreachable, Text: strings.Repeat("ä", 100)}
		}), "acme/stable 1.0.2 healthy, last check (unreachable: " + strings.Repeat("ä", 60) + ")"},
		{"cut-within-a-letter", app(func(a *AppStatus) {
			a.LastCheck = &CheckStatus{Code: fault.Expired, Text: "x" + strings.Repeat("ä", 100)}
		}), "acme/stable 1.0.2 healthy, last check (expired: x" + strings.Repeat("ä", 59) + ")"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if got := statusLine(r.s); got != r.want {
				t.Errorf("%q, want %q", got, r.want)
			}
		})
	}
}
