//go:build unix

package agent

import "golang.org/x/sys/unix"

// fileLimit is how many files this process may open.
func fileLimit() (uint64, bool) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return uint64(l.Cur), true
}
