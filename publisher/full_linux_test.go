package publisher

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/internal/fault"
	"shoal/publisher/mirror"
	"shoal/publisher/pack"
	"shoal/publisher/repo"
)

// smallDisk is a directory in which there is room for 256 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small filesystem is mounted by root only")
	}
	small := t.TempDir()
	if err := unix.Mount("shoal-test", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	return small
}

func TestDiskFull(t *testing.T) {
	small := smallDisk(t)
	f := newFleet(t, 1, "release-1@acme")
	if err := os.CopyFS(small, os.DirFS(f.cfg.Store)); err != nil {
		t.Fatal(err)
	}
	f.cfg.Store = small
	f.publish("1.0.0", "one")
	_, err := f.open().Publish(t.Context(), f.request("2.0.0", strings.Repeat("x", 1<<20), f.release...))
	wantCode(t, err, fault.NoSpace)
	if v := f.whole(t); v != "1.0.0" {
		t.Errorf("machines see %s", v)
	}
	f.publish("2.0.0", "a small one fits") // what the failed one wrote is gone
}

// A stick that is full, and a mirror's disk: it is said so, and nothing is left there.
func TestStickIsFull(t *testing.T) {
	small := smallDisk(t)
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", strings.Repeat("x", 1<<20))
	r, err := repo.Open(f.cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	_, err = pack.Create(t.Context(), r, pack.Request{Channel: stable, Out: small, Now: f.now})
	wantCode(t, err, fault.NoSpace)
	_, err = mirror.Push(t.Context(), r, mirror.Dir(filepath.Join(small, "mirror")), mirror.Options{})
	wantCode(t, err, fault.NoSpace)
	err = filepath.WalkDir(small, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.Size() > 0 {
			t.Errorf("%s is left there: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
