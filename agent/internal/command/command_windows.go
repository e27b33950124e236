package command

import "os/exec"

const rootDir = `C:\`

var (
	fixedEnv []string
	keptEnv  = []string{"PATH", "SystemRoot", "SystemDrive", "ComSpec", "TEMP", "TMP", "USERPROFILE", "ProgramData"}
)

// ownGroup leaves cmd as it is: only the process itself is killed at its timeout.
func ownGroup(*exec.Cmd) {}
