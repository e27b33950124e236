package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve makes f length bytes long, with blocks for all of them where the filesystem
// can do that.
func reserve(f *os.File, length int64) error {
	var err error
	for {
		err = unix.Fallocate(int(f.Fd()), 0, 0, length)
		if err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) {
		return f.Truncate(length)
	}
	return os.NewSyscallError("fallocate", err)
}

// isHole reports whether nothing was ever written to that part of f, as far as the
// filesystem can tell.
func isHole(f *os.File, off, length int64) bool {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return true // no data from here to the end
	}
	return err == nil && data >= off+length
}
