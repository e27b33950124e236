//go:build !windows

package selfcmd

import (
	"os"
	"syscall"
)

// execute replaces this process by the program at path, with the same arguments.
func execute(path string) error { return syscall.Exec(path, os.Args, os.Environ()) }
