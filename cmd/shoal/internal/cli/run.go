package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

// Again is the command line for verb with the configuration of this one.
func (c *CLI) Again(verb string) string {
	if c.flags.config == "" {
		return "shoal " + verb
	}
	return "shoal --config " + words.Shell(c.flags.config) + " " + verb
}

// Streams is what a command reads from and writes to.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExitStatus ends a command with a status and no message: what there was to say has
// been said. It is for the statuses that belong to no code, such as "an update is
// available", and for commands whose printed result already tells of the failure.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Execute runs the command that args name, and tells of its failure.
func (c *CLI) Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(c.Std.In)
	root.SetOut(c.Std.Out)
	root.SetErr(c.Std.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var status ExitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if !c.started {
		// The flags may not have been read to their end when a wrong one was met.
		c.flags.output = outputOf(args, c.flags.output)
		if fault.CodeOf(err) == fault.IO {
			// cobra's own complaints about the command line carry no code.
			err = usageError(cmd, err)
		}
	}
	var coded *fault.Error
	switch {
	case !errors.As(err, &coded) && errors.Is(err, context.Canceled):
		err = fault.New(fault.Interrupted, "interrupted")
	case ctx.Err() == nil:
		if d := c.flags.timeout.Duration(); d > 0 && errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &coded) {
			err = fault.New(fault.IO, "gave up after %s: %w", c.flags.timeout, err).Do("give it longer: --timeout")
		}
	case fault.CodeOf(err) != fault.Interrupted:
		// Once interrupted, whatever failed next failed because of it.
		err = fault.New(fault.Interrupted, "interrupted: %w", err)
	}
	return c.fail(err)
}

// usageError turns what is wrong with a command line into an error of its own code.
func usageError(cmd *cobra.Command, err error) error {
	e := fault.New(fault.Usage, "%w", err)
	if cmd != nil {
		e.Do("%s --help", cmd.CommandPath())
	}
	return e
}

// Usagef reports a wrong command line from within a command.
func Usagef(format string, args ...any) *fault.Error {
	return fault.New(fault.Usage, format, args...)
}

// outputOf finds the value of -o in a command line that could not be parsed.
func outputOf(args []string, def format) format {
	for i, arg := range args {
		value, ok := strings.CutPrefix(arg, "--output=")
		if !ok && (arg == "-o" || arg == "--output") && i+1 < len(args) {
			value, ok = args[i+1], true
		} else if !ok && !strings.HasPrefix(arg, "--") {
			value, ok = strings.CutPrefix(arg, "-o")
			value = strings.TrimPrefix(value, "=")
		}
		var f format
		if ok && f.Set(value) == nil {
			return f
		}
	}
	return def
}
