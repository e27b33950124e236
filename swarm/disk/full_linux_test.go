package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNoRoomBeforeTheFirstByte(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("skipped: a small filesystem cannot be mounted: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	l, data := newContent() // 256 KiB and a bit
	dst := filepath.Join(dir, "f")
	_, err := OpenFetch(t.Context(), l, dst)
	var full *SpaceError
	if !errors.As(err, &full) || full.Dir != dir || full.Need != int64(len(data)) || full.Have > 128<<10 {
		t.Fatalf("got %v, want a SpaceError", err)
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty file was left: %v", err)
	}
	// What is there already counts.
	if err := os.WriteFile(dst, data[:100<<10], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFetch(t.Context(), l, dst)
	if !errors.As(err, &full) || full.Need >= int64(len(data))-90<<10 {
		t.Fatalf("got %v, want less need", err)
	}
	if b, err := os.ReadFile(dst); err != nil || len(b) < 100<<10 || string(b[:100<<10]) != string(data[:100<<10]) {
		t.Errorf("what had been downloaded was not kept: %v", err)
	}
	// With room, all of it is reserved at once.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFetch(t.Context(), l, dst)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if used, err := allocated(s.f.(*os.File)); err != nil || used < int64(len(data)) {
		t.Errorf("%d bytes are reserved for %d: %v", used, len(data), err)
	}
	if s.Verified() != testPieceLength {
		t.Errorf("%d bytes were taken over, want one piece", s.Verified())
	}
}
