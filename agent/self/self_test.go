//go:build !windows

package self

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shoal/agent/service"
	"shoal/agent/state"
	"shoal/internal/control"
	"shoal/internal/fault"
)

func write(t *testing.T, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
}

const answers = "#!/bin/sh\necho '{\"schema\": \"shoal.self-check/v1\"}'\n"

func TestTrial(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("SHOAL_LISTEN", ":1")
	rows := []struct {
		name, program string
		perm          os.FileMode
		err           string // part of the error; empty means fit
	}{
		{"fit", answers, 0o755, ""},
		{"gets-arguments-and-environment", answers + "[ \"$1 $2 $SHOAL_LISTEN\" = 'self-check now :1' ]\n", 0o755, ""},
		{"cannot-speak-to-the-supervisor", answers + "[ -z \"$NOTIFY_SOCKET\" ]\n", 0o755, ""},
		{"exits-1", answers + "exit 1\n", 0o755, "exited 1"},
		{"is-another-program", "#!/bin/sh\necho hello\n", 0o755, "did not answer as an agent does"},
		{"is-empty", "", 0o755, "exec format error"},
		{"is-for-another-system", "\x7fELF\x02\x01\x01", 0o755, "exec format error"},
		{"lacks-its-loader", "#!/nowhere/ld.so\n", 0o755, "no such file"},
		{"is-no-program", answers, 0o644, "permission denied"},
		{"hangs", answers + "sleep 600\n", 0o755, "timed out"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "staged")
			write(t, path, r.program, r.perm)
			within := time.Minute
			if r.name == "hangs" {
				within = 300 * time.Millisecond
			}
			err := trial([]string{"self-check", "now"}, within)(context.Background(), path)
			if (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
				t.Errorf("%v, want %q", err, r.err)
			}
		})
	}
}

// A file that some child has still open for writing can be run a moment later.
func TestTrialOfABusyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "staged")
	write(t, path, answers, 0o755)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*busyPause, func() { f.Close() })
	if err := Trial(nil)(t.Context(), path); err != nil {
		t.Error(err)
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "shoal"), filepath.Join(dir, "link")
	write(t, path, "one", 0o755)
	if err := os.Symlink("shoal", link); err != nil {
		t.Fatal(err)
	}
	p, err := At(link)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Is(path) || !p.Is(link) || p.Is(dir) || p.Is(filepath.Join(dir, "none")) || (*Program)(nil).Is(path) {
		t.Error("it does not know itself")
	}
	svc := p.Service()
	if st, err := svc.State(t.Context()); err != nil || !st.Running || st.PID != os.Getpid() {
		t.Errorf("state %+v, %v", st, err)
	}
	if err := svc.Restart(t.Context()); err != nil {
		t.Errorf("what is installed runs: %v", err)
	}
	write(t, path+".new", "two", 0o755)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := svc.Restart(t.Context()); !errors.Is(err, service.ErrSelf) {
		t.Errorf("what is installed does not run: %v", err)
	}
}

func TestNothingToRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(t.TempDir(), "shoal")
	write(t, path, "one", 0o755)
	p, err := At(path)
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(what string) {
		t.Helper()
		if back, err := Start(dir, p); back || err != nil {
			t.Errorf("%s: start: %v, %v", what, back, err)
		}
		if target, err := Recover(dir); target != "" || err != nil {
			t.Errorf("%s: recover: %q, %v", what, target, err)
		}
	}
	nothing("no state")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a state was made: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "apply", "acme-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	nothing("nothing under way")
	s, err := state.Open(dir, filepath.Join(dir, "anchor.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Recover(dir); !errors.Is(err, fault.Locked) {
		t.Errorf("under a running agent: %v, want locked", err)
	}
}

// A command that is at work when an agent starts must not keep the start from being counted,
// and when the guard is called, not from what was there before.
func TestACommandKeepsNobodyFromThis(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shoal")
	write(t, path, "one", 0o755)
	p, err := At(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(dir string) error{
		"start":   func(dir string) error { _, err := Start(dir, p); return err },
		"recover": func(dir string) error { _, err := Recover(dir); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.MkdirAll(filepath.Join(dir, "apply"), 0o700); err != nil {
				t.Fatal(err)
			}
			s, err := state.Open(dir, filepath.Join(dir, "anchor.json"))
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(4*busyPause, func() { s.Close() })
			if err := do(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "shoal")
	keep := func(same bool) {
		t.Helper()
		if err := KeepGuard(program); err != nil {
			t.Fatal(err)
		}
		p, err := os.Stat(program)
		g, gerr := os.Stat(Guard(program))
		if err != nil || gerr != nil || os.SameFile(p, g) != same {
			t.Errorf("the guard is the program's file: %v, want %v; %v, %v", !same, same, err, gerr)
		}
	}
	write(t, program, "one", 0o755)
	keep(true)
	keep(true)
	write(t, program+".2", "two", 0o755)
	if err := os.Rename(program+".2", program); err != nil {
		t.Fatal(err)
	}
	write(t, Guard(program)+".new", "left by a crash", 0o600)
	keep(true)
	// Where files have one name each, it is a copy, made once.
	if err := os.Remove(Guard(program)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(program, Guard(program), info); err != nil {
		t.Fatal(err)
	}
	keep(false)
	if b, err := os.ReadFile(Guard(program)); err != nil || string(b) != "two" {
		t.Errorf("the copy is %q, %v", b, err)
	}
	for range 2 {
		if err := DropGuard(program); err != nil {
			t.Error(err)
		}
	}
	if err := os.Symlink("/bin/sh", Guard(program)); err != nil {
		t.Fatal(err)
	}
	if err := KeepGuard(program); err == nil {
		t.Error("somebody's link was taken for a guard")
	}
}

func TestGate(t *testing.T) {
	bad := errors.New("threshold")
	rows := []struct {
		name    string
		cycles  map[time.Duration]error // when they end, and how
		after   time.Duration           // when it is decided; rounded to seconds
		err     string                  // part of the error; empty means passed
		probe   error                   // right then
		stopped time.Duration           // when ctx ends; zero is never
	}{
		{"good-at-once", map[time.Duration]error{time.Second: nil}, time.Minute, "", nil, 0},
		{"good-late", map[time.Duration]error{time.Second: bad, 5 * time.Minute: nil}, 5 * time.Minute, "", nil, 0},
		{"good-and-then-bad", map[time.Duration]error{time.Second: nil, 2 * time.Second: bad}, time.Minute, "", bad, 0},
		{"never-good", map[time.Duration]error{time.Second: bad}, 9 * time.Minute, "another update after 9m0s: threshold", bad, 0},
		{"no-cycle", nil, 9 * time.Minute, "no cycle was finished", nil, 0},
		{"stopped", nil, 30 * time.Second, context.Canceled.Error(), nil, 30 * time.Second},
		{"stopped-while-it-settles", map[time.Duration]error{time.Second: nil}, 30 * time.Second, context.Canceled.Error(), nil, 30 * time.Second},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(0)
				if g.Probe(t.Context()) == nil {
					t.Error("open before any cycle")
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if r.stopped > 0 {
					time.AfterFunc(r.stopped, cancel)
				}
				for at, err := range r.cycles {
					time.AfterFunc(at, func() { g.Cycle(err) })
				}
				began := time.Now()
				err := g.Check(ctx)
				if (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
					t.Errorf("%v, want %q", err, r.err)
				}
				if after := time.Since(began); after != r.after {
					t.Errorf("decided after %v, want %v", after, r.after)
				}
				if got := g.Probe(ctx); len(r.cycles) > 0 && got != r.probe {
					t.Errorf("probe: %v, want %v", got, r.probe)
				}
			})
		})
	}
}
