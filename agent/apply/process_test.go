//go:build linux

package apply

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/internal/fault"
)

// The environment by which the test program, run once more, is an agent that applies
// newProgram to the target and is killed meanwhile.
const (
	childTarget = "APPLY_TEST_TARGET"
	childState  = "APPLY_TEST_STATE"
	childSwap   = "APPLY_TEST_SWAP"
	childSick   = "APPLY_TEST_SICK"    // the new version is unwell
	childKillAt = "APPLY_TEST_KILL_AT" // SIGKILL at this call
	childHold   = "APPLY_TEST_HOLD"    // say so and wait when the locks are taken
)

// The exit statuses of that agent.
const (
	childConfirmed = 10
	childReverted  = 11
	childRefused   = 12
)

func TestMain(m *testing.M) {
	if target := os.Getenv(childTarget); target != "" {
		os.Exit(agentProcess(target))
	}
	if do := os.Getenv(crashDo); do != "" {
		os.Exit(crashProcess(do))
	}
	os.Exit(m.Run())
}

func agentProcess(target string) int {
	// strace counts calls by thread, and a Go program wanders between threads.
	runtime.LockOSThread()
	fsys := &faultFS{FS: osFS{}, atCall: func() { unix.Kill(os.Getpid(), unix.SIGKILL) }}
	fsys.at, _ = strconv.Atoi(os.Getenv(childKillAt))
	e, err := New(Options{StateDir: os.Getenv(childState), FS: fsys})
	if err != nil {
		panic(err)
	}
	p := Program{Target: Target{App: "acme", Path: target, Swap: os.Getenv(childSwap)}}
	if os.Getenv(childSick) != "" {
		p.Health = sickUnless{&realDir{target: target}, oldProgram}
	}
	u := updateTo(newProgram)
	u.Authorize = func(context.Context) error {
		if os.Getenv(childHold) != "" {
			fmt.Println("holding")
			io.Copy(io.Discard, os.Stdin)
		}
		return nil
	}
	res, err := e.Apply(context.Background(), p, u)
	switch {
	case res.State == Confirmed:
		return childConfirmed
	case res.State == Reverted:
		return childReverted
	case errors.Is(err, fault.Permission):
		fmt.Println(why(err))
		return childRefused
	}
	fmt.Printf("%+v, %v\n", res, why(err))
	return 1
}

// command returns the agent as a process, run by argv if there is one.
func (d *realDir) command(swap string, argv []string, env ...string) *exec.Cmd {
	argv = append(argv, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childTarget+"="+d.target, childState+"="+d.state, childSwap+"="+swap)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// assertRecovered asserts the promise on the real file system.
func (d *realDir) assertRecovered(swap, at string, want ...string) {
	d.t.Helper()
	res, err := d.engine().Recover(d.t.Context(), d.program(swap))
	if res.State == Failed || err != nil && !errors.Is(err, fault.HealthFailed) && !errors.Is(err, fault.Reverted) {
		d.t.Fatalf("%s: recovery: %+v, %v", at, res, err)
	}
	got, err := os.ReadFile(d.target)
	if err != nil || !slices.Contains(want, string(got)) {
		d.t.Fatalf("%s: the target is %s, %v; want %s", at, called(string(got)), err, called(want...))
	}
	if fi, err := os.Stat(d.target); err != nil || fi.Mode() != 0o751 {
		d.t.Fatalf("%s: mode %v, %v", at, fi.Mode(), err)
	}
	for _, name := range d.beside() {
		if _, ok := (names{d.target}).isPrevious(filepath.Join(d.dir, name)); !ok {
			d.t.Fatalf("%s: %q was left", at, name)
		}
	}
	if res, err := d.engine().Recover(d.t.Context(), d.program(swap)); res.State != Idle || err != nil {
		d.t.Fatalf("%s: second recovery: %+v, %v", at, res, err)
	}
}

// A real process is killed with SIGKILL at calls of its file system.
func TestKilledProcess(t *testing.T) {
	rows := []struct {
		name string
		sick string
		exit int
		want []string
	}{
		{"healthy", "", childConfirmed, []string{oldProgram, newProgram}},
		{"unhealthy", "yes", childReverted, []string{oldProgram}},
	}
	for _, r := range rows {
		eachSwap(t, func(t *testing.T, swap string) {
			step := 7
			if thorough {
				step = 1
			}
			for k := 1; ; k += step {
				d := newRealDir(t, oldProgram, 0o751)
				if r.sick != "" {
					d.tweak = func(p *Program) { p.Health = sickUnless{d, oldProgram} }
				}
				cmd := d.command(swap, nil, fmt.Sprintf("%s=%d", childKillAt, k), childSick+"="+r.sick)
				out, err := cmd.CombinedOutput()
				at := fmt.Sprintf("%s, killed at call %d", r.name, k)
				if cmd.ProcessState.ExitCode() == r.exit {
					if k < 30 {
						t.Fatalf("it made only %d calls", k)
					}
					return
				}
				if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signal() != syscall.SIGKILL {
					t.Fatalf("%s: %v, %s", at, err, out)
				}
				d.assertRecovered(swap, at, r.want...)
			}
		})
	}
}

// The same at every rename, link and unlink that the kernel sees, so also inside
// minio/selfupdate.
func TestLongCrashAtSystemCalls(t *testing.T) {
	long(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace: to kill a process inside another package's code")
	}
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace here: %s", out)
	}
	eachSwap(t, func(t *testing.T, swap string) {
		kills, gaps := 0, 0
		for _, call := range []string{"rename", "link", "unlink"} {
			calls := "/^" + call + "(at2?)?$"
			for n := 1; ; n++ {
				d := newRealDir(t, oldProgram, 0o751)
				cmd := d.command(swap, []string{
					strace, "-f", "-o", "/dev/null", "-e", "trace=" + calls, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n),
				})
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState.ExitCode() == childConfirmed {
					break
				}
				st := cmd.ProcessState.Sys().(syscall.WaitStatus)
				if !st.Signaled() || st.Signal() != syscall.SIGKILL {
					t.Fatalf("%s %d: %v, %s", call, n, err, out)
				}
				kills++
				if _, err := os.Stat(d.target); err != nil {
					gaps++
				}
				d.assertRecovered(swap, fmt.Sprintf("killed at %s %d", call, n), oldProgram, newProgram)
			}
		}
		if kills < 8 {
			t.Errorf("it was killed only %d times", kills)
		}
		if want := map[string]int{SwapRename: 0, SwapSelfupdate: 1}[swap]; gaps != want {
			t.Errorf("%d times there was no program, want %d", gaps, want)
		}
	})
}

func TestKilledHolderLeavesNoLock(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o751)
	cmd := d.command(SwapRename, nil, childHold+"=yes")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "holding\n" {
		t.Errorf("the agent said %q, %v", line, err)
	}
	_, err = d.apply(SwapRename, newProgram)
	if !errors.Is(err, fault.Locked) {
		t.Errorf("while another holds the lock: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	d.assertRecovered(SwapRename, "killed", oldProgram)
	d.mustApply(SwapRename, newProgram)
}

// An agent that is not root refuses what it cannot keep, and says what that is.
func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	rows := []struct {
		name string
		set  func(target string) error
		exit int
		says string
	}{
		{"own-program", func(target string) error { return os.Chown(target, nobody, nobody) }, childConfirmed, ""},
		{"another-users-program", func(target string) error { return os.Chmod(target, 0o755) }, childRefused, "owner 0:0"},
		{"another-group", func(target string) error { return os.Chown(target, nobody, 1) }, childRefused, "owner 65534:1"},
		{"capabilities", func(target string) error {
			if err := os.Chown(target, nobody, nobody); err != nil {
				return err
			}
			return unix.Setxattr(target, "security.capability", capNetBind, 0)
		}, childRefused, "security.capability"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			d := newRealDir(t, oldProgram, 0o751)
			d.state = filepath.Join(d.dir, "state")
			exe := filepath.Join(filepath.Dir(d.dir), "agent")
			b, err := os.ReadFile(os.Args[0])
			if err == nil {
				err = os.WriteFile(exe, b, 0o755)
			}
			for _, dir := range []string{d.dir, filepath.Dir(d.dir)} {
				err = errors.Join(err, os.Chown(dir, nobody, nobody))
			}
			err = errors.Join(err, os.Chmod(filepath.Dir(filepath.Dir(d.dir)), 0o755))
			if err = errors.Join(err, r.set(d.target)); err != nil {
				t.Fatal(err)
			}
			before := metaOf(t, d.target)
			cmd := d.command(SwapRename, nil)
			cmd.Path, cmd.Dir = exe, "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != r.exit || !strings.Contains(string(out), r.says) {
				t.Fatalf("%v: %s", err, out)
			}
			if r.exit == childConfirmed {
				d.assertContent(newProgram)
			} else {
				d.assertContent(oldProgram)
			}
			if after := metaOf(t, d.target); !after.equal(before) {
				t.Errorf("metadata %+v became %+v", before, after)
			}
		})
	}
}
