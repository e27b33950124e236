//go:build linux || darwin

package apply

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"shoal/internal/archive"
	"shoal/internal/fault"
)

// treeDir is a directory of the real file system with a tree in it.
type treeDir struct {
	t      testing.TB
	dir    string // the target
	state  string
	fs     FS
	health func() error // of what current leads to
	tweak  func(*Program)
}

func newTreeDir(t testing.TB) *treeDir {
	t.Helper()
	base := memoryDir(t)
	d := &treeDir{t: t, dir: filepath.Join(base, "acme"), state: filepath.Join(base, "state"), fs: osFS{}}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

// memoryDir is a directory that needs no disk, where there is one: what is done a
// thousand times waits for no fsync there.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shoal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// treeOf is an archive of some version: every kind of entry, and the version in each file.
func treeOf(t testing.TB, version string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Name: "bin/acme", Typeflag: tar.TypeReg, Mode: 0o755}, "#!/bin/sh\necho "+version+"\n")
	put(tar.Header{Name: "bin/also", Typeflag: tar.TypeLink, Linkname: "bin/acme"}, "")
	put(tar.Header{Name: "share/doc/", Typeflag: tar.TypeDir, Mode: 0o750}, "")
	put(tar.Header{Name: "share/doc/VERSION", Typeflag: tar.TypeReg, Mode: 0o664}, version)
	put(tar.Header{Name: "VERSION", Typeflag: tar.TypeSymlink, Linkname: "share/doc/VERSION"}, "")
	put(tar.Header{Name: "share/empty", Typeflag: tar.TypeReg, Mode: 0o600}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarOfFile is an archive of one file.
func tarOfFile(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func (d *treeDir) engine() *Engine {
	e, err := New(Options{StateDir: d.state, FS: d.fs})
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *treeDir) program() Program {
	p := Program{Target: Target{App: "acme", Kind: KindTree, Path: d.dir, AllowInstall: true}, Health: (*treeHealth)(d)}
	if d.tweak != nil {
		d.tweak(&p)
	}
	return p
}

type treeHealth treeDir

func (h *treeHealth) Probe(context.Context) error {
	if h.health == nil {
		return nil
	}
	return h.health()
}

func (h *treeHealth) Check(ctx context.Context) error { return h.Probe(ctx) }

func treeUpdate(version string, b []byte) Update {
	return Update{
		To:     Release{Version: version, SHA256: sum(string(b)), Length: int64(len(b)), Mode: 0o644, Epoch: 1, Sequence: 7},
		Source: bytes.NewReader(b), Authorize: func(context.Context) error { return nil },
	}
}

func (d *treeDir) apply(version string) (Result, error) {
	return d.engine().Apply(context.Background(), d.program(), treeUpdate(version, treeOf(d.t, version)))
}

func (d *treeDir) mustApply(version string) {
	d.t.Helper()
	if res, err := d.apply(version); err != nil || res.State != Confirmed {
		d.t.Fatalf("%+v, %s", res, why(err))
	}
	d.assertVersion("applied", version)
}

// version is what current leads to, after a look at all of it; empty when there is none.
func (d *treeDir) version() (string, error) {
	current := filepath.Join(d.dir, currentName)
	if _, err := os.Lstat(current); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	b, err := os.ReadFile(filepath.Join(current, "VERSION"))
	if err != nil {
		return "", err
	}
	version := string(b)
	for name, want := range map[string]string{"bin/acme": "#!/bin/sh\necho " + version + "\n", "bin/also": "#!/bin/sh\necho " + version + "\n", "share/empty": ""} {
		if got, err := os.ReadFile(filepath.Join(current, name)); err != nil || string(got) != want {
			return "", fmt.Errorf("%s of %s: %q, %v", name, version, got, err)
		}
	}
	for name, want := range map[string]fs.FileMode{"bin": 0o755, "bin/acme": 0o755, "share/doc": 0o750, "share/doc/VERSION": 0o644, "share/empty": 0o600} {
		if i, err := os.Stat(filepath.Join(current, name)); err != nil || i.Mode().Perm() != want {
			return "", fmt.Errorf("%s of %s: %v, %v", name, version, i.Mode(), err)
		}
	}
	return version, nil
}

func (d *treeDir) assertVersion(at string, want ...string) {
	d.t.Helper()
	if got, err := d.version(); err != nil || !slices.Contains(want, got) {
		d.t.Fatalf("%s: current is %q, %v; want one of %q", at, got, err, want)
	}
}

func (d *treeDir) list(sub string) []string {
	d.t.Helper()
	list, err := osFS{}.ReadDir(filepath.Join(d.dir, sub))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// assertTidy fails unless all there is are complete versions that something leads to.
func (d *treeDir) assertTidy(at string) {
	d.t.Helper()
	used := map[string]bool{}
	for _, name := range d.list("") {
		path := filepath.Join(d.dir, name)
		if _, prev := (names{filepath.Join(d.dir, currentName)}).isPrevious(path); prev || name == currentName {
			to, err := os.Readlink(path)
			if err != nil {
				d.t.Fatal(err)
			}
			used[filepath.Base(to)] = true
		} else if name != versionsDir && name != ".current.shoal-lock" {
			d.t.Fatalf("%s: %q was left", at, name)
		}
	}
	for _, name := range d.list(versionsDir) {
		if !used[name] {
			d.t.Fatalf("%s: versions/%s was left", at, name)
		}
		dir := filepath.Join(d.dir, versionsDir, name)
		tr := newTree(osFS{}, filepath.Join(d.dir, currentName))
		c, err := tr.complete(dir)
		if err != nil || c == nil {
			d.t.Fatalf("%s: %q is not complete: %v", at, name, err)
		}
		if got, err := tr.list(dir); err != nil || got != c.Tree {
			d.t.Fatalf("%s: %q is not what was unpacked: %v", at, name, err)
		}
	}
}

func TestTreeIsInstalledUpdatedAndReverted(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	d := newTreeDir(t)
	d.mustApply("1.0")
	d.mustApply("2.0")
	if to, err := os.Readlink(filepath.Join(d.dir, currentName)); to != fmt.Sprintf("versions/2.0-%.8s", digest(sum(string(treeOf(t, "2.0"))))) {
		t.Errorf("current is %q, %v", to, err)
	}
	if i, err := os.Stat(filepath.Join(d.dir, versionsDir)); err != nil || i.Mode().Perm() != 0o755 {
		t.Errorf("versions: %v, %v", i.Mode(), err)
	}
	in, err := d.engine().Installed(d.program().Target)
	if b := treeOf(t, "2.0"); err != nil || !in.Present || in.Version != "2.0" || in.SHA256 != sum(string(b)) || in.Length != int64(len(b)) {
		t.Errorf("installed: %+v, %v", in, err)
	}
	if res, err := d.apply("2.0"); err != nil || !res.Unchanged {
		t.Errorf("again: %+v, %v", res, err)
	}
	res, err := d.engine().Revert(t.Context(), d.program(), "", func(context.Context, Release) error { return nil })
	if err != nil || res.To.Version != "1.0" {
		t.Fatalf("revert: %+v, %v", res, err)
	}
	d.assertVersion("reverted", "1.0")
	d.assertTidy("reverted")
	d.mustApply("2.0") // from the archive once more, whatever is kept
	d.assertTidy("forward again")
}

func TestTreeCompressedWithZstd(t *testing.T) {
	d := newTreeDir(t)
	b := zstdOf(t, treeOf(t, "1.0"))
	if res, err := d.engine().Apply(t.Context(), d.program(), treeUpdate("1.0", b)); err != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	d.assertVersion("applied", "1.0")
	d.assertTidy("applied")
}

func TestUnwellTreeIsReverted(t *testing.T) {
	for _, before := range []string{"1.0", ""} {
		d := newTreeDir(t)
		if before != "" {
			d.mustApply(before)
		}
		d.health = func() error {
			if v, err := d.version(); v == "2.0" || err != nil {
				return errors.Join(errors.New("unwell"), err)
			}
			return nil
		}
		res, err := d.apply("2.0")
		wantCode(t, err, fault.HealthFailed)
		if res.State != Reverted {
			t.Errorf("%+v", res)
		}
		d.assertVersion("reverted", before)
		d.assertTidy("reverted")
		if _, err := d.apply("2.0"); fault.CodeOf(err) != fault.HealthFailed {
			t.Errorf("again: %v", err)
		}
	}
}

// A version is kept as long as one of the latest links leads to it, and no longer.
func TestTreePruneKeepsTheLatest(t *testing.T) {
	d := newTreeDir(t)
	for _, v := range []string{"1", "2", "3", "4", "2", "5"} {
		d.mustApply(v)
		d.assertTidy(v)
	}
	previous, err := d.engine().Previous(d.program().Target)
	var got []string
	for _, p := range previous {
		got = append(got, p.Version)
	}
	if want := []string{"2", "4"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("kept %q, %v; want %q", got, err, want)
	}
	if len(d.list(versionsDir)) != 3 {
		t.Errorf("versions: %q", d.list(versionsDir))
	}
}

// What others put beside the versions stays, and a link of theirs can be put back.
func TestTreeOfAnotherMakerIsTakenOver(t *testing.T) {
	d := newTreeDir(t)
	theirs := filepath.Join(d.dir, versionsDir, "by-hand")
	if err := os.MkdirAll(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(d.dir, currentName)
	if err := os.Symlink("versions/by-hand", current); err != nil {
		t.Fatal(err)
	}
	d.health = func() error {
		if to, _ := os.Readlink(current); to == "versions/by-hand" {
			return nil
		}
		return errors.New("unwell")
	}
	res, err := d.apply("1.0")
	wantCode(t, err, fault.HealthFailed)
	if to, rerr := os.Readlink(current); res.State != Reverted || to != "versions/by-hand" || rerr != nil {
		t.Fatalf("%+v: current is %q, %v", res, to, rerr)
	}
	d.health = nil
	d.mustApply("2.0")
	d.mustApply("3.0")
	d.mustApply("4.0")
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("what was made by hand: %v", err)
	}
}

func TestWhatIsNoLinkIsNotReplaced(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"file":      func(p string) error { return os.WriteFile(p, nil, 0o644) },
	} {
		d := newTreeDir(t)
		if err := make(filepath.Join(d.dir, currentName)); err != nil {
			t.Fatal(err)
		}
		_, err := d.apply("1.0")
		wantCode(t, err, fault.UnsafePath)
		if got := d.list(""); len(got) > 2 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestBadArchivesInstallNothing(t *testing.T) {
	pack := func(h ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range h {
			if err := w.WriteHeader(&h[i]); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return b.Bytes()
	}
	rows := map[string]struct {
		archive []byte
		want    fault.Code
	}{
		"climbs-out":           {pack(tar.Header{Name: "../../escaped", Typeflag: tar.TypeReg}), fault.UnsafePath},
		"through-links":        {pack(tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "."}, tar.Header{Name: "a/b", Typeflag: tar.TypeReg}), fault.UnsafePath},
		"setuid":               {pack(tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o4755}), fault.UnsafePath},
		"too-large":            {pack(tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: archive.MaxBytes + 1}), fault.DecodeLimit},
		"larger-than-the-disk": {pack(tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: archive.MaxBytes}), fault.Malformed},
		"no-archive":           {[]byte("hello"), fault.Malformed},
		"takes-our-note":       {pack(tar.Header{Name: ".complete", Typeflag: tar.TypeReg}), fault.UnsafePath},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			d := newTreeDir(t)
			d.mustApply("1.0")
			res, err := d.engine().Apply(t.Context(), d.program(), treeUpdate("2.0", r.archive))
			wantCode(t, err, r.want)
			if res.State != Aborted {
				t.Errorf("%+v", res)
			}
			d.assertVersion(name, "1.0")
			d.assertTidy(name)
		})
	}
}

func TestTreeThatDoesNotFitIsRefusedFirst(t *testing.T) {
	d := newTreeDir(t)
	d.fs = smallFS{osFS{}}
	b := treeOf(t, "1.0")
	_, err := d.engine().Apply(t.Context(), d.program(), treeUpdate("1.0", zstdOf(t, b)))
	wantCode(t, err, fault.NoSpace)
	if got := d.list(versionsDir); len(got) != 0 {
		t.Errorf("versions: %q", got)
	}
}

// smallFS has room for an archive, and not for what it unpacks to.
type smallFS struct{ FS }

func (smallFS) Space(string) (Space, error) { return Space{Bytes: spareBytes + 8<<10}, nil }

// What was verified is what is installed.
func TestStagedTreeIsLookedAtAgain(t *testing.T) {
	rows := map[string]func(d *treeDir, staged string) error{
		"file-changed": func(_ *treeDir, s string) error {
			return os.WriteFile(filepath.Join(s, "bin/acme"), []byte("evil"), 0o755)
		},
		"file-added":   func(_ *treeDir, s string) error { return os.WriteFile(filepath.Join(s, "bin/evil"), nil, 0o755) },
		"file-gone":    func(_ *treeDir, s string) error { return os.Remove(filepath.Join(s, "share/empty")) },
		"mode-changed": func(_ *treeDir, s string) error { return os.Chmod(filepath.Join(s, "share/empty"), 0o666) },
		"setuid":       func(_ *treeDir, s string) error { return os.Chmod(filepath.Join(s, "bin/acme"), 0o755|fs.ModeSetuid) },
		"link-turned": func(_ *treeDir, s string) error {
			return errors.Join(os.Remove(filepath.Join(s, "VERSION")), os.Symlink("/etc/passwd", filepath.Join(s, "VERSION")))
		},
		"note-rewritten": func(_ *treeDir, s string) error {
			return os.WriteFile(filepath.Join(s, completeFile), []byte("{}"), 0o644)
		},
		"staged-link-turned": func(_ *treeDir, s string) error {
			return errors.Join(os.Remove(s), os.Symlink("/tmp", s))
		},
		"old-version-staged": func(d *treeDir, s string) error {
			to, err := os.Readlink(filepath.Join(d.dir, currentName))
			return errors.Join(err, os.Remove(s), os.Symlink(to, s))
		},
	}
	for name, evil := range rows {
		t.Run(name, func(t *testing.T) {
			d := newTreeDir(t)
			d.mustApply("1.0")
			done := false
			d.fs = &faultFS{FS: osFS{}, match: func(call string) bool {
				if call == "symlink .current.shoal-prev-1" && !done { // after staging, before the last look
					done = true
					links, err := filepath.Glob(filepath.Join(d.dir, ".current.shoal-*.new"))
					if err != nil || len(links) != 1 {
						t.Errorf("staged: %q, %v", links, err)
					}
					if err := evil(d, links[0]); err != nil {
						t.Error(err)
					}
				}
				return false
			}}
			res, err := d.apply("2.0")
			if err == nil || res.State != Aborted || !done {
				t.Errorf("%+v, %v", res, err)
			}
			d.assertVersion(name, "1.0")
			d.fs = osFS{}
			d.mustApply("3.0")
		})
	}
}

func TestTreesOfOthersAreNotWorkedIn(t *testing.T) {
	rows := map[string]func(d *treeDir) error{
		"target-writable-by-all":   func(d *treeDir) error { return os.Chmod(d.dir, 0o777) },
		"versions-writable-by-all": func(d *treeDir) error { return os.Chmod(filepath.Join(d.dir, versionsDir), 0o777) },
		"versions-is-a-link": func(d *treeDir) error {
			v := filepath.Join(d.dir, versionsDir)
			return errors.Join(os.Rename(v, v+"2"), os.Symlink("versions2", v))
		},
	}
	if os.Geteuid() == 0 {
		rows["versions-belong-to-another"] = func(d *treeDir) error { return os.Chown(filepath.Join(d.dir, versionsDir), 65534, 65534) }
	}
	for name, set := range rows {
		t.Run(name, func(t *testing.T) {
			d := newTreeDir(t)
			d.mustApply("1.0")
			if err := set(d); err != nil {
				t.Fatal(err)
			}
			_, err := d.apply("2.0")
			wantCode(t, err, fault.UnsafePath)
			d.assertVersion(name, "1.0")
		})
	}
}

func TestTreeReadersNeverFindNothing(t *testing.T) {
	d := newTreeDir(t)
	d.mustApply("1")
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
				if _, err := os.Stat(filepath.Join(d.dir, currentName, "bin/acme")); err != nil {
					t.Errorf("a reader: %v", err)
					return
				}
			}
		})
	}
	for i := range 10 {
		d.mustApply(fmt.Sprint(i % 3))
	}
	close(stop)
	readers.Wait()
}

// The agent is killed at every call of every path, and once more during recovery.
func TestTreeKillSweep(t *testing.T) {
	if raceDetector && !thorough {
		t.Skip("takes long with the race detector, and is all in one goroutine")
	}
	sick := func(d *treeDir) { // 2.0 is unwell
		d.health = func() error {
			if v, err := d.version(); v == "2.0" || err != nil {
				return errors.Join(errors.New("unwell"), err)
			}
			return nil
		}
	}
	rows := []struct {
		name   string
		before []string
		set    func(*treeDir)
		revert bool
		legal  []string
		final  []string
	}{
		{"healthy", []string{"0.9", "1.0"}, nil, false, []string{"1.0", "2.0"}, []string{"1.0", "2.0"}},
		{"unhealthy", []string{"1.0"}, sick, false, []string{"1.0", "2.0"}, []string{"1.0"}},
		{"first-install", nil, nil, false, []string{"", "2.0"}, []string{"", "2.0"}},
		{"unhealthy-first-install", nil, sick, false, []string{"", "2.0"}, []string{""}},
		{"revert", []string{"1.0", "2.0"}, nil, true, []string{"1.0", "2.0"}, []string{"1.0", "2.0"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			run := func(d *treeDir, f *faultFS) error {
				d.fs = f
				if r.revert {
					_, err := d.engine().Revert(context.Background(), d.program(), "", func(context.Context, Release) error { return nil })
					return err
				}
				_, err := d.apply("2.0")
				return err
			}
			for k, step := 1, sweepStep(); ; k += step {
				d := newTreeDir(t)
				for _, v := range r.before {
					d.mustApply(v)
				}
				if r.set != nil {
					r.set(d)
				}
				f := &faultFS{FS: osFS{}, at: k}
				run(d, f)
				if !f.dead {
					if k < 40 {
						t.Fatalf("it made only %d calls", f.calls)
					}
					return
				}
				at := "killed at " + f.where()
				d.assertVersion(at, r.legal...)
				if k%2 == 0 {
					again := &faultFS{FS: osFS{}, at: 3 + (k*7)%40}
					d.fs = again
					d.engine().Recover(context.Background(), d.program())
					if again.dead {
						at += ", then at " + again.where()
					}
					d.assertVersion(at, r.legal...)
				}
				d.fs = osFS{}
				res, err := d.engine().Recover(context.Background(), d.program())
				if res.State == Failed || err != nil && !slices.Contains([]fault.Code{fault.HealthFailed, fault.Reverted}, fault.CodeOf(err)) {
					t.Fatalf("%s: recovery: %+v, %s", at, res, why(err))
				}
				d.assertVersion(at+", recovered", r.final...)
				d.assertTidy(at + ", recovered")
				if res, err := d.engine().Recover(context.Background(), d.program()); res.State != Idle || err != nil {
					t.Fatalf("%s: second recovery: %+v, %v", at, res, err)
				}
				d.mustApply("3.0")
				d.assertTidy(at + ", updated")
			}
		})
	}
}

// sweepStep leaves calls out of the sweeps that need a real disk, unless they are to be thorough.
func sweepStep() int {
	if thorough || os.Getenv("SHOAL_LONG") != "" {
		return 1
	}
	return 3
}

// Every call fails once: the answer is honest and nothing is left.
func TestTreeErrorSweep(t *testing.T) {
	for _, errno := range faults {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			for k, step := 1, 2*sweepStep()-1; ; k += step {
				d := newTreeDir(t)
				d.mustApply("1.0")
				f := &faultFS{FS: osFS{}, at: k, err: errno}
				d.fs = f
				res, err := d.apply("2.0")
				at := fmt.Sprintf("%v at %s: %q, %v", errno, f.where(), res.State, err)
				if f.calls < k {
					break
				}
				var typed *fault.Error
				if err != nil && !errors.As(err, &typed) {
					t.Fatalf("%s: an error without a code", at)
				}
				switch res.State {
				case Confirmed:
					d.assertVersion(at, "2.0")
				case Idle, Aborted, Reverted:
					d.assertVersion(at, "1.0")
				default:
					d.assertVersion(at, "1.0", "2.0")
				}
				if (err == nil) != (res.State == Confirmed) {
					t.Fatal(at)
				}
				d.fs = osFS{}
				if res, err := d.engine().Recover(context.Background(), d.program()); res.State == Failed {
					t.Fatalf("%s: recovery: %+v, %v", at, res, err)
				}
				d.assertTidy(at)
				d.mustApply("3.0")
			}
		})
	}
}

func TestVersionNamesAreSafe(t *testing.T) {
	tr := newTree(osFS{}, filepath.Join(t.TempDir(), currentName))
	for version, want := range map[string]string{
		"2.4.1+b7_x": "2.4.1+b7_x-", "../../etc": "_.._etc-", "..": "0-", "a b\n/c": "a_b__c-", "": "0-", strings.Repeat("9", 300): strings.Repeat("9", 64) + "-",
	} {
		name, err := tr.freeName(&journal{To: sum("x"), ToRelease: note{Version: version}})
		if err != nil || !strings.HasPrefix(name, want) || filepath.Base(name) != name {
			t.Errorf("%q: %q, %v", version, name, err)
		}
	}
}
