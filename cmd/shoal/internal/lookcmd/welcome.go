// Package lookcmd has the verbs for looking around: demo, doctor, verify, explain, config,
// completion, version, and what shoal alone prints. They change nothing that is there.
package lookcmd

import (
	"fmt"
	"os"
	"path/filepath"

	"shoal/cmd/shoal/internal/cli"
)

// Welcome is what "shoal" alone prints: what it is, and the three commands that are
// likely next on this machine.
func Welcome(c *cli.CLI) error {
	next := [3][2]string{
		{"shoal demo", "see a small fleet updated on this machine"},
		{"shoal init --app acme", "start publishing"},
		{"shoal agent join LINK", "keep a program on this machine up to date"},
	}
	switch {
	case there(c.JoinFile()), there(filepath.Join(c.StateDir(), "state.json")):
		next = [3][2]string{
			{"shoal agent status", "what runs here and what is known"},
			{"shoal agent check", "ask for something newer now"},
			{"shoal agent update", "install it now"},
		}
	case there(c.ConfigPath("publisher")):
		next = [3][2]string{
			{"shoal publish --version V FILE", "sign and publish a release"},
			{"shoal serve", "give it to the machines"},
			{"shoal link create", "the link with which machines join"},
		}
	}
	fmt.Fprintln(c.Std.Out, "shoal: signed software updates that spread machine to machine. What is likely next here:")
	for _, n := range next {
		fmt.Fprintf(c.Std.Out, "  %-32s %s\n", n[0], n[1])
	}
	_, err := fmt.Fprintf(c.Std.Out, "  %-32s %s\n", "shoal --help", "everything else")
	return err
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
