package publisher

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/internal/fault"
)

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small filesystem is mounted by root only")
	}
	small := t.TempDir()
	if err := unix.Mount("shoal-test", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)

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
