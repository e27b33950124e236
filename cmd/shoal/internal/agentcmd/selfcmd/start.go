// Package selfcmd is how an agent survives an update of itself: the count of starts that
// comes before everything else, the trial of a new version (self-check) and the way back
// (recover-self).
package selfcmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"shoal/agent/self"
	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
)

// Start comes before everything else that this program does: a version of the agent
// that is not confirmed yet counts its starts, while nothing that may be broken in it
// has run. When that was one too many, the version before is run instead, and status is
// what is left to end with.
func Start(args []string) (status int, instead bool) {
	agent := slices.Index(args, "agent")
	if agent < 0 || !slices.Contains(args[agent:], "run") {
		return 0, false
	}
	state, err := filepath.Abs(cli.StateDirOf(flagValue(args, "--state"), os.Getenv))
	if err != nil {
		return 0, false // said again where there is somebody to say it to
	}
	program, err := self.Running()
	if err != nil {
		return 0, false
	}
	back, err := self.Start(state, program)
	if !back {
		if err != nil && !errors.Is(err, fault.Locked) {
			fmt.Fprintln(os.Stderr, "warning: counting this start:", err)
		}
		return 0, false
	}
	fmt.Fprintln(os.Stderr, "warning: this version of the agent was started too often without being confirmed; the one before is back")
	status, err = RunAgain(program, state, slices.Contains(args, "--supervised"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return status, true
}

// flagValue finds the value of a flag in a command line that nothing has parsed yet.
func flagValue(args []string, flag string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, flag+"="); ok {
			return value
		}
		if arg == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// RunAgain has what is now at program's place run in this process's stead. Under a
// supervisor that is its work: the status asks for it. Otherwise it returns only when it
// could not be done.
func RunAgain(program *self.Program, state string, supervised bool) (status int, err error) {
	if supervised || supervisedBy(os.Getenv) {
		return fault.ExitRestart, nil
	}
	if err = execute(program.Path()); err == nil {
		return fault.ExitRestart, nil
	}
	// It cannot even be started, and nobody else is there to call the guard.
	if target, rerr := self.Recover(state); rerr == nil && target != "" {
		err = execute(target)
	}
	return 1, fmt.Errorf("starting %q: %w", program.Path(), err)
}

// supervisedBy reports whether systemd started this very process and waits for its end.
// INVOCATION_ID says less: every shell on a desktop has it.
func supervisedBy(getenv func(string) string) bool {
	return getenv("NOTIFY_SOCKET") != "" || getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
}
