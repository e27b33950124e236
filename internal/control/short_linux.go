package control

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const maxAddress = 100 // sun_path has 108 bytes, with its final zero

// shorten returns a short name of dir: a socket's address holds about 100 bytes, a
// state directory's path may be longer. The name is good until done is called.
func shorten(dir string) (name string, done func(), err error) {
	if len(dir) < maxAddress-len(socket)-1 {
		return dir, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { unix.Close(fd) }, nil
}
