// Package command runs the short commands that an operator configured: hooks,
// health checks, service control.
//
// A command is an argv list and is never read by a shell. It gets a clean
// environment, no input and a time limit; when that is over its whole process group
// is killed, so nothing it started is left behind. Of its output the last 64 KiB
// are kept, however much it prints.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxOutput is how much of a command's output is kept: its end.
	MaxOutput = 64 << 10
	maxLine   = 200 // of output, quoted in an error

	// How long to wait, once the command itself has ended, for what it left behind
	// holding its output open.
	lingering = 2 * time.Second
)

// Command is what to run.
type Command struct {
	Argv    []string // Argv[0] is looked up in PATH when it has no slash
	Env     []string // added to the clean environment, "NAME=value"
	Timeout time.Duration
}

// Outcome is what it did.
type Outcome struct {
	Exit   int    // exit status; -1 when it did not start or was killed
	Output string // standard output and error together, the last MaxOutput bytes
}

// Error is a command that did not exit 0.
type Error struct {
	Argv     []string
	Exit     int    // exit status; -1 when it did not start or was killed
	LastLine string // of its output
	Err      error  // why, when it did not exit by itself
}

// Error says which command ended how, and the last thing it said.
func (e *Error) Error() string {
	s := fmt.Sprintf("%q ", strings.Join(e.Argv, " "))
	if e.Err != nil {
		s += e.Err.Error()
	} else {
		s += fmt.Sprintf("exited %d", e.Exit)
	}
	if e.LastLine != "" {
		s += fmt.Sprintf(": %q", e.LastLine)
	}
	return s
}

// Unwrap returns the reason why it did not exit by itself.
func (e *Error) Unwrap() error { return e.Err }

// errTimeout is a command's own time limit, told apart from ctx's end.
var errTimeout = errors.New("timed out")

// Run runs c and waits for it. The error is nil if it exited 0, ctx's error if ctx
// ended, else an *Error.
func Run(ctx context.Context, c Command) (Outcome, error) {
	if len(c.Argv) == 0 {
		return Outcome{Exit: -1}, errors.New("running a command: it is empty")
	}
	run, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("%w after %v", errTimeout, c.Timeout))
	defer cancel()

	var out tail
	cmd := exec.CommandContext(run, c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(cleanEnv(), c.Env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = rootDir
	cmd.WaitDelay = lingering
	ownGroup(cmd)
	err := cmd.Run()

	o := Outcome{Exit: -1, Output: out.String()}
	if cmd.ProcessState != nil {
		o.Exit = cmd.ProcessState.ExitCode()
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && o.Exit == 0:
		// A child that keeps the output open after a clean exit is no failure.
		return o, nil
	case ctx.Err() != nil:
		return o, ctx.Err()
	case errors.Is(context.Cause(run), errTimeout):
		return o, &Error{Argv: c.Argv, Exit: -1, LastLine: lastLine(o.Output), Err: context.Cause(run)}
	}
	e := &Error{Argv: c.Argv, Exit: o.Exit, LastLine: lastLine(o.Output)}
	if o.Exit == -1 { // not started, or killed by a signal
		e.Err = err
	}
	return o, e
}

// cleanEnv is an environment without this process's secrets and settings.
func cleanEnv() []string {
	env := append([]string(nil), fixedEnv...)
	for _, name := range keptEnv {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// lastLine returns the last line of output that is not blank, cut to a sane length.
func lastLine(output string) string {
	output = strings.TrimSpace(output)
	if i := strings.LastIndexByte(output, '\n'); i >= 0 {
		output = output[i+1:]
	}
	output = strings.TrimSpace(output)
	if len(output) > maxLine {
		output = output[:maxLine]
		for !utf8.ValidString(output) && output != "" && len(output) > maxLine-utf8.UTFMax {
			output = output[:len(output)-1]
		}
		output += "…"
	}
	return output
}

// tail keeps the last MaxOutput bytes written to it.
type tail struct {
	buf bytes.Buffer // up to twice MaxOutput
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > MaxOutput {
		p = p[len(p)-MaxOutput:]
	}
	t.buf.Write(p)
	if t.buf.Len() > 2*MaxOutput {
		t.buf.Next(t.buf.Len() - MaxOutput)
	}
	return n, nil
}

// String returns what was kept.
func (t *tail) String() string {
	b := t.buf.Bytes()
	if len(b) > MaxOutput {
		b = b[len(b)-MaxOutput:]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
