package demo

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's executable be the demo's program, as shoal is: a payload is
// a copy of whatever executable runs.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "demo" && os.Args[2] == "program":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		exe, err := os.Executable()
		if err == nil {
			err = RunProgram(ctx, exe, os.Args[4], os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) // exits: this is the program's main
		}
	case os.Getenv("DEMO_TEST_STUBBORN") != "":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("here")
		time.Sleep(time.Hour) // or until killed
	default:
		os.Exit(m.Run()) // exits: this is the test's main
	}
}

func newTestGroup(t *testing.T) *group {
	t.Helper()
	g := newGroup()
	t.Cleanup(g.Close)
	return g
}

func newTestPayload(t *testing.T, dir string, tr Trailer) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, tr.Version)
	if _, err := writePayload(path, exe, tr, 0); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheSupervisorRunsWhatTheTargetIs(t *testing.T) {
	dir := t.TempDir()
	g := newTestGroup(t)
	s, err := newSupervisor(g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	target, log := filepath.Join(dir, "acme"), filepath.Join(dir, "log")
	put := func(tr Trailer) {
		t.Helper()
		if err := os.Rename(newTestPayload(t, dir, tr), target); err != nil {
			t.Fatal(err)
		}
	}
	put(Trailer{App: "acme", Version: "1.0.0"})
	addr, err := s.Add("m1", target, log)
	if err != nil {
		t.Fatal(err)
	}
	mustAnswer := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			got, err := askVersion(t.Context(), addr)
			if err == nil && got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("at %s answers %q, %v; want %s\n%s", addr, got, err, want, tail(log, 5))
			}
		}
	}
	order := func(action string) (string, error) {
		var out strings.Builder
		err := Control(t.Context(), action, s.URL("m1"), &out)
		return strings.TrimSpace(out.String()), err
	}
	mustAnswer("1.0.0")
	first, err := order("status")
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(first); err != nil || pid <= 0 {
		t.Errorf("status %q, want a process id", first)
	}

	put(Trailer{App: "acme", Version: "2.0.0"})
	mustAnswer("1.0.0") // a running program is not changed by its file
	if _, err := order("restart"); err != nil {
		t.Fatal(err)
	}
	mustAnswer("2.0.0")

	put(Trailer{App: "acme", Version: "3.0.0", Crash: true})
	if _, err := order("restart"); err != nil {
		t.Fatalf("a restart is done once the program is started, however it fares: %v", err)
	}
	<-s.programs["m1"].proc.done
	if pid, err := order("status"); err == nil {
		t.Errorf("status of a crashed program: %s", pid)
	}
	if v, err := askVersion(t.Context(), addr); err == nil {
		t.Errorf("a crashed program answers %q", v)
	}

	put(Trailer{App: "acme", Version: "2.0.0"})
	for range 2 { // starting what runs changes nothing
		if _, err := order("start"); err != nil {
			t.Fatal(err)
		}
	}
	mustAnswer("2.0.0")
	if _, err := order("stop"); err != nil {
		t.Fatal(err)
	}
	if _, err := order("status"); err == nil {
		t.Error("a stopped program runs")
	}
	if _, err := order("dance"); err == nil {
		t.Error("an unknown order was carried out")
	}
	if err := Control(t.Context(), "stop", s.base+"/m2", &strings.Builder{}); err == nil {
		t.Error("an order for an unknown machine was carried out")
	}
	stranger := strings.TrimSuffix(s.base, filepath.Base(s.base)) + "guess/m1/stop"
	resp, err := http.Post(stranger, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("without the secret: %s, want 404", resp.Status)
	}
}

func TestAProgramThatDoesNotStartIsToldOf(t *testing.T) {
	dir := t.TempDir()
	s, err := newSupervisor(newTestGroup(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	target := newTestPayload(t, dir, Trailer{App: "acme", Version: "3.0.0", Crash: true})
	if _, err := s.Add("m1", target, filepath.Join(dir, "log")); err == nil || !strings.Contains(err.Error(), "broken on purpose") {
		t.Errorf("Add = %v, want what the program said", err)
	}
}

func TestCloseEndsEvenWhatIgnoresIt(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup()
	g.grace = 50 * time.Millisecond
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "DEMO_TEST_STUBBORN=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Start(cmd, func() {
		buf := make([]byte, 4)
		out.Read(buf) // it ignores the signal by now
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if p.Running() {
		t.Error("a process outlived its group")
	}
	if _, err := g.Start(exec.Command(exe), nil); err == nil {
		t.Error("a closed group started a process")
	}
	g.Close() // a second time is nothing
}

func TestRunTellsHowACommandEnded(t *testing.T) {
	g := newTestGroup(t)
	res, err := g.Run(t.Context(), exec.Command("/bin/sh", "-c", "echo out; echo err >&2; exit 7"))
	if err != nil || res.exit != 7 || string(res.stdout) != "out\n" || string(res.stderr) != "err\n" {
		t.Errorf("Run = %d %q %q, %v", res.exit, res.stdout, res.stderr, err)
	}
	if _, err := g.Run(t.Context(), exec.Command("/nonexistent/program")); err == nil {
		t.Error("a program that does not exist ran")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := g.Run(ctx, exec.Command("/bin/sh", "-c", "sleep 600")); err != context.Canceled {
		t.Errorf("an interrupted Run = %v, want context.Canceled", err)
	}
}
