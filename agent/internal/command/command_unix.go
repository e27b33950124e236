//go:build !windows

package command

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

const rootDir = "/"

var (
	fixedEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	keptEnv  = []string{"HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"}
)

// ownGroup runs cmd as the leader of a process group, and kills all of it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}
