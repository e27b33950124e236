//go:build linux

package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/agent/service"
	"shoal/internal/fault"
)

// long skips a test that make test-crash runs.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("takes minutes, or is for root; set SHOAL_LONG=1, or run make test-crash")
	}
}

// crashWorld is a machine on the real file system, as this process and the one that is
// killed see it. Its artifacts are files called after their versions.
type crashWorld struct {
	Dir, Kind, Swap string
	Sick            []string // versions that fail their check
	Crashing        []string // versions that cannot be started
	Commands        string   // "idempotent" if an installer's are

	set func(*Installer)
}

// worlds are the ways in which an artifact is swapped.
var worlds = []crashWorld{
	{Kind: KindBinary, Swap: SwapRename},
	{Kind: KindBinary, Swap: SwapSelfupdate},
	{Kind: KindTree, Swap: SwapRename},
}

func (w crashWorld) name() string { return w.Kind + "-" + w.Swap }

func (w crashWorld) path(name string) string { return filepath.Join(w.Dir, name) }

// make makes the world's directories, and artifacts of these versions.
func (w crashWorld) make(t testing.TB, versions ...string) {
	t.Helper()
	for _, sub := range []string{"bin", "state", "artifacts"} {
		if err := os.MkdirAll(w.path(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range versions {
		b := []byte(strings.Repeat("program of version "+v+"\n", 1000))
		if w.Kind == KindTree {
			b = treeOf(t, v)
		}
		if err := os.WriteFile(w.path("artifacts/"+v), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (w crashWorld) engine(fsys FS) *Engine {
	e, err := New(Options{StateDir: w.path("state/apply"), FS: fsys})
	if err != nil {
		panic(err)
	}
	return e
}

func (w crashWorld) program() Program {
	p := Program{
		Target:  Target{App: "acme", Path: w.path("bin/acme"), Kind: w.Kind, Swap: w.Swap, AllowInstall: true},
		Service: crashService{w}, Health: crashHealth{w},
	}
	switch w.Kind {
	case KindTree:
		p.Target.Path = w.path("bin")
	case KindInstaller:
		in := Installer{Command: []string{w.path("install"), "{file}"}, Idempotent: w.Commands == "idempotent"}
		if _, err := os.Stat(w.path("revert")); err == nil {
			in.Revert = []string{w.path("revert"), "{file}"}
		}
		if w.set != nil {
			w.set(&in)
		}
		p.Target.Installer = in
	}
	return p
}

func (w crashWorld) apply(e *Engine, version string) (Result, error) {
	f, err := os.Open(w.path("artifacts/" + version))
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return Result{}, err
	}
	d, err := hashFile(osFile{f})
	if err != nil {
		return Result{}, err
	}
	return e.Apply(context.Background(), w.program(), Update{
		To: Release{Version: version, SHA256: d, Length: i.Size()}, Source: f, Authorize: func(context.Context) error { return nil },
	})
}

func (w crashWorld) revert(e *Engine) (Result, error) {
	return e.Revert(context.Background(), w.program(), "", func(context.Context, Release) error { return nil })
}

// installed is the version that is installed, whole; empty when there is none.
func (w crashWorld) installed() (string, error) {
	if w.Kind == KindTree {
		return (&treeDir{dir: w.path("bin")}).version()
	}
	b, err := os.ReadFile(w.path("bin/acme"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	version, ok := strings.CutPrefix(line, "program of version ")
	if i, err := os.Stat(w.path("bin/acme")); err != nil || i.Mode() != 0o755 {
		return "", fmt.Errorf("its mode is %v, %v", i.Mode(), err)
	}
	if !ok || string(b) != strings.Repeat("program of version "+version+"\n", 1000) {
		return "", fmt.Errorf("it is %d bytes that begin with %.40q", len(b), b)
	}
	return version, nil
}

func (w crashWorld) assert(t testing.TB, at string, want ...string) string {
	t.Helper()
	got, err := w.installed()
	if err != nil || !slices.Contains(want, got) {
		t.Fatalf("%s: installed is %q, %v; want one of %q", at, got, err, want)
	}
	return got
}

// assertRecovered asserts the promise, and that all can go on: to version next.
func (w crashWorld) assertRecovered(t testing.TB, at, next string, want ...string) {
	t.Helper()
	res, err := w.program().recoverBy(w.engine(nil))
	if res.State == Failed || err != nil && !errors.Is(err, fault.HealthFailed) && !errors.Is(err, fault.Reverted) {
		t.Fatalf("%s: recovery: %+v, %s", at, res, why(err))
	}
	w.assert(t, fmt.Sprintf("%s, recovered to %q (%v)", at, res.State, err), want...)
	if res, err := w.program().recoverBy(w.engine(nil)); res.State != Idle || err != nil {
		t.Fatalf("%s: second recovery: %+v, %v", at, res, err)
	}
	target := w.path("bin/acme")
	if w.Kind == KindTree {
		target = w.path("bin/current")
		(&treeDir{t: t, dir: w.path("bin")}).assertTidy(at)
	}
	list, err := os.ReadDir(w.path("bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if n := (names{target}); n.isLitter(w.path("bin/" + e.Name())) {
			t.Fatalf("%s: %q was left", at, e.Name())
		}
	}
	if res, err := w.apply(w.engine(nil), next); err != nil {
		t.Fatalf("%s: the next update: %+v, %s", at, res, why(err))
	}
	w.assert(t, at+", updated", next)
}

func (p Program) recoverBy(e *Engine) (Result, error) { return e.Recover(context.Background(), p) }

// crashService runs whatever is installed, and says so of itself.
type crashService struct{ w crashWorld }

func (s crashService) State(context.Context) (service.State, error) {
	return service.State{Running: true, Enabled: true, PID: 1}, nil
}

func (s crashService) Restart(context.Context) error {
	v, err := s.w.installed()
	if err == nil && slices.Contains(s.w.Crashing, v) {
		err = fmt.Errorf("%s cannot be started", v)
	}
	return err
}

func (s crashService) Start(ctx context.Context) error { return s.Restart(ctx) }
func (s crashService) Stop(context.Context) error      { return nil }

type crashHealth struct{ w crashWorld }

func (h crashHealth) Probe(context.Context) error {
	v, err := h.w.installed()
	if err == nil && slices.Contains(h.w.Sick, v) {
		err = fmt.Errorf("%s is unwell", v)
	}
	return err
}

func (h crashHealth) Check(ctx context.Context) error { return h.Probe(ctx) }

// The environment by which the test program, run once more, does something in a world.
const (
	crashDo     = "APPLY_CRASH_DO" // "apply VERSION", "revert" or "recover"
	crashDir    = "APPLY_CRASH_DIR"
	crashKind   = "APPLY_CRASH_KIND"
	crashSwap   = "APPLY_CRASH_SWAP"
	crashSick   = "APPLY_CRASH_SICK"
	crashBroken = "APPLY_CRASH_CRASHING"
	crashKillAt = "APPLY_CRASH_KILL_AT" // SIGKILL at this call to the file system
)

const crashDone = 20 // exit status of a process that was not killed

// crashProcess is that process.
func crashProcess(do string) int {
	w := crashWorld{
		Dir: os.Getenv(crashDir), Kind: os.Getenv(crashKind), Swap: os.Getenv(crashSwap),
		Sick: strings.Fields(os.Getenv(crashSick)), Crashing: strings.Fields(os.Getenv(crashBroken)),
	}
	switch do {
	case "serve":
		return serve(w.Dir)
	case "keep-updated":
		return keepUpdated(w.Dir)
	}
	fsys := &faultFS{FS: osFS{}, atCall: func() { unix.Kill(os.Getpid(), unix.SIGKILL) }}
	fsys.at, _ = strconv.Atoi(os.Getenv(crashKillAt))
	e := w.engine(fsys)
	var res Result
	var err error
	verb, version, _ := strings.Cut(do, " ")
	switch verb {
	case "apply":
		res, err = w.apply(e, version)
	case "revert":
		res, err = w.revert(e)
	case "recover":
		res, err = w.program().recoverBy(e)
	case "cycle":
		return w.cycle(e)
	case "measure":
		return w.measure(e, version)
	}
	fmt.Printf("%s: %+v, %s\n", do, res, why(err))
	return crashDone
}

// do runs it, to be killed at a call; killed says whether it was.
func (w crashWorld) do(t testing.TB, do string, killAt int) (killed bool) {
	t.Helper()
	cmd := w.command(do)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", crashKillAt, killAt))
	out, err := cmd.CombinedOutput()
	st := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !st.Signaled() && st.ExitStatus() != crashDone {
		t.Fatalf("%s: %v, %s", do, err, out)
	}
	return st.Signaled()
}

func (w crashWorld) command(do string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDo+"="+do, crashDir+"="+w.Dir, crashKind+"="+w.Kind, crashSwap+"="+w.Swap,
		crashSick+"="+strings.Join(w.Sick, " "), crashBroken+"="+strings.Join(w.Crashing, " "))
	return cmd
}

// A real process is killed with SIGKILL at every call to the file system of every path,
// and the one that recovers from it too.
func TestLongCrashKilledProcesses(t *testing.T) {
	long(t)
	rows := []struct {
		name           string
		before         []string
		do             string
		sick, crashing []string
		legal, final   []string
	}{
		{"healthy", []string{"1"}, "apply 2", nil, nil, []string{"1", "2"}, []string{"1", "2"}},
		{"bad-probe", []string{"1"}, "apply 2", []string{"2"}, nil, []string{"1", "2"}, []string{"1"}},
		{"bad-restart", []string{"1"}, "apply 2", nil, []string{"2"}, []string{"1", "2"}, []string{"1"}},
		{"revert", []string{"1", "2"}, "revert", nil, nil, []string{"1", "2"}, []string{"1", "2"}},
		{"first-install", nil, "apply 2", nil, nil, []string{"", "2"}, []string{"", "2"}},
		{"bad-first-install", nil, "apply 2", []string{"2"}, nil, []string{"", "2"}, []string{""}},
	}
	for _, world := range worlds {
		for _, r := range rows {
			t.Run(world.name()+"/"+r.name, func(t *testing.T) {
				t.Parallel()
				kills := 0
				for k := 1; ; k++ {
					w := world
					w.Dir = memoryDir(t)
					w.make(t, "1", "2", "3")
					for _, v := range r.before {
						if _, err := w.apply(w.engine(nil), v); err != nil {
							t.Fatal(err)
						}
					}
					w.Sick, w.Crashing = r.sick, r.crashing
					if !w.do(t, r.do, k) {
						break
					}
					kills++
					legal := r.legal
					if w.Swap == SwapSelfupdate {
						legal = append([]string{""}, legal...) // its gap, until recovery
					}
					at := fmt.Sprintf("killed at call %d", k)
					w.assert(t, at, legal...)
					if again := 1 + (k*7)%31; k%2 == 0 && w.do(t, "recover", again) {
						at += fmt.Sprintf(", then at call %d of recovery", again)
						w.assert(t, at, legal...)
					}
					w.assertRecovered(t, at, "3", r.final...)
					os.RemoveAll(w.Dir)
				}
				if kills < 40 {
					t.Errorf("it made only %d calls", kills)
				}
			})
		}
	}
}

// A program of 124 MB, or a tree of as much, is installed with little memory.
func TestLongCrashLargeArtifactsNeedLittleMemory(t *testing.T) {
	long(t)
	const most = 64 << 10 // KiB resident at the highest
	for _, w := range []crashWorld{worlds[0], worlds[1], worlds[2]} {
		t.Run(w.name(), func(t *testing.T) {
			w.Dir = memoryDir(t)
			w.make(t, "1")
			if _, err := w.apply(w.engine(nil), "1"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.path("artifacts/large"), largeArtifact(t, w.Kind, 124<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := w.command("measure large")
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != crashDone {
				t.Fatalf("%v, %s", err, out)
			}
			high, err := strconv.Atoi(strings.TrimSpace(string(out)))
			if err != nil || high >= most || high == 0 {
				t.Errorf("%d KiB were resident, want less than %d; %v", high, most, err)
			}
			t.Logf("%d KiB resident at the highest", high)
		})
	}
}

// largeArtifact does not compress well, so that a compressed tree is as large.
func largeArtifact(t testing.TB, kind string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	x := uint64(1)
	for i := 0; i+8 <= len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		for n := range 8 {
			b[i+n] = byte(x >> (8 * n))
		}
	}
	if kind != KindTree {
		return b
	}
	return zstdOf(t, tarOfFile(t, "bin/acme", b))
}

// measure applies a version and prints how much memory was resident at the highest.
func (w crashWorld) measure(e *Engine, version string) int {
	p := w.program()
	p.Health = nil // it would read all of it
	p.Service = nil
	f, err := os.Open(w.path("artifacts/" + version))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	d, err := hashFile(osFile{f})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	res, err := e.Apply(context.Background(), p, Update{
		To: Release{Version: version, SHA256: d, Length: i.Size()}, Source: f, Authorize: func(context.Context) error { return nil },
	})
	if err != nil || res.State != Confirmed {
		fmt.Println(res, why(err))
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			fmt.Println(strings.Fields(string(rest))[0])
			return crashDone
		}
	}
	return 1
}
