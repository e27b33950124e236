//go:build linux

package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/agent/service"
)

const supervisedUpdates = 20

// keeper starts a program again whenever it ends, as an init system does, and leaves its
// process id in a file.
type keeper struct {
	start   func() *exec.Cmd
	pidFile string // none if empty

	mu     sync.Mutex
	cmd    *exec.Cmd
	kills  int
	failed []error // to start
	over   bool
}

// keep runs the program until it exits 0 or stop is called.
func (k *keeper) keep() {
	for {
		k.mu.Lock()
		if k.over {
			k.mu.Unlock()
			return
		}
		cmd := k.start()
		err := cmd.Start()
		if err != nil {
			k.failed = append(k.failed, err)
			k.mu.Unlock()
			time.Sleep(time.Millisecond)
			continue
		}
		k.cmd = cmd
		if k.pidFile != "" {
			writeWhole(k.pidFile, strconv.Itoa(cmd.Process.Pid))
		}
		k.mu.Unlock()
		if cmd.Wait() == nil {
			return
		}
	}
}

func (k *keeper) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd != nil {
		k.kills++
		k.cmd.Process.Kill()
	}
}

func (k *keeper) stop() {
	k.mu.Lock()
	k.over = true
	k.mu.Unlock()
	k.kill()
}

// writeWhole replaces a file in one step.
func writeWhole(path, content string) error {
	if err := os.WriteFile(path+".tmp", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// A program that runs under a supervisor is updated again and again, while it and the
// agent are killed at random: it can be started at every moment, and what is started is
// the old version or the new one.
func TestLongCrashSupervisedProgram(t *testing.T) {
	long(t)
	dir := memoryDir(t)
	target := filepath.Join(dir, "bin", "acme")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"bin", "artifacts", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n := range supervisedUpdates + 1 {
		if err := os.WriteFile(filepath.Join(dir, "artifacts", strconv.Itoa(n)), programOf(self, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(target, programOf(self, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "begun"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	role := func(path, do string) func() *exec.Cmd {
		return func() *exec.Cmd {
			cmd := exec.Command(path)
			cmd.Env = append(os.Environ(), crashDo+"="+do, crashDir+"="+dir)
			cmd.Stderr = os.Stderr
			return cmd
		}
	}
	program := &keeper{start: role(target, "serve"), pidFile: filepath.Join(dir, "pid")}
	agent := &keeper{start: role(os.Args[0], "keep-updated")}
	var keepers, killers sync.WaitGroup
	keepers.Go(program.keep)
	done := make(chan struct{})
	keepers.Go(func() { agent.keep(); close(done) })
	for k, most := range map[*keeper]int{program: 300, agent: 400} {
		killers.Go(func() {
			for n := 0; ; n++ {
				wait := most
				if n < 15 { // a fast machine is done before long waits have killed enough
					wait = 120
				}
				select {
				case <-done:
					return
				case <-time.After(time.Duration(20+rand.IntN(wait)) * time.Millisecond):
					k.kill()
				}
			}
		})
	}
	select {
	case <-done:
	case <-time.After(4 * time.Minute):
		t.Error("the updates did not come to an end")
		agent.stop()
	}
	killers.Wait()
	if v, err := versionOf(target); v != supervisedUpdates || err != nil {
		t.Errorf("installed is %d, %v", v, err)
	}
	program.stop()
	keepers.Wait()
	for _, err := range program.failed {
		t.Errorf("the program could not be started: %v", err)
	}
	if agent.kills < 10 || program.kills < 10 {
		t.Errorf("%d kills of the agent, %d of the program: that shows little", agent.kills, program.kills)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	starts, seen := 0, map[int]bool{}
	for line := range strings.Lines(string(log)) {
		var version, begun int
		if _, err := fmt.Sscan(line, &version, &begun); err != nil || version != begun && version != begun-1 {
			t.Errorf("a program said %q: its version, and the one that was being installed; %v", line, err)
		}
		starts++
		seen[version] = true
	}
	if len(seen) < supervisedUpdates {
		t.Errorf("only %d versions ever ran", len(seen))
	}
	t.Logf("%d starts of %d versions; %d kills of the agent, %d of the program", starts, len(seen), agent.kills, program.kills)
}

const versionMark = "\nversion of this program: "

// programOf is this test's own program, as version n.
func programOf(self []byte, n int) []byte {
	return fmt.Appendf(bytes.Clone(self), "%s%d\n", versionMark, n)
}

func versionOf(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return -1, err
	}
	tail := make([]byte, 64)
	if _, err := f.ReadAt(tail, i.Size()-int64(len(tail))); err != nil {
		return -1, err
	}
	_, version, ok := strings.Cut(string(tail), versionMark)
	if !ok {
		return -1, errors.New("the program does not end as it should")
	}
	return strconv.Atoi(strings.TrimSpace(version))
}

// serve is the program: it says which version it is, and runs.
func serve(dir string) int {
	version, err := versionOf("/proc/self/exe")
	if err != nil {
		fmt.Fprintln(os.Stderr, "the program is not whole:", err)
		return 1
	}
	begun, err := os.ReadFile(filepath.Join(dir, "begun"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(log, "%d %s\n", version, begun)
	}
	if err == nil {
		err = writeWhole(filepath.Join(dir, fmt.Sprint("up.", os.Getpid())), strconv.Itoa(version))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// keepUpdated is the agent: it updates until the last version is confirmed.
func keepUpdated(dir string) int {
	w := crashWorld{Dir: dir, Kind: KindBinary, Swap: SwapRename}
	e := w.engine(nil)
	p := w.program()
	svc := supervised(dir)
	p.Service, p.Health, p.ConfirmWithin = svc, svc, 20*time.Second
	ctx := context.Background()
	for {
		if _, err := e.Recover(ctx, p); err != nil {
			fmt.Println("recovered:", err) // a version that was killed too often is put back
		}
		if err := e.ClearFailed(p.Target); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		now, err := versionOf(p.Target.Path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if now == supervisedUpdates {
			return 0
		}
		next := strconv.Itoa(now + 1)
		if err := writeWhole(filepath.Join(dir, "begun"), next); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		f, err := os.Open(filepath.Join(dir, "artifacts", next))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		i, err := f.Stat()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		d, err := hashFile(osFile{f})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_, err = e.Apply(ctx, p, Update{
			To: Release{Version: next, SHA256: d, Length: i.Size()}, Source: f, Authorize: func(context.Context) error { return nil },
		})
		f.Close()
		if err != nil {
			fmt.Println("applied:", err)
		}
	}
}

// supervised is the program under its supervisor, as the agent sees it.
type supervised string

func (s supervised) pid() int {
	b, err := os.ReadFile(filepath.Join(string(s), "pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(b))
	return pid
}

func (s supervised) State(context.Context) (service.State, error) {
	pid := s.pid()
	return service.State{Running: pid > 0 && syscall.Kill(pid, 0) == nil, Enabled: true, PID: pid}, nil
}

// Restart ends it, and waits for what the supervisor starts instead.
func (s supervised) Restart(ctx context.Context) error {
	old := s.pid()
	syscall.Kill(old, syscall.SIGKILL)
	return s.until(ctx, func() bool { return s.pid() != old })
}

func (s supervised) Start(context.Context) error { return nil }
func (s supervised) Stop(context.Context) error  { return nil }

// Probe sees that what runs is what is installed.
func (s supervised) Probe(context.Context) error {
	installed, err := versionOf(filepath.Join(string(s), "bin", "acme"))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(string(s), fmt.Sprint("up.", s.pid())))
	if err != nil {
		return err
	}
	if string(b) != strconv.Itoa(installed) {
		return fmt.Errorf("%s runs, %d is installed", b, installed)
	}
	return nil
}

func (s supervised) Check(ctx context.Context) error {
	return s.until(ctx, func() bool { return s.Probe(ctx) == nil })
}

func (s supervised) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
