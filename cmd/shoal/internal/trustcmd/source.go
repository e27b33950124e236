package trustcmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/publisher/ceremony"
	"shoal/publisher/ceremony/diff"
)

// sourceFlags say where a fleet is to be learnt where it is not the configured
// repository.
type sourceFlags struct {
	roots, previous []string
	tree, pin       string
}

func (f *sourceFlags) register(cmd *cobra.Command, previous bool) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.roots, "root", nil, "root `FILE`s of the fleet, instead of the configured repository")
	if previous {
		fl.StringSliceVar(&f.previous, "previous", nil, "with --root: envelope `FILE` of what was released last")
	}
	fl.StringVar(&f.tree, "tree", "", "a copy of the repository's tree, `DIR` or URL, instead of the configured repository")
	fl.StringVar(&f.pin, "pin", "", "the fleet id it must be: `SHA256`")
	cmd.MarkFlagsMutuallyExclusive("root", "tree")
}

// ceremonySource is where the flags say, or else the configured repository.
func ceremonySource(c *cli.CLI, f *sourceFlags) (ceremony.Source, error) {
	s := ceremony.Source{Roots: f.roots, Previous: f.previous, Tree: f.tree}
	if len(f.previous) > 0 && len(f.roots) == 0 {
		return s, cli.Usagef("--previous goes with --root")
	}
	if f.pin != "" {
		pin, err := cli.Digest("pin", f.pin)
		if err != nil {
			return s, err
		}
		s.Pin = &pin
	}
	if len(s.Roots) > 0 || s.Tree != "" {
		return s, nil
	}
	cfg, err := publishing.Config(c)
	if err != nil {
		return s, err
	}
	return publishing.Source(cfg, s.Pin), nil
}

// now is the time by which drafts are dated.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// writeChanges prints what a document changes, with marks where to look twice.
func writeChanges(w io.Writer, changes []diff.Change) {
	for _, ch := range changes {
		mark := "  "
		if ch.Alarm {
			mark = "! "
		}
		fmt.Fprintf(w, "%s%s\n", mark, words.Printable(ch.Text))
	}
}

func writeSigners(w io.Writer, list []ceremony.Signers) {
	for i := range list {
		s := &list[i]
		var marks []string
		for _, k := range s.Signed {
			marks = append(marks, "✓ "+k.Name)
		}
		for _, k := range s.Missing {
			marks = append(marks, "✗ "+k.Name)
		}
		fmt.Fprintf(w, "%s: %d of %d signatures   %s\n", s.Role, len(s.Signed), s.Threshold, words.Printable(strings.Join(marks, "   ")))
	}
}

// showReview shows a person what is about to be signed.
func showReview(c *cli.CLI, r *ceremony.Review) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nfleet   %s\npayload sha256:%s\n", r.Document, r.FleetID, r.Payload)
	writeChanges(&b, r.Changes)
	// -q silences talk; what somebody is about to sign is no talk.
	fmt.Fprint(c.Std.Err, words.Printable(b.String()))
	c.WarnAll(r.Warnings)
}
