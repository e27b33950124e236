//go:build linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/internal/fault"
)

// mount mounts something for the length of a test.
func mount(t *testing.T, source, target, fstype string, flags uintptr, data string) {
	t.Helper()
	needRoot(t)
	if err := unix.Mount(source, target, fstype, flags, data); errors.Is(err, unix.EPERM) {
		t.Skip("needs the right to mount")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %q: %v", target, err)
		}
	})
}

func TestSmallDisk(t *testing.T) {
	const length = 4 << 20
	program := strings.Repeat("p", length)
	need := length + length/sparePart + spareBytes
	rows := []struct {
		name  string
		free  int // bytes left beside the old program
		files int // inodes in all; 0 is plenty
		want  fault.Code
	}{
		{"one-byte-less-than-the-program", length - 1, 0, fault.NoSpace},
		{"one-page-too-little", need - 4096, 0, fault.NoSpace},
		{"exactly-enough", need, 0, fault.OK},
		{"no-inodes-left", 2 * need, 10, fault.NoSpace},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			d := newRealDir(t, "", 0)
			page := os.Getpagesize()
			// The old program and the lock file take a page each at most.
			size := (r.free+page-1)/page*page + page
			data := fmt.Sprintf("mode=755,size=%d", size)
			if r.files > 0 {
				data += fmt.Sprintf(",nr_inodes=%d", r.files)
			}
			mount(t, "tmpfs", d.dir, "tmpfs", 0, data)
			if err := os.WriteFile(d.target, []byte(oldProgram), 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range max(0, r.files-5) {
				if err := os.WriteFile(filepath.Join(d.dir, fmt.Sprint(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := d.apply(SwapRename, program)
			wantCode(t, err, r.want)
			if r.want == fault.OK {
				d.assertContent(program)
				return
			}
			d.assertContent(oldProgram)
			for _, name := range d.beside() {
				if strings.HasPrefix(name, ".acme") {
					t.Errorf("%q was left", name)
				}
			}
		})
	}
}

// The disk fills up while the new version is written, whatever was free before.
func TestDiskFillsUpWhileStaging(t *testing.T) {
	d := newRealDir(t, "", 0)
	mount(t, "tmpfs", d.dir, "tmpfs", 0, "mode=755,size=8m")
	if err := os.WriteFile(d.target, []byte(oldProgram), 0o755); err != nil {
		t.Fatal(err)
	}
	d.fs = &fillingFS{FS: osFS{}, path: filepath.Join(d.dir, "filler")}
	res, err := d.apply(SwapRename, strings.Repeat("p", 4<<20))
	wantCode(t, err, fault.NoSpace)
	if res.State != Aborted {
		t.Errorf("got %+v", res)
	}
	d.assertContent(oldProgram)
	if got := d.beside(); len(got) != 1 {
		t.Errorf("beside the target: %v", got)
	}
}

// fillingFS fills the disk when the staged file is made.
type fillingFS struct {
	FS
	path string
}

func (f *fillingFS) Create(path string) (File, error) {
	if strings.HasSuffix(path, ".new") {
		if err := os.WriteFile(f.path, make([]byte, 6<<20), 0o600); err != nil {
			return nil, err
		}
	}
	return f.FS.Create(path)
}

// A single file mounted into a container.
func TestBindMountedFileIsRefused(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		d := newRealDir(t, oldProgram, 0o755)
		outside := filepath.Join(t.TempDir(), "outside")
		if err := os.WriteFile(outside, []byte(oldProgram), 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, outside, d.target, "", unix.MS_BIND, "")
		res, err := d.apply(swap, newProgram)
		wantCode(t, err, fault.ApplyFailed)
		if res.State != Aborted || !strings.Contains(why(err), "mount point of its own") {
			t.Errorf("got %+v, %q", res, why(err))
		}
		d.assertContent(oldProgram)
		if got := d.beside(); len(got) != 0 {
			t.Errorf("beside the target: %v", got)
		}
	})
}

func TestReadOnlyFileSystems(t *testing.T) {
	for _, which := range []string{"target", "state"} {
		t.Run(which, func(t *testing.T) {
			d := newRealDir(t, oldProgram, 0o755)
			dir := d.dir
			if which == "state" {
				d.mustApply(SwapRename, newProgram)
				d.mustApply(SwapRename, oldProgram)
				dir = d.state
			}
			mount(t, dir, dir, "", unix.MS_BIND, "")
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			_, err := d.apply(SwapRename, newProgram)
			wantCode(t, err, fault.Permission)
			d.assertContent(oldProgram)
		})
	}
}
