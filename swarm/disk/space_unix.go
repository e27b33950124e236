//go:build linux || darwin || freebsd

package disk

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	noFollow = syscall.O_NOFOLLOW
	nonBlock = syscall.O_NONBLOCK

	errQuota = syscall.EDQUOT
)

// freeSpace is how many bytes this user may still write to the filesystem of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("statfs", err)
		}
		return int64(st.Bavail) * int64(st.Bsize), nil
	}
}

// allocated is how many bytes the blocks of f hold.
func allocated(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512, nil
	}
	return 0, nil
}
