package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shoal/agent/self"
	"shoal/cmd/shoal/internal/units"
)

// cli is one invocation: its streams, its global flags and what it has found out.
// Commands are closures over it; nothing of it outlives run.
type cli struct {
	std     stdio
	getenv  func(string) string
	current *cobra.Command // the command being run, once the command line is parsed
	started bool           // a command's own code has begun; errors before that are cobra's
	printed bool           // something went to standard output through print

	flags globalFlags

	// passphraseFile is --passphrase-file of the commands that sign, and
	// passphraseDefault the configured one, used when neither it nor the
	// environment names a file.
	passphraseFile, passphraseDefault string

	program *self.Program // what this process runs from; nil when that cannot be told

	makesConfig bool // the configuration file that --config names may not be there yet

	inTTY, outTTY, errTTY bool
}

// globalFlags are understood by every command.
type globalFlags struct {
	config, state       string
	output              format
	quiet, verbose      bool
	noColor, yes        bool
	timeout             units.Duration
	logLevel, logFormat string
}

func newCLI(std stdio) *cli {
	program, _ := self.Running()
	return &cli{
		std: std, getenv: os.Getenv, program: program,
		inTTY: isTerminal(std.in), outTTY: isTerminal(std.out), errTTY: isTerminal(std.err),
		flags: globalFlags{output: formatText},
	}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// fancy reports whether a stream, being a terminal, may show colours and moving bars.
func (c *cli) fancy(terminal bool) bool {
	return terminal && !c.flags.noColor && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"
}

// quiet reports whether -q was given.
func (c *cli) quiet() bool { return c.flags.quiet }

// say tells a person how things go: one line on standard error, nothing with -q.
func (c *cli) say(format string, args ...any) {
	if !c.quiet() {
		fmt.Fprintln(c.std.err, printable(fmt.Sprintf(format, args...)))
	}
}

// warn is say for what a person should not miss: -q does not silence it.
func (c *cli) warn(format string, args ...any) {
	fmt.Fprintln(c.std.err, "warning: "+printable(fmt.Sprintf(format, args...)))
}

// confirm asks a yes-or-no question on the terminal; --yes answers it. Without a
// terminal and without --yes it is a usage error that names the flag.
func (c *cli) confirm(question string) (bool, error) {
	if c.flags.yes {
		return true, nil
	}
	if !c.inTTY || !c.errTTY {
		return false, usagef("cannot ask %q without a terminal", question).Do("say yes beforehand with --yes")
	}
	fmt.Fprintf(c.std.err, "%s [y/N] ", printable(question))
	answer, err := bufio.NewReader(c.std.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// timeout is --timeout; zero when it was not given.
func (c *cli) timeout() units.Duration { return c.flags.timeout }

// withTimeout bounds ctx by --timeout, or by def when the flag is not given; zero
// means no bound.
func (c *cli) withTimeout(ctx context.Context, def time.Duration) (context.Context, context.CancelFunc) {
	d := c.flags.timeout.Duration()
	if d == 0 {
		d = def
	}
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
