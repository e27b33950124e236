//go:build !linux

package socket

import "syscall"

// awaiter is nil: not every kernel's poll goes by SO_RCVLOWAT.
func awaiter(syscall.RawConn) func(n int) error { return nil }
