// Package cli is the frame of every shoal command: it gives each the same streams, global
// flags, forms of output, questions, passphrases and configuration files, and turns what
// went wrong into one error for people and programs and an exit status.
//
// A command is a function of a [CLI]. It prints its result once, with [CLI.Print], talks
// with [CLI.Say] and [CLI.Warn], and returns errors of package fault; it never writes to the
// process's own streams, and never exits. What verbs share about one side of Shoal stands in
// packages machine and publishing.
package cli

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
	"shoal/cmd/shoal/internal/words"
)

// CLI is one invocation: its streams, its global flags and what it has found out.
// Commands are closures over it; nothing of it outlives Execute.
type CLI struct {
	Std                   Streams
	InTTY, OutTTY, ErrTTY bool                // which of them are terminals
	Getenv                func(string) string // the environment
	Program               *self.Program       // what this process runs from; nil when that cannot be told

	MakesConfig       bool   // the configuration file that --config names may not be there yet
	PassphraseDefault string // the configured passphrase file, used when neither flag nor environment names one

	flags          globalFlags
	passphraseFile string         // --passphrase-file of the commands that sign
	current        *cobra.Command // the command being run, once the command line is parsed
	started        bool           // a command's own code has begun; errors before that are cobra's
	printed        bool           // something went to standard output through Print or Data
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

// New is an invocation with these streams and the process's environment.
func New(std Streams) *CLI {
	program, _ := self.Running()
	return &CLI{
		Std: std, Getenv: os.Getenv, Program: program,
		InTTY: isTerminal(std.In), OutTTY: isTerminal(std.Out), ErrTTY: isTerminal(std.Err),
		flags: globalFlags{output: formatText},
	}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Fancy reports whether a stream, being a terminal, may show colours and moving bars.
func (c *CLI) Fancy(terminal bool) bool {
	return terminal && !c.flags.noColor && c.Getenv("NO_COLOR") == "" && c.Getenv("TERM") != "dumb"
}

// Quiet reports whether -q was given.
func (c *CLI) Quiet() bool { return c.flags.quiet }

// Say tells a person how things go: one line on standard error, nothing with -q.
func (c *CLI) Say(format string, args ...any) {
	if !c.Quiet() {
		fmt.Fprintln(c.Std.Err, words.Printable(fmt.Sprintf(format, args...)))
	}
}

// Warn is Say for what a person should not miss: -q does not silence it.
func (c *CLI) Warn(format string, args ...any) {
	fmt.Fprintln(c.Std.Err, "warning: "+words.Printable(fmt.Sprintf(format, args...)))
}

// Confirm asks a yes-or-no question on the terminal; --yes answers it. Without a
// terminal and without --yes it is a usage error that names the flag.
func (c *CLI) Confirm(question string) (bool, error) {
	if c.flags.yes {
		return true, nil
	}
	if !c.InTTY || !c.ErrTTY {
		return false, Usagef("cannot ask %q without a terminal", question).Do("say yes beforehand with --yes")
	}
	fmt.Fprintf(c.Std.Err, "%s [y/N] ", words.Printable(question))
	answer, err := bufio.NewReader(c.Std.In).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// Timeout is --timeout; zero when it was not given.
func (c *CLI) Timeout() units.Duration { return c.flags.timeout }

// WithTimeout bounds ctx by --timeout, or by def when the flag is not given; zero
// means no bound.
func (c *CLI) WithTimeout(ctx context.Context, def time.Duration) (context.Context, context.CancelFunc) {
	d := c.flags.timeout.Duration()
	if d == 0 {
		d = def
	}
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// WarnAll is Warn for each of lines.
func (c *CLI) WarnAll(lines []string) {
	for _, line := range lines {
		c.Warn("%s", line)
	}
}
