package apply

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll begins to write out all that the file system of root holds back.
func syncAll(root *os.Root) {
	if f, err := root.Open("."); err == nil {
		_ = unix.Syncfs(int(f.Fd())) // what fails is asked for again, file by file
		f.Close()
	}
}
