package control

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Whatever the umask, there is no moment in which a stranger can connect: the socket gets its
// name by a move, with the mode it keeps.
func TestSocketIsNeverAnybodyElses(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	// What a process that died left is no obstacle.
	if err := os.MkdirAll(filepath.Join(dir, cradle, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := make([]byte, 64<<10)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint32
	for b = b[:n]; len(b) > 0; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+e.Len]
		if string(bytes.TrimRight(name, "\x00")) == socket {
			seen = append(seen, e.Mask)
		}
		b = b[unix.SizeofInotifyEvent+e.Len:]
	}
	if len(seen) != 1 || seen[0] != unix.IN_MOVED_TO {
		t.Errorf("what happened to %s: %#x, want one move (%#x)", socket, seen, unix.IN_MOVED_TO)
	}
	if fi, err := os.Stat(filepath.Join(dir, socket)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", fi, err)
	}
	if _, err := os.Stat(filepath.Join(dir, cradle)); err == nil {
		t.Errorf("%s is left", cradle)
	}
}
