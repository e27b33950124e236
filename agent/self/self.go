// Package self lets the agent replace the program it runs from, and get back.
//
// Whatever a new version of the agent does, one that can install the next update is
// running in the end: a version that cannot start at all is not swapped in; one that
// does not get as far as counting its starts is put back by the guard, the last version
// that was confirmed; one that does is put back by itself after a few starts; and it is
// confirmed only once it has done all that the next update needs.
//
// The swap itself is package apply's, as for every other program; here is what differs
// when the program is the process that asks for it.
package self

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"shoal/agent/apply"
	"shoal/agent/internal/command"
	"shoal/agent/service"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/internal/turn"
)

const (
	trialTime = 30 * time.Second
	// What a new version that passes its check prints, among other things.
	trialAnswer = "shoal.self-check/"
	// A file that was written a moment ago can still be open for writing in a child
	// that is about to start; see golang/go#22315.
	busyTries = 20
	busyPause = 50 * time.Millisecond
)

// Program is the file a process runs from.
type Program struct {
	path string // links resolved
	file os.FileInfo
}

// Running returns the program of this process. It is to be called at the start: later
// the file at its place can be another one.
func Running() (*Program, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for the running program: %w", err)
	}
	return At(path)
}

// At returns the program at path, as a process that started from it would.
func At(path string) (*Program, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("looking for the running program: %w", err)
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("looking at the running program: %w", err)
	}
	return &Program{path, file}, nil
}

// Path is where the program is, and where a new version of it is put.
func (p *Program) Path() string { return p.path }

// Is reports whether a target means this program. A nil Program is none.
func (p *Program) Is(target string) bool {
	if p == nil {
		return false
	}
	real, err := filepath.EvalSymlinks(target)
	return err == nil && real == p.path
}

// Service returns the program as a service that runs, and that only its next process
// can restart into another file.
func (p *Program) Service() service.Service { return itself{p: p} }

type itself struct {
	service.None
	p *Program
}

// State says that it runs, since it is what answers.
func (itself) State(context.Context) (service.State, error) {
	return service.State{Running: true, Enabled: true, PID: os.Getpid(), Detail: "this process"}, nil
}

// Restart does nothing when what runs is what is installed.
func (s itself) Restart(context.Context) error {
	file, err := os.Stat(s.p.path)
	if err == nil && os.SameFile(file, s.p.file) {
		return nil
	}
	return service.ErrSelf
}

// Trial returns a check of a staged file: it must answer args as an agent that can read
// this machine's configuration and state does. It gets this process's environment, in
// which it is to run later, without what would let it talk to the supervisor.
func Trial(args []string) func(ctx context.Context, path string) error { return trial(args, trialTime) }

func trial(args []string, within time.Duration) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		c := command.Command{Argv: append([]string{path}, args...), Env: environment(), Timeout: within}
		o, err := command.Run(ctx, c)
		for try := 1; errors.Is(err, syscall.ETXTBSY) && try < busyTries && ctx.Err() == nil; try++ {
			time.Sleep(busyPause)
			o, err = command.Run(ctx, c)
		}
		if err == nil && !strings.Contains(o.Output, trialAnswer) {
			err = fmt.Errorf("%q did not answer as an agent does", args)
		}
		return err
	}
}

func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES":
		default:
			env = append(env, v)
		}
	}
	return env
}

// Start is the first thing an agent does: it counts the start of program against an
// update that is not confirmed yet. It returns true when that was one too many and the
// version before is back, which is then to be run instead. An error keeps nobody from
// going on.
func Start(stateDir string, program *Program) (back bool, err error) {
	err = engine(stateDir, func(e *apply.Engine) error {
		back, err = e.Started(program.path)
		return err
	})
	return back, err
}

// Recover puts the version before back when an update of the agent that keeps its state
// in stateDir is not confirmed, and returns where. It does nothing, and returns "", when
// there is none, and fails with fault.Locked while an agent runs. For a command that is at
// work it waits: the guard is called once.
func Recover(stateDir string) (target string, err error) {
	err = engine(stateDir, func(e *apply.Engine) error {
		target, err = e.RevertSelf(fault.New(fault.Reverted, "it did not start, and the guard was called"))
		return err
	})
	return target, err
}

// engine runs f under the lock of stateDir, unless no agent ever installed anything.
func engine(stateDir string, f func(*apply.Engine) error) error {
	dir := filepath.Join(stateDir, "apply")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	open := func() (*state.Store, error) { return state.Open(stateDir, "") }
	store, err := turn.Alone(context.Background(), stateDir, open)
	if err != nil {
		return err
	}
	defer store.Close()
	e, err := apply.New(apply.Options{StateDir: dir})
	if err != nil {
		return err
	}
	return f(e)
}

// Guard is the name of the guard in the directory of the agent's program.
func Guard(program string) string {
	name := "guard"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(filepath.Dir(program), name)
}
