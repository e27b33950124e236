package lookcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent/state"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/ceremony"
)

// verifyFlags say against what a file is held.
type verifyFlags struct {
	root, pin, tree string
	manifests       []string
}

// Verify is shoal verify.
func Verify(c *cli.CLI) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Say whether a file belongs to a signed release",
		Example: `  shoal verify /opt/acme/acme
  shoal verify ./acme --tree /mnt/stick --pin sha256:5b1c...
  shoal verify ./acme --root root-1.env.json --manifest m43.env.json`,
		Long: `Nothing is asked of a network. The releases are those this machine's agent trusts; with --tree
those of a copy of a publisher's tree; with --manifest those of the envelopes that are named. On a
publisher's machine, without any of these, they are those of its repository, earlier ones too.

--root names a root of the fleet, --pin its fleet id. With --tree alone the tree is taken at its
word about whose it is, and that is said.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := verifySource(cmd.Context(), c, &f)
			if err != nil {
				return err
			}
			res, err := fleet.Verify(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.Print("shoal.verify/v1", res, func(w io.Writer) { writeBelongs(w, args[0], res) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.root, "root", "", "root `FILE` of the fleet")
	fl.StringVar(&f.pin, "pin", "", "fleet id: `SHA256`")
	fl.StringVar(&f.tree, "tree", "", "look in this copy of a tree: `DIR`")
	fl.StringSliceVar(&f.manifests, "manifest", nil, "with --root: look in this envelope `FILE`; may be given again")
	cmd.MarkFlagsMutuallyExclusive("tree", "manifest")
	return cmd
}

func verifySource(ctx context.Context, c *cli.CLI, f *verifyFlags) (*ceremony.Fleet, error) {
	var s ceremony.Source
	if f.pin != "" {
		pin, err := cli.Digest("pin", f.pin)
		if err != nil {
			return nil, err
		}
		s.Pin = &pin
	}
	var root *ceremony.Fleet
	if f.root != "" {
		var err error
		if root, err = (ceremony.Source{Roots: []string{f.root}, Pin: s.Pin}).Open(ctx, false); err != nil {
			return nil, err
		}
		s.Pin = &root.ID
	}
	switch {
	case len(f.manifests) > 0:
		if root == nil {
			return nil, cli.Usagef("--manifest goes with --root").Do("--root ROOT.env.json")
		}
		s.Roots, s.Previous = []string{f.root}, f.manifests
		return s.Open(ctx, false)
	case f.tree != "":
		if strings.Contains(f.tree, "://") {
			return nil, cli.Usagef("--tree %q is not a directory", f.tree).Line("This command works without a network.")
		}
		s.Tree = f.tree
		fleet, err := s.Open(ctx, false)
		if err == nil && s.Pin == nil {
			c.Warn("the tree says itself that it is of the fleet %s: compare, or name it with --pin", fleet.ID.Prefixed())
		}
		return hasRoot(fleet, root, err)
	}
	fleet, err := agentFleet(ctx, c, s)
	if errors.Is(err, fault.NotFound) {
		cfg, cerr := publishing.Config(c)
		if cerr != nil {
			return nil, cerr
		}
		fleet, err = publishing.Source(cfg, s.Pin).Open(ctx, false)
		if errors.Is(err, fault.NotFound) {
			return nil, cli.Usagef("this machine has neither an agent nor a repository to look in").
				Do("name a copy of the publisher's tree: --tree DIR").
				Do("or a root and a release: --root FILE --manifest FILE")
		}
	}
	return hasRoot(fleet, root, err)
}

// hasRoot checks that a fleet's chain has the root that was named.
func hasRoot(fleet, named *ceremony.Fleet, err error) (*ceremony.Fleet, error) {
	if err != nil || named == nil {
		return fleet, err
	}
	return fleet, fleet.Includes(named)
}

// agentFleet is what this machine's agent trusts. Its state is the one place here that
// knows the fleet without being told.
func agentFleet(ctx context.Context, c *cli.CLI, s ceremony.Source) (*ceremony.Fleet, error) {
	dir := c.StateDir()
	id, err := state.FleetID(dir)
	if err != nil {
		return nil, err
	}
	if own := manifest.Digest(id); s.Pin == nil {
		s.Pin = &own
	} else if *s.Pin != own {
		return nil, fault.New(fault.PinMismatch, "the agent of this machine is of another fleet").
			Line("Wanted %s, it has %s.", s.Pin.Prefixed(), own.Prefixed()).Do("name a copy of the publisher's tree: --tree DIR")
	}
	s.Tree = filepath.Join(dir, state.Tree)
	return s.Open(ctx, false)
}

func writeBelongs(w io.Writer, path string, res *ceremony.Belongs) {
	fmt.Fprintf(w, "%s is signed.  sha256 %s\n", path, res.SHA256)
	for _, m := range res.In {
		what := m.Platform
		if m.Attachment != "" {
			what = "attachment " + m.Attachment
		}
		var names []string
		for _, k := range m.SignedBy {
			names = append(names, k.Name)
		}
		when := "until " + m.Expires.Format("2006-01-02 15:04 UTC")
		if m.Expired {
			when = "OUT OF DATE since " + m.Expires.Format("2006-01-02 15:04 UTC")
		}
		if !m.Current {
			when = "an earlier release"
		}
		fmt.Fprintf(w, "  %s %s (%d.%d), %s, signed by %s; %s\n", m.Channel, m.Version, m.Epoch, m.Sequence, what, words.Printable(strings.Join(names, ", ")), when)
	}
	fmt.Fprintf(w, "  fleet %s\n", res.FleetID)
}
