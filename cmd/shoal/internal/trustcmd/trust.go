// Package trustcmd has the verbs of ceremonies, for machines apart and days when nothing may
// go wrong: keys, trust, manifest and channel. What is signed is shown first, and is the very
// file that was shown.
package trustcmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/keys"
	"shoal/publisher/ceremony"
)

// Trust is shoal trust.
func Trust(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Draft, sign and check roots: who may sign what",
		Example: `  shoal trust show
  shoal trust draft --from root-1.env.json --replace alice=alice-2.pub > root-2.json`,
		Long: `A root names the keys of a fleet, what each may sign, and how many must. The hash of its first
version is the fleet id, which machines pin; every later one is signed by the keys of the root
before and by its own.`,
	}
	cmd.AddCommand(newTrustDraftCmd(c), newTrustSignCmd(c), newTrustAssembleCmd(c), newTrustCheckCmd(c), newTrustShowCmd(c), newTrustResetCmd(c))
	return cmd
}

// before is the fleet whose newest root --from names; nil where it names none.
func before(ctx context.Context, c *cli.CLI, from []string, lock bool) (*ceremony.Fleet, error) {
	if len(from) == 0 {
		return nil, nil
	}
	cfg, err := publishing.Config(c) // on a root keeper's machine the defaults, and no repository there
	if err != nil {
		return nil, err
	}
	return publishing.Source(cfg, nil).OpenFrom(ctx, from, lock)
}

func newTrustSignCmd(c *cli.CLI) *cobra.Command {
	var from, refs []string
	cmd := &cobra.Command{
		Use:   "sign FILE --key REF",
		Short: "Show what a root changes, ask, and sign it",
		Example: `  shoal trust sign root-1.json --key file:root-alice
  shoal trust sign root-2.json --from root-1.env.json --key agent:root-bob.pub`,
		Long: `The signature is written beside FILE, as FILE.NAME.sig, where NAME is the key's comment; FILE
itself is not changed. ssh-keygen -Y sign -n shoal.root.v1 -f KEY FILE does the same.

For a root that follows another, --from names that one; without it the configured repository's.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			fleet, err := rootBefore(ctx, c, args[0], from, true)
			if err != nil {
				return err
			}
			defer fleet.Close()
			res, err := ceremony.SignRoot(ctx, fleet, signRequest(c, args[0], refs, nil), now())
			return printSigned(c, res, err)
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "the root `FILE` before this one")
	cmd.Flags().StringArrayVar(&refs, "key", nil, "sign with this key: `REF`; may be given again")
	c.PassphraseFlag(cmd)
	return cli.Required(cmd, "key")
}

// rootBefore is the fleet before the root in file: what --from names, or else, for any
// but a first root, the configured repository.
func rootBefore(ctx context.Context, c *cli.CLI, file string, from []string, lock bool) (*ceremony.Fleet, error) {
	fleet, err := before(ctx, c, from, lock)
	if err != nil || fleet != nil {
		return fleet, err
	}
	d, err := ceremony.ReadRoot(file)
	if err != nil || d.Root.Version == 1 {
		return nil, err
	}
	cfg, err := publishing.Config(c)
	if err != nil {
		return nil, err
	}
	return publishing.Source(cfg, nil).Open(ctx, lock)
}

// signRequest asks for signatures with the keys refs, or else the configured ones.
func signRequest(c *cli.CLI, file string, refs, configured []string) ceremony.SignRequest {
	return ceremony.SignRequest{
		File: file, Show: func(r *ceremony.Review) { showReview(c, r) }, Confirm: c.Confirm,
		Keys: func(ctx context.Context) ([]keys.Signer, error) { return publishing.Signers(ctx, c, refs, configured) },
	}
}

// printSigned prints what was signed. When a later key failed the files of those before
// it are there all the same, and are told of beside the error.
func printSigned(c *cli.CLI, res *ceremony.Signed, err error) error {
	if res == nil {
		return err
	}
	write := func(w io.Writer) {
		for i, k := range res.Keys {
			fmt.Fprintf(w, "Signed by %s: %s\n", words.Printable(k.Name), res.Files[i])
		}
	}
	if err != nil {
		write(c.Std.Err)
		return err
	}
	return c.Print("shoal.signed/v1", res, write)
}

func newTrustAssembleCmd(c *cli.CLI) *cobra.Command {
	var from []string
	var out string
	cmd := &cobra.Command{
		Use:   "assemble DRAFT SIGNATURE...",
		Short: "Put the signatures under a root, and say who is missing",
		Example: `  shoal trust assemble root-1.json root-1.json.alice@acme.sig root-1.json.bob@acme.sig > root-1.env.json
  shoal trust assemble root-2.json *.sig --from root-1.env.json --out root-2.env.json`,
		Long: `A SIGNATURE is a file that shoal trust sign or ssh-keygen -Y sign wrote, or an envelope with some.
A root that follows another needs the keys of both: --from names the one before; without it the
configured repository's is taken.

While signatures are missing the envelope is written all the same, so that more can be added to
it, and the exit status is 2.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := rootBefore(cmd.Context(), c, args[0], from, false)
			if err != nil {
				return err
			}
			defer fleet.Close()
			res, err := ceremony.AssembleRoot(fleet, args[0], args[1:])
			if res == nil {
				return err
			}
			c.WarnAll(res.Warnings)
			if perr := c.PrintDocument("shoal.envelope/v1", res, res.Envelope, out, func(w io.Writer) {
				if err == nil {
					writeSigners(w, res.Signers)
				}
			}); perr != nil {
				return perr
			}
			return err
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "the root `FILE` before this one")
	cmd.Flags().StringVar(&out, "out", "", "write the envelope to `FILE` instead of standard output")
	return cmd
}

func newTrustCheckCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Look for what is wrong or risky in a root",
		Example: `  shoal trust check root-2.json
  shoal trust check root-1.env.json -o json`,
		Long: `An error is a root that must not be: a key in the root role or a beacon role that has another
power too, a threshold above the number of keys, a date that has passed, missing signatures.
A warning is one that may be meant, or a date that comes closer: 90, 30 and 7 days before.

Without FILE it is the newest root of the configured repository.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := rootFile(c, args)
			if err != nil {
				return err
			}
			info, err := ceremony.CheckFile(file, now())
			if err != nil {
				return err
			}
			c.WarnAll(info.Warnings)
			return c.Print("shoal.root/v1", info, func(w io.Writer) {
				fmt.Fprintf(w, "root %d of %s: no error, %d warning(s), %d days left\n", info.Version, info.Fleet, len(info.Warnings), info.DaysLeft)
			})
		},
	}
}

func newTrustShowCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show a root: the fleet id, its keys and roles, how long it is believed",
		Example: `  shoal trust show
  shoal trust show root-1.env.json -o json`,
		Long: "Without FILE it is the newest root of the configured repository.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := rootFile(c, args)
			if err != nil {
				return err
			}
			d, err := ceremony.ReadRoot(file)
			if err != nil {
				return err
			}
			info, err := ceremony.Describe(d, now())
			if err != nil {
				return err
			}
			return c.Print("shoal.root/v1", info, func(w io.Writer) { writeRoot(w, info) })
		},
	}
}

// rootFile is the file that was named, or the configured repository's newest root.
func rootFile(c *cli.CLI, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	p, err := publishing.Open(c)
	if err != nil {
		return "", err
	}
	return p.NewestRoot()
}

func writeRoot(w io.Writer, r *ceremony.RootInfo) {
	fmt.Fprintf(w, "Fleet id   %s   (what machines pin)\n", r.FleetID)
	fmt.Fprintf(w, "Root       %d of %q\n", r.Version, r.Fleet)
	fmt.Fprintf(w, "Issued     %s\n", r.Issued.Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(w, "Expires    %s, %d days left\n", r.Expires.Format("2006-01-02 15:04 UTC"), r.DaysLeft)
	if r.Reason != "" {
		fmt.Fprintf(w, "Reason     %s\n", words.Printable(r.Reason))
	}
	switch {
	case len(r.Signers) == 0:
		fmt.Fprintln(w, "Signed     no: a draft")
	case !r.Signed:
		fmt.Fprintln(w, "Signed     NOT BY ENOUGH of its own keys")
	}
	writeRole(w, "root", r.Root)
	for _, ch := range r.Channels {
		fmt.Fprintf(w, "\n%s   epoch %d, a release is believed for at most %s\n", ch.Channel, ch.Epoch, ch.MaxValidity)
		writeRole(w, "release", ch.Release)
		if ch.Beacon != nil {
			writeRole(w, "beacon, fresh for "+ch.StaleAfter, *ch.Beacon)
		}
	}
}

func writeRole(w io.Writer, name string, r ceremony.RoleInfo) {
	fmt.Fprintf(w, "%s: %d of %d must sign\n", name, r.Threshold, len(r.Keys))
	for _, k := range r.Keys {
		fmt.Fprintf(w, "  %s\n", words.Printable(k.String()))
	}
}
