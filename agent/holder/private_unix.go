//go:build unix

package holder

import (
	"io/fs"
	"os"
	"syscall"
)

// private reports whether a directory is this user's, and writable for nobody else.
func private(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && fi.Mode().Perm()&0o022 == 0
}
