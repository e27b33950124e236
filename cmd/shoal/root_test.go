package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
)

// wholeTree is every command, for tests that run none.
func wholeTree() *cobra.Command {
	return newRoot(cli.New(cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}))
}

// A page that names a command that is not there sends its reader into the next error.
func TestPagesNameCommandsThatExist(t *testing.T) {
	root := wholeTree()
	quoted := regexp.MustCompile("`shoal ([^`]*)`")
	found := 0
	for _, row := range fault.Table {
		text, err := os.ReadFile(filepath.Join("internal", "lookcmd", "explain", string(row.Code)+".md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\n", " "), -1) {
			found++
			checkCommandLine(t, root, "the page of "+string(row.Code), m[1])
		}
	}
	if found < 20 {
		t.Errorf("only %d commands found in the pages", found)
	}
}

// checkCommandLine fails when a command line of a text names a command or a flag that
// does not exist.
func checkCommandLine(t *testing.T, root *cobra.Command, where, line string) {
	t.Helper()
	words := strings.Fields(line)
	cmd, rest, err := root.Find(words)
	if err != nil || (cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-")) {
		t.Errorf("%s names %q, which is no command", where, "shoal "+line)
		return
	}
	for _, word := range words {
		name, isFlag := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			t.Errorf("%s names %q: %q has no flag --%s", where, "shoal "+line, cmd.CommandPath(), name)
		}
	}
}

func TestHelpTexts(t *testing.T) {
	root := wholeTree()
	for cmd := range commands(root) {
		if cmd.Hidden || cmd.Name() == "help" && cmd.Parent() != root {
			continue
		}
		path := cmd.CommandPath()
		if n := len([]rune(cmd.Short)); n < 10 || n > 80 || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its line %q should be 10 to 80 characters without a full stop", path, cmd.Short)
		}
		lines := slices.DeleteFunc(strings.Split(cmd.Example, "\n"), func(s string) bool { return strings.TrimSpace(s) == "" })
		if len(lines) < 2 {
			t.Errorf("%s: %d lines of examples, want two or more", path, len(lines))
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, "shoal ") {
				t.Errorf("%s: example %q should be a shoal command, indented by two spaces", path, line)
				continue
			}
			_, example, _ := strings.Cut(line, "shoal ")
			if end := strings.IndexAny(example, ";>)|"); end >= 0 {
				example = example[:end]
			}
			checkCommandLine(t, root, "the help of "+path, example)
		}
		if !cmd.HasSubCommands() && cmd.RunE == nil {
			t.Errorf("%s has no RunE: its errors could have no code", path)
		}
		if cmd.Parent() == root && cmd.GroupID == "" {
			t.Errorf("%s is in no group of the help text", path)
		}
	}
}

// commands yields root and everything below it.
func commands(root *cobra.Command) func(yield func(*cobra.Command) bool) {
	return func(yield func(*cobra.Command) bool) {
		queue := []*cobra.Command{root}
		for len(queue) > 0 {
			cmd := queue[0]
			queue = append(queue[1:], cmd.Commands()...)
			if !yield(cmd) {
				return
			}
		}
	}
}
