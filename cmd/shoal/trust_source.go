package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher"
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

// source is where the flags say, or else the configured repository.
func (c *cli) source(f *sourceFlags) (ceremony.Source, error) {
	s := ceremony.Source{Roots: f.roots, Previous: f.previous, Tree: f.tree}
	if len(f.previous) > 0 && len(f.roots) == 0 {
		return s, usagef("--previous goes with --root")
	}
	if f.pin != "" {
		pin, err := digestFlag("pin", f.pin)
		if err != nil {
			return s, err
		}
		s.Pin = &pin
	}
	if len(s.Roots) > 0 || s.Tree != "" {
		return s, nil
	}
	cfg, err := c.publisherConfig()
	if err != nil {
		return s, err
	}
	return ceremonySource(cfg, s.Pin), nil
}

// ceremonySource is the configured repository.
func ceremonySource(cfg publisher.Config, pin *manifest.Digest) ceremony.Source {
	return ceremony.Source{Store: cfg.Store, Places: cfg.Places(), Transport: cfg.Transport(), Pin: pin, Clock: cfg.Clock}
}

func (c *cli) warnAll(lines []string) {
	for _, line := range lines {
		c.warn("%s", line)
	}
}

// now is the time by which drafts are dated.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// printDocument is the result of a command that makes a document. The document goes to
// --out, or to standard output as it is; v and text tell about it. In the machine-readable
// forms without --out it is the member "document" of the result.
func (c *cli) printDocument(schema string, v any, doc []byte, out string, text func(io.Writer)) error {
	if out != "" {
		if err := durable.WriteFile(out, doc, 0o644); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return fault.New(fault.Permission, "%w", err)
			}
			return fault.New(fault.IO, "%w", err)
		}
		return c.print(schema, v, text)
	}
	if !c.forPeople() {
		raw, err := marshal(v)
		if err != nil {
			return err
		}
		whole, err := marshal(string(doc))
		if err != nil {
			return err
		}
		raw = append(bytes.TrimSuffix(raw, []byte("}")), `,"document":`...)
		return c.print(schema, json.RawMessage(append(append(raw, whole...), '}')), text)
	}
	var talk bytes.Buffer
	text(&talk)
	if talk.Len() > 0 {
		c.say("%s", strings.TrimRight(talk.String(), "\n"))
	}
	return c.print(schema, v, func(w io.Writer) { w.Write(doc) })
}

// writeChanges prints what a document changes, with marks where to look twice.
func writeChanges(w io.Writer, changes []diff.Change) {
	for _, ch := range changes {
		mark := "  "
		if ch.Alarm {
			mark = "! "
		}
		fmt.Fprintf(w, "%s%s\n", mark, printable(ch.Text))
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
		fmt.Fprintf(w, "%s: %d of %d signatures   %s\n", s.Role, len(s.Signed), s.Threshold, printable(strings.Join(marks, "   ")))
	}
}

// showReview shows a person what is about to be signed.
func (c *cli) showReview(r *ceremony.Review) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nfleet   %s\npayload sha256:%s\n", r.Document, r.FleetID, r.Payload)
	writeChanges(&b, r.Changes)
	// -q silences talk; what somebody is about to sign is no talk.
	fmt.Fprint(c.std.err, printable(b.String()))
	c.warnAll(r.Warnings)
}
