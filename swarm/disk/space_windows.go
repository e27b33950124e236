package disk

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

const (
	noFollow = 0
	nonBlock = 0

	errQuota = syscall.Errno(windows.ERROR_DISK_FULL)
)

// freeSpace is how many bytes this user may still write to the volume of dir.
func freeSpace(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, os.NewSyscallError("GetDiskFreeSpaceEx", err)
	}
	return int64(min(free, 1<<62)), nil
}

// allocated is how long f is: what is behind its length is not reserved here.
func allocated(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
