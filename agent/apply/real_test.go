//go:build linux || darwin

package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/agent/health"
	"shoal/agent/service"
	"shoal/internal/fault"
)

// realDir is a directory of the real file system with a program in it.
type realDir struct {
	t      *testing.T
	dir    string
	target string
	state  string
	fs     FS
	tweak  func(*Program)
}

func newRealDir(t *testing.T, content string, mode fs.FileMode) *realDir {
	t.Helper()
	base := t.TempDir()
	d := &realDir{t: t, dir: filepath.Join(base, "bin"), target: filepath.Join(base, "bin", "acme"), state: filepath.Join(base, "state")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if content != "" {
		if err := os.WriteFile(d.target, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d.target, mode); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *realDir) engine() *Engine {
	d.t.Helper()
	e, err := New(Options{StateDir: d.state, FS: d.fs})
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *realDir) program(swap string) Program {
	p := Program{Target: Target{App: "acme", Path: d.target, Swap: swap}}
	if d.tweak != nil {
		d.tweak(&p)
	}
	return p
}

func (d *realDir) apply(swap, content string) (Result, error) {
	d.t.Helper()
	return d.engine().Apply(d.t.Context(), d.program(swap), updateTo(content))
}

func (d *realDir) mustApply(swap, content string) {
	d.t.Helper()
	if res, err := d.apply(swap, content); err != nil || res.State != Confirmed {
		d.t.Fatalf("%+v, %v", res, err)
	}
	d.assertContent(content)
}

func (d *realDir) assertContent(want string) {
	d.t.Helper()
	got, err := os.ReadFile(d.target)
	if err != nil && want != "" || string(got) != want {
		d.t.Fatalf("the target is %s, %v; want %s", called(string(got)), err, called(want))
	}
}

// beside returns what is beside the target, but for the lock.
func (d *realDir) beside() []string {
	d.t.Helper()
	names, err := osFS{}.ReadDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "acme" || n == ".acme.shoal-lock" })
}

func TestRealUpdateAndRevert(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, oldProgram, 0o755)
		d.mustApply(swap, newProgram)
		if got := d.beside(); !slices.Equal(got, []string{".acme.shoal-prev-1"}) {
			t.Errorf("beside the target: %v", got)
		}
		res, err := d.engine().Revert(t.Context(), d.program(swap), "", func(context.Context, Release) error { return nil })
		if err != nil || res.State != Confirmed {
			t.Fatalf("%+v, %v", res, err)
		}
		d.assertContent(oldProgram)
		if got := d.beside(); !slices.Equal(got, []string{".acme.shoal-prev-2"}) {
			t.Errorf("beside the target: %v", got)
		}
		d.tweak = func(p *Program) { p.Health = sickUnless{d, oldProgram} }
		res, err = d.apply(swap, newProgram)
		wantCode(t, err, fault.HealthFailed)
		if res.State != Reverted {
			t.Errorf("got %+v", res)
		}
		d.assertContent(oldProgram)
		if got := d.beside(); !slices.Equal(got, []string{".acme.shoal-prev-2"}) {
			t.Errorf("beside the target: %v", got)
		}
	})
}

// sickUnless is well only with one content at the target.
type sickUnless struct {
	d    *realDir
	well string
}

func (h sickUnless) Probe(context.Context) error {
	got, err := os.ReadFile(h.d.target)
	if err == nil && string(got) != h.well {
		err = errors.New("sick")
	}
	return err
}

func (h sickUnless) Check(ctx context.Context) error { return h.Probe(ctx) }

// The umask and a file that an earlier attempt left decide the mode elsewhere.
func TestModeDoesNotDependOnUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, mode := range []fs.FileMode{0o755, 0o711, 0o644, 0o777} {
		for _, swap := range swaps {
			d := newRealDir(t, oldProgram, mode)
			if err := os.Chmod(d.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			d.mustApply(swap, newProgram)
			if fi, err := os.Stat(d.target); err != nil || fi.Mode() != mode {
				t.Errorf("%s: mode %v became %v, %v", swap, mode, fi.Mode(), err)
			}
		}
	}
	d := newRealDir(t, "", 0)
	d.tweak = func(p *Program) { p.Target.AllowInstall = true }
	d.mustApply(SwapRename, newProgram)
	if fi, err := os.Stat(d.target); err != nil || fi.Mode() != 0o755 {
		t.Errorf("a first install has mode %v, %v", fi.Mode(), err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: to give files away, to set capabilities, to mount")
	}
}

// capNetBind is cap_net_bind_service+ep, as setcap writes it.
var capNetBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// aclOfUser1000 is u::rwx,u:1000:r-x,g::r-x,m::r-x,o::---, as setfacl writes it.
var aclOfUser1000 = []byte{2, 0, 0, 0,
	1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
	16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}

func TestOwnerSetuidCapabilitiesAndAttributesAreKept(t *testing.T) {
	needRoot(t)
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, oldProgram, 0o755)
		if err := os.Chown(d.target, 65534, 65533); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d.target, 0o750|fs.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		set := map[string][]byte{"user.note": []byte("kept")}
		if runtime.GOOS == "linux" {
			set["security.capability"], set["system.posix_acl_access"] = capNetBind, aclOfUser1000
		}
		for name, value := range set {
			if err := unix.Setxattr(d.target, name, value, 0); errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
				t.Skipf("cannot set %s here: %v", name, err)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		want := metaOf(t, d.target)
		if len(want.Xattrs) < len(set) || want.UID != 65534 || want.Mode != 0o750|fs.ModeSetuid {
			t.Fatalf("the test's program has %+v", want)
		}
		d.mustApply(swap, newProgram)
		if got := metaOf(t, d.target); !got.equal(want) {
			t.Errorf("updated: %+v, want %+v", got, want)
		}
		d.tweak = func(p *Program) { p.Health = sickUnless{d, newProgram} }
		if res, _ := d.apply(swap, "a version that is sick"); res.State != Reverted {
			t.Fatalf("%+v", res)
		}
		if got := metaOf(t, d.target); !got.equal(want) {
			t.Errorf("reverted: %+v, want %+v", got, want)
		}
		d.tweak = nil
		if _, err := d.engine().Revert(t.Context(), d.program(swap), "", func(context.Context, Release) error { return nil }); err != nil {
			t.Fatal(err)
		}
		d.assertContent(oldProgram)
		if got := metaOf(t, d.target); !got.equal(want) {
			t.Errorf("reverted by hand: %+v, want %+v", got, want)
		}
	})
}

func metaOf(t *testing.T, path string) Meta {
	t.Helper()
	f, err := osFS{}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := f.Meta()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSymlinkIsKeptAndItsFileReplaced(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, oldProgram, 0o755)
		links := t.TempDir()
		first, second := filepath.Join(links, "acme"), filepath.Join(links, "other")
		for _, l := range [][2]string{{d.target, second}, {"other", first}} {
			if err := os.Symlink(l[0], l[1]); err != nil {
				t.Fatal(err)
			}
		}
		d.tweak = func(p *Program) { p.Target.Path = first }
		d.mustApply(swap, newProgram)
		for _, l := range []string{first, second} {
			if fi, err := os.Lstat(l); err != nil || fi.Mode().Type() != fs.ModeSymlink {
				t.Errorf("%q is %v, %v", l, fi.Mode(), err)
			}
		}
		if names, _ := os.ReadDir(links); len(names) != 2 {
			t.Errorf("beside the links: %v", names)
		}
	})
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, l := range [][2]string{{"b", "a"}, {"sub/../c", "b"}, {"loop2", "loop1"}, {"loop1", "loop2"}, {"sub", "dirlink"}, {"no/such/dir", "nowhere"}} {
		if err := os.Symlink(l[0], at(l[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(at("sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"plain": "plain", "a": "c", "b": "c", "dirlink/x": "sub/x", "loop1": "", "nowhere": "", "none/x": "",
	} {
		got, err := osFS{}.Resolve(at(path))
		if want == "" && err == nil || want != "" && got != at(want) {
			t.Errorf("%q leads to %q, %v; want %q", path, got, err, want)
		}
	}
}

// minio/selfupdate writes through a link that somebody put at .NAME.new, and then
// moves the link into place.
func TestPlantedLinkIsNotFollowed(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, oldProgram, 0o755)
		victim := filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, filepath.Join(d.dir, ".acme.new")); err != nil {
			t.Fatal(err)
		}
		res, err := d.apply(swap, newProgram)
		if swap == SwapSelfupdate {
			wantCode(t, err, fault.ApplyFailed)
			if res.State != Aborted {
				t.Errorf("got %+v", res)
			}
			d.assertContent(oldProgram)
		} else if err != nil {
			t.Errorf("%+v, %v", res, err)
		}
		if got, err := os.ReadFile(victim); string(got) != "precious" {
			t.Errorf("the victim is %q, %v", got, err)
		}
	})
}

// A crash between the two renames leaves no program. minio/selfupdate, called once
// more, then removes the only copy of the old one.
func TestRetryInTheGap(t *testing.T) {
	for _, again := range []string{"recover", "apply"} {
		t.Run(again, func(t *testing.T) {
			d := newRealDir(t, oldProgram, 0o755)
			dying := &gapFS{FS: osFS{}}
			d.fs = dying
			d.apply(SwapSelfupdate, newProgram)
			if _, err := os.Stat(d.target); !errors.Is(err, fs.ErrNotExist) || !dying.dead {
				t.Fatalf("there is no gap: %v", err)
			}
			d.fs = nil
			if again == "apply" {
				d.mustApply(SwapSelfupdate, newProgram)
				return
			}
			res, err := d.engine().Recover(t.Context(), d.program(SwapSelfupdate))
			wantCode(t, err, fault.Reverted)
			if res.State != Reverted || len(d.beside()) != 0 {
				t.Errorf("got %+v; beside the target: %v", res, d.beside())
			}
			d.assertContent(oldProgram)
		})
	}
}

// gapFS dies between the two renames.
type gapFS struct {
	FS
	dead bool
}

func (g *gapFS) CommitBinary(target, old string) error {
	err := g.FS.Rename(target, old)
	g.dead = true
	g.FS = &faultFS{FS: g.FS, dead: true}
	return err
}

// A program that is running is replaced twice without being restarted in between:
// /proc/self/exe leads elsewhere by then.
func TestSecondUpdateOfARunningProgram(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("there is no sleep program to run")
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, string(program), 0o755)
		cmd := exec.Command(d.target, "600")
		cmd.Args[0] = "sleep"
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		d.mustApply(swap, newProgram)
		d.mustApply(swap, "a third program")
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("the running program: %v", err)
		}
		if got := d.beside(); !slices.Equal(got, []string{".acme.shoal-prev-1", ".acme.shoal-prev-2"}) {
			t.Errorf("beside the target: %v", got)
		}
	})
}

func TestMissingTarget(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, "", 0)
		_, err := d.apply(swap, newProgram)
		wantCode(t, err, fault.Policy)
		if len(d.beside()) != 0 {
			t.Errorf("beside the target: %v", d.beside())
		}
		d.tweak = func(p *Program) { p.Target.AllowInstall = true }
		d.mustApply(swap, newProgram)
	})
}

// Whoever starts the program while it is being replaced finds the old one or the new
// one, never none. (With selfupdate's two renames a reader can find none.)
func TestReadersNeverFindNothing(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o755)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b, err := os.ReadFile(d.target)
				if err != nil || string(b) != oldProgram && string(b) != newProgram {
					t.Errorf("a reader found %s, %v", called(string(b)), err)
					return
				}
			}
		})
	}
	for range 3 {
		d.mustApply(SwapRename, newProgram)
		d.mustApply(SwapRename, oldProgram)
	}
	close(stop)
	readers.Wait()
}

func TestStagingNeedsLittleMemory(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o755)
	const size = 32 << 20
	h := sha256.New()
	if err := copyAll(h, reading(t.Context(), zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	u := updateTo(newProgram)
	u.To.Length, u.To.SHA256, u.Source = size, [32]byte(h.Sum(nil)), zeros{}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := d.engine().Apply(t.Context(), d.program(SwapRename), u); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes were allocated to install %d", got, size)
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestSpecialFilesAreNotTargets(t *testing.T) {
	d := newRealDir(t, "", 0)
	if err := unix.Mkfifo(d.target, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := d.apply(SwapRename, newProgram)
	wantCode(t, err, fault.UnsafePath)
	_, err = d.engine().Installed(d.program(SwapRename).Target)
	wantCode(t, err, fault.UnsafePath)
}

func TestTwoEnginesOneTarget(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o755)
	other := *d
	other.state = filepath.Join(t.TempDir(), "other")
	asked := false
	u := updateTo(newProgram)
	u.Authorize = func(context.Context) error {
		asked = true
		for name, e := range map[string]*Engine{"same-state": d.engine(), "other-state": other.engine()} {
			_, err := e.Apply(t.Context(), d.program(SwapRename), updateTo("another program"))
			if !errors.Is(err, fault.Locked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// The other agent has nothing to recover, and must not tidy up under the first.
		_, err := other.engine().Recover(t.Context(), d.program(SwapRename))
		if !errors.Is(err, fault.Locked) {
			t.Errorf("recovery by the other agent: %v", err)
		}
		return nil
	}
	if res, err := d.engine().Apply(t.Context(), d.program(SwapRename), u); err != nil || !asked {
		t.Fatalf("%+v, %v", res, err)
	}
	d.assertContent(newProgram)
	if res, err := other.apply(SwapRename, "another program"); err != nil {
		t.Errorf("afterwards: %+v, %v", res, err)
	}
}

// Whoever only looks whether the target is free keeps no update from beginning, and no other
// from looking.
func TestALookKeepsNobodyWaiting(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o755)
	look := func() {
		t.Helper()
		l, err := osFS{}.Lock(names{d.target}.lock())
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*lockPause, func() { l.Close() })
	}
	look()
	if err := d.engine().Preflight(d.program(SwapRename).Target, Release{Length: 100}); err != nil {
		t.Error(err)
	}
	look()
	d.mustApply(SwapRename, newProgram)
}

// The model by which the sweeps stop CommitBinary halfway does what the real one does.
func TestCommitBinaryModel(t *testing.T) {
	rows := map[string][]string{ // what is there before
		"all-there":      {"acme", ".acme.new"},
		"old-in-the-way": {"acme", ".acme.new", "old"},
		"no-target":      {".acme.new"},
		"no-new-file":    {"acme"},
	}
	for name, before := range rows {
		t.Run(name, func(t *testing.T) {
			run := func(commit func(target, old string) error) (after map[string]string, failed bool) {
				dir := t.TempDir()
				for _, n := range before {
					if err := os.WriteFile(filepath.Join(dir, n), []byte("was "+n), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				err := commit(filepath.Join(dir, "acme"), filepath.Join(dir, "old"))
				after = map[string]string{}
				list, _ := os.ReadDir(dir)
				for _, e := range list {
					b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
					after[e.Name()] = string(b)
				}
				return after, err != nil
			}
			model, modelFailed := run(func(target, old string) error { return commitBinaryModel(osFS{}, target, old) })
			real, realFailed := run(osFS{}.CommitBinary)
			if modelFailed != realFailed || !maps.Equal(model, real) {
				t.Errorf("the model: %v, failed %v; the real one: %v, failed %v", model, modelFailed, real, realFailed)
			}
		})
	}
}

// A command service and its long-living program, for real: the new version crashes.
func TestRealServiceIsPutBack(t *testing.T) {
	good := "#!/bin/sh\nexec sleep 600\n"
	bad := "#!/bin/sh\necho no licence; exit 3\n"
	d := newRealDir(t, good, 0o755)
	ctl := filepath.Join(d.dir, "ctl")
	script := `#!/bin/sh
cd ` + d.dir + ` || exit 1
case $1 in
restart) [ ! -e pid ] || kill -9 $(cat pid) 2>/dev/null; setsid ./acme >/dev/null 2>&1 & echo $! >pid ;;
stop) kill -9 $(cat pid) ;;
status)
	case $(cat /proc/$(cat pid)/stat 2>/dev/null) in *") Z "*) exit 1 ;; esac # dead, and not reaped yet
	kill -0 $(cat pid) 2>/dev/null && cat pid ;;
esac
`
	if err := os.WriteFile(ctl, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	svc, err := service.Command(service.CommandConfig{
		Restart: []string{ctl, "restart"}, Stop: []string{ctl, "stop"}, Status: []string{ctl, "status"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer svc.Stop(context.Background())
	d.tweak = func(p *Program) {
		p.Service = svc
		p.Health = mustStayUp(t, svc)
	}
	res, err := d.apply(SwapRename, bad)
	wantCode(t, err, fault.HealthFailed)
	if res.State != Reverted || !strings.Contains(why(err), "not running") && !strings.Contains(why(err), "did not stay up") {
		t.Errorf("%+v, %q", res, why(err))
	}
	d.assertContent(good)
	if st, err := svc.State(t.Context()); err != nil || !st.Running {
		t.Errorf("the service: %+v, %v", st, err)
	}
	d.mustApply(SwapRename, good+"# newer\n")
}

func mustStayUp(t *testing.T, s service.Service) health.Check {
	t.Helper()
	c, err := health.StayUp(s, 200*time.Millisecond, health.Policy{Interval: 20 * time.Millisecond, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
