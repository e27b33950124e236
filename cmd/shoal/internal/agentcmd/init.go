package agentcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent/checker"
	"shoal/cmd/shoal/internal/cli"
	"shoal/manifest"
)

func newInitCmd(c *cli.CLI) *cobra.Command {
	var (
		o        checker.Init
		pin, seq string
	)
	cmd := &cobra.Command{
		Use:   "init --state DIR --root FILE",
		Short: "Make the state of a checker, which verifies and installs nothing",
		Example: `  shoal agent init --state ./check --root root-1.env.json --pin sha256:5b1c...e7
  shoal agent check --once --state ./check --source ./tree --app acme --channel stable`,
		Long: `Pins the root of version 1. Without --pin its own hash is pinned, and printed: compare it with
what the publisher tells. This is plumbing with a stable interface, for scripts and auditors.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if !c.StateDirGiven() {
				return cli.Usagef("--state DIR is needed: a checker has a state of its own")
			}
			o.Dir = c.StateDir()
			if o.Root == "" {
				return cli.Usagef("--root FILE is needed: the envelope of root version 1")
			}
			if pin != "" {
				d, err := manifest.ParsePrefixed(pin)
				if err != nil {
					return cli.Usagef("--pin: %w", err)
				}
				o.Pin = &d
			}
			if seq != "" {
				if o.MinSequence, err = manifest.ParseOrder(seq); err != nil {
					return cli.Usagef("--min-sequence: %w", err)
				}
			}
			if o.MinRoot < 0 {
				return cli.Usagef("--min-root %d is negative", o.MinRoot)
			}
			made, err := o.Do()
			if err != nil {
				return err
			}
			if made.Already && (o.MinRoot != 0 && o.MinRoot != made.MinRoot || seq != "" && seq != made.MinSequence) {
				c.Warn("%s was made before and is left as it is: its least root is %d, its least order %q", made.State, made.MinRoot, made.MinSequence)
			}
			return c.Print("shoal.agent-init/v1", made, func(w io.Writer) {
				word := "Pinned"
				if made.Already {
					word = "Pinned before:"
				}
				fmt.Fprintf(w, "%s %s (%s) in %s\n", word, made.Fleet, made.Name, made.State)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.Root, "root", "", "`FILE` with the envelope of root version 1")
	fl.StringVar(&pin, "pin", "", "the fleet id it must have, `sha256:HEX`")
	fl.Int64Var(&o.MinRoot, "min-root", 0, "least root version `N` to act under")
	fl.StringVar(&seq, "min-sequence", "", "least `EPOCH.SEQUENCE` of every channel")
	return cmd
}
