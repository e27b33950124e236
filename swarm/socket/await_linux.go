package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// awaiter sets SO_RCVLOWAT, which the kernel's poll goes by.
func awaiter(raw syscall.RawConn) func(n int) error {
	var want int
	var failed error
	set := func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, want) }
	return func(n int) error {
		want = n
		if err := raw.Control(set); err != nil {
			return err
		}
		return failed
	}
}
