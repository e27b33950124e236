package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/agent"
	"shoal/agent/agenttest"
	"shoal/agent/self"
	"shoal/agent/state"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// unit is a service manager with the agent as its one service, as far as it matters to
// an agent that replaces itself: Type=notify, Restart=always, StartLimitBurst=5,
// RestartPreventExitStatus=64 78, and OnFailure= with the guard.
type unit struct {
	t            *testing.T
	exe, dir     string
	supervised   bool
	startTimeout time.Duration

	ready  atomic.Bool
	ended  atomic.Int64
	guards atomic.Int64

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

const startBurst = 5

func (u *unit) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Write(b)
}

// start runs the unit until the test ends.
func (u *unit) start() {
	u.t.Helper()
	// systemctl tells by a file that it was asked to start the unit.
	ctl := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %[1]s/calls\n[ \"$1\" != start ] || touch %[1]s/started\n", u.dir)
	if err := os.WriteFile(filepath.Join(u.dir, "systemctl"), []byte(ctl), 0o755); err != nil {
		u.t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(u.dir, "notify")})
	if err != nil {
		u.t.Fatal(err)
	}
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if string(b[:n]) == "READY=1" {
				u.ready.Store(true)
			}
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.run(ctx)
	}()
	u.t.Cleanup(func() {
		cancel()
		<-done
		conn.Close()
		if u.t.Failed() {
			u.t.Logf("the unit's journal:\n%s", u.log.Bytes())
		}
	})
}

func (u *unit) run(ctx context.Context) {
	for burst := 0; ctx.Err() == nil; {
		if burst == startBurst {
			if !u.onFailure() {
				u.t.Error("the unit has failed, and stays so")
				return
			}
			burst = 0
		}
		burst++
		if status := u.once(ctx); status == 64 || status == 78 {
			burst = startBurst
		}
		if u.ended.Add(1) == 1 {
			burst = 0 // as if that had been days ago
		}
	}
}

// once runs the agent to its end and returns its exit status.
func (u *unit) once(ctx context.Context) int {
	cmd := exec.Command(u.exe, "--config", filepath.Join(u.dir, "agent.yaml"), "--state", filepath.Join(u.dir, "state"), "agent", "run")
	cmd.Stdout, cmd.Stderr = u, u
	cmd.Env = os.Environ()
	if u.supervised {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(u.dir, "notify"))
	}
	u.ready.Store(false)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(u, "unit:", err)
		return 203
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	timeout := time.After(u.startTimeout)
	for {
		select {
		case <-ended:
			fmt.Fprintln(u, "unit: the agent ended:", cmd.ProcessState)
			return cmd.ProcessState.ExitCode()
		case <-timeout:
			if u.ready.Load() || !u.supervised {
				continue
			}
			fmt.Fprintln(u, "unit: the agent is not ready in time")
		case <-ctx.Done():
		}
		cmd.Process.Kill()
		<-ended
		return -1
	}
}

// onFailure calls the guard, and reports whether the unit was started again.
func (u *unit) onFailure() bool {
	u.guards.Add(1)
	guard := exec.Command(self.Guard(u.exe), "recover-self", "--state", filepath.Join(u.dir, "state"), "--restart", "shoal-agent.service")
	guard.Env = append(os.Environ(), "PATH="+u.dir+":"+os.Getenv("PATH"))
	out, err := guard.CombinedOutput()
	fmt.Fprintf(u, "unit: the guard: %s%v\n", out, err)
	return os.Remove(filepath.Join(u.dir, "started")) == nil
}

// selfBench is a publisher of agents, and a machine whose agent is one of them.
type selfBench struct {
	*agenttest.Publisher
	*unit
	old []byte
}

func newSelfBench(t *testing.T, settle time.Duration) *selfBench {
	t.Helper()
	b := &selfBench{Publisher: agenttest.New(t), old: agentVersion(t, good, "1")}
	u := &unit{t: t, dir: t.TempDir(), supervised: true, startTimeout: 30 * time.Second}
	b.unit = u
	u.exe = filepath.Join(u.dir, "opt", "shoal")
	if err := os.Mkdir(filepath.Dir(u.exe), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(u.exe, b.old, 0o755); err != nil {
		t.Fatal(err)
	}
	// time: floor, since this fleet's documents have a date of their own. A directory as
	// source, since it knows of no peers that one would wait for.
	config := fmt.Sprintf("listen: 127.0.0.1:0\ntime: floor\nsettle: %s\ncheck: {every: 1s}\ndisk: {reserve: 0}\nsources: {publisher: %q}\n"+
		"apps:\n- {name: acme, channel: stable, target: %s}\n", settle, b.Publisher.Dir, u.exe)
	if err := os.WriteFile(filepath.Join(u.dir, "agent.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (&state.Pin{Repo: manifest.FleetID(b.Pin())}).Write(filepath.Join(u.dir, "join.json")); err != nil {
		t.Fatal(err)
	}
	return b
}

// until waits until the agent has said of itself what is wanted.
func (b *selfBench) until(what string, ok func(*agent.AppStatus) bool) {
	b.t.Helper()
	var last *agent.Status
	if !comes(func() bool {
		s, err := agent.ReadStatus(filepath.Join(b.dir, "state"))
		if err != nil {
			return false
		}
		last = s
		return ok(&s.Apps[0])
	}) {
		b.t.Fatalf("waited in vain for %s; last was %+v", what, last)
	}
}

func (b *selfBench) has(name, path string, want []byte) {
	b.t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		b.t.Errorf("%s is not the wanted version: %d bytes, %v", name, len(got), err)
	}
}

// wantGood offers a good version, and asserts that it is confirmed.
func (b *selfBench) wantGood() {
	b.t.Helper()
	next := agentVersion(b.t, good, "2")
	b.Release(mt.Stable, 2, next)
	b.start()
	b.until("a confirmed version", func(s *agent.AppStatus) bool { return s.State == manifest.StateHealthy && s.Version == "1.0.2" })
	b.has("the agent", b.exe, next)
	b.has("the guard", self.Guard(b.exe), next)
	if n := b.guards.Load(); n != 0 {
		b.t.Errorf("the guard was called %d times", n)
	}
}

// wantBack offers a bad version, and asserts that the old one runs, and goes on to do so
// when the same bytes are offered once more.
func (b *selfBench) wantBack(next []byte) {
	b.t.Helper()
	b.Release(mt.Stable, 2, next)
	b.start()
	for sequence := int64(2); sequence <= 3; sequence++ {
		b.until("the mark on the bad version", func(s *agent.AppStatus) bool {
			return s.Sequence == sequence && (s.State == manifest.StateReverted || s.State == manifest.StateFailed)
		})
		b.has("the agent", b.exe, b.old)
		b.has("the guard", self.Guard(b.exe), b.old)
		b.Release(mt.Stable, sequence+1, next)
	}
}

// An agent that nobody supervises starts its new version in its own stead.
func TestSelfUpdateUnsupervised(t *testing.T) {
	t.Parallel()
	b := newSelfBench(t, 500*time.Millisecond)
	b.supervised = false
	b.wantGood()
	if n := b.ended.Load(); n != 0 {
		t.Errorf("the process ended %d times", n)
	}
}

// A new version that ends before it does anything is put back by the guard.
func TestSelfUpdateThatDoesNotStart(t *testing.T) {
	t.Parallel()
	b := newSelfBench(t, 500*time.Millisecond)
	b.wantBack(agentVersion(t, exitsAtRun, "2"))
	calls, err := os.ReadFile(filepath.Join(b.dir, "calls"))
	if n := b.guards.Load(); n != 1 || err != nil || string(calls) != "reset-failed shoal-agent.service\nstart shoal-agent.service\n" {
		t.Errorf("the guard was called %d times, and systemctl so: %q, %v", n, calls, err)
	}
}

func TestLongSelfUpdate(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("takes a minute; SHOAL_LONG=1 runs it")
	}
	t.Run("good", func(t *testing.T) {
		b := newSelfBench(t, 2*time.Second)
		b.wantGood()
		if n := b.ended.Load(); n != 1 {
			t.Errorf("the agent ended %d times, want once", n)
		}
	})
	rows := []struct {
		name string
		next func(t *testing.T) []byte
		// How often the agent ended: not at all, when the new version is not even swapped in;
		// else once to start the new version, which ends three times and then to go back.
		ended int64
	}{
		{"exits-1", func(t *testing.T) []byte { return agentVersion(t, justExits, "2") }, 0},
		{"panics-in-init", func(t *testing.T) []byte { return agentVersion(t, panics, "2") }, 0},
		{"is-empty-but-for-a-byte", func(*testing.T) []byte { return []byte{0} }, 0},
		{"is-for-another-processor", func(t *testing.T) []byte { return otherMachine(agentVersion(t, good, "2")) }, 0},
		{"hangs-before-ready", func(t *testing.T) []byte { return agentVersion(t, hangsAtRun, "2") }, 5},
		{"kills-itself-later", func(t *testing.T) []byte { return agentVersion(t, diesWhenRun, "2") }, 5},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newSelfBench(t, 6*time.Second)
			b.startTimeout = 10 * time.Second
			b.wantBack(r.next(t))
			if n, guards := b.ended.Load(), b.guards.Load(); n != r.ended || guards != 0 {
				t.Errorf("the agent ended %d times and the guard was called %d times, want %d and none", n, guards, r.ended)
			}
		})
	}
}

// otherMachine makes a program one for another processor.
func otherMachine(program []byte) []byte {
	m := elf.EM_S390
	const at = 18 // of e_machine
	binary.NativeEndian.PutUint16(program[at:], uint16(m))
	return program
}
