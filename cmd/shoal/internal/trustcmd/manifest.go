package trustcmd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher"
	"shoal/publisher/ceremony"
	"shoal/publisher/ceremony/diff"
	"shoal/publisher/ceremony/schema"
)

// Manifest is shoal manifest.
func Manifest(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "Draft, review and sign releases on machines apart",
		Example: `  shoal manifest draft --channel stable --version 1.8.3 dist/acme-linux-amd64 > m43.json
  shoal manifest sign m43.json --key agent:bob.pub`,
		Long: `A manifest is the signed statement of what a channel offers. It is drafted once, reviewed, and
signed byte for byte by as many people as root asks for; then shoal publish --envelope publishes it.`,
	}
	cmd.AddCommand(newManifestDraftCmd(c), newManifestDiffCmd(c), newManifestSignCmd(c), newManifestAttachCmd(c),
		newManifestVerifyCmd(c), newManifestShowCmd(c), newManifestSchemaCmd(c))
	return cmd
}

func newManifestDraftCmd(c *cli.CLI) *cobra.Command {
	var f publishing.ReleaseFlags
	var out string
	cmd := &cobra.Command{
		Use:   "draft --version V FILE...",
		Short: "Draft a release for review and signing elsewhere",
		Example: `  shoal manifest draft --channel stable --version 1.8.3 dist/acme-linux-amd64 > m43.json
  shoal manifest draft --version 1.8.3 --platform linux/amd64=./acme --out m43.json`,
		Long: `The draft goes to standard output, or to --out; what it changes is said beside it. Nothing is
signed and nothing is published. The flags are those of shoal publish.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			req, err := f.Request(p, args)
			if err != nil {
				return err
			}
			if err := publishing.ConfirmJump(c, req); err != nil {
				return err
			}
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			payload, res, err := p.Draft(ctx, req)
			if err != nil {
				return publishing.NextWithConfig(c, err)
			}
			c.WarnAll(res.Warnings)
			fleet, err := publishing.Source(cfg, nil).Open(ctx, false)
			if err != nil {
				return err
			}
			next, err := manifest.ReadManifestDraft(payload)
			if err != nil {
				return err
			}
			changes := diff.Manifests(fleet.Last(req.Channel), next)
			result := struct {
				*publisher.PublishResult
				Changes []diff.Change `json:"changes"`
			}{res, changes}
			return c.PrintDocument("shoal.manifest_draft/v1", result, payload, out, func(w io.Writer) { writeChanges(w, changes) })
		},
	}
	f.Register(cmd)
	cmd.Flags().StringVar(&out, "out", "", "write the draft to `FILE` instead of standard output")
	return cli.Required(cmd, "version")
}

func newManifestDiffCmd(c *cli.CLI) *cobra.Command {
	var src sourceFlags
	cmd := &cobra.Command{
		Use:   "diff [OLD] NEW",
		Short: "Say in plain words what a release changes for the fleet",
		Example: `  shoal manifest diff m42.env.json m43.json
  shoal manifest diff m43.json`,
		Long: `OLD and NEW are drafts or envelopes; nobody's signature is checked. Without OLD it is what the
channel released last. What a signer should ask about before signing is marked with "!": a block
that vanishes, a version or number that goes back, a platform left out. Roots are compared too.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := changesOf(c, cmd, &src, args)
			if err != nil {
				return err
			}
			return c.Print("shoal.diff/v1", struct {
				Changes []diff.Change `json:"changes"`
			}{changes}, func(w io.Writer) { writeChanges(w, changes) })
		},
	}
	src.register(cmd, true)
	return cmd
}

func changesOf(c *cli.CLI, cmd *cobra.Command, src *sourceFlags, args []string) ([]diff.Change, error) {
	if len(args) == 2 {
		return ceremony.DiffFiles(args[0], args[1])
	}
	d, err := ceremony.ReadManifest(args[0])
	if err != nil {
		return nil, err
	}
	s, err := ceremonySource(c, src)
	if err != nil {
		return nil, err
	}
	fleet, err := s.Open(cmd.Context(), false)
	if err != nil {
		return nil, err
	}
	return diff.Manifests(fleet.Last(d.Manifest.Name()), d.Manifest), nil
}

func newManifestSignCmd(c *cli.CLI) *cobra.Command {
	var src sourceFlags
	var req ceremony.SignRequest
	var refs []string
	cmd := &cobra.Command{
		Use:   "sign FILE --key REF",
		Short: "Show what a release changes, ask, and sign it",
		Example: `  shoal manifest sign m43.json --key agent:bob.pub
  shoal manifest sign m43.json --key file:alice --root root-1.env.json --previous m42.env.json`,
		Long: `The signature is written beside FILE, as FILE.NAME.sig, where NAME is the key's comment; FILE
itself is not changed. ssh-keygen -Y sign -n shoal.manifest.v1 -f KEY FILE does the same, and
asks nothing.

Refused are a number that is not the next one, a lower version, content that is blocked or known
as something else, a key that may not sign the channel, a root out of date. What the channel
released last is read from the configured repository, which is compared with its mirrors; from a
copy of its tree; or, on a machine without a network, from files.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			s, err := ceremonySource(c, &src)
			if err != nil {
				return err
			}
			fleet, err := s.Open(ctx, true)
			if err != nil {
				return err
			}
			defer fleet.Close()
			whole := signRequest(c, args[0], refs, nil)
			whole.Sequence, whole.AllowVersionRegress, whole.AllowElsewhere = req.Sequence, req.AllowVersionRegress, req.AllowElsewhere
			res, err := fleet.SignManifest(ctx, whole)
			return printSigned(c, res, err)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&refs, "key", nil, "sign with this key: `REF`; may be given again")
	fl.Int64Var(&req.Sequence, "sequence", 0, "the draft jumps to this sequence `N` on purpose")
	fl.BoolVar(&req.AllowVersionRegress, "allow-version-regress", false, "let the version be older than the last one")
	fl.BoolVar(&req.AllowElsewhere, "allow-elsewhere", false, "let it offer content that another channel has under another version")
	src.register(cmd, true)
	c.PassphraseFlag(cmd)
	return cli.Required(cmd, "key")
}

func newManifestAttachCmd(c *cli.CLI) *cobra.Command {
	var src sourceFlags
	var out string
	cmd := &cobra.Command{
		Use:   "attach FILE SIGNATURE...",
		Short: "Put signatures under a draft",
		Example: `  shoal manifest attach m43.json m43.json.alice@acme.sig m43.json.sig > m43.env.json
  shoal manifest attach m43.env.json m43.json.bob@acme.sig --out m43.env.json`,
		Long: `FILE is a draft, or an envelope to which more are added. A SIGNATURE is a file that shoal
manifest sign or ssh-keygen -Y sign wrote, or another envelope of the same draft. The envelope goes
to standard output, or to --out. Who is still missing is said where the fleet's root is at hand.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := ceremonySource(c, &src)
			if err != nil {
				return err
			}
			fleet, err := s.Open(cmd.Context(), false)
			if errors.Is(err, fault.NotFound) && s.Store != "" {
				fleet, err = nil, nil // no repository here
			}
			if err != nil {
				return err
			}
			res, err := ceremony.Attach(fleet, args[0], args[1:])
			if err != nil {
				return err
			}
			c.WarnAll(res.Warnings)
			return c.PrintDocument("shoal.envelope/v1", res, res.Envelope, out, func(w io.Writer) { writeSigners(w, res.Signers) })
		},
	}
	src.register(cmd, false)
	cmd.Flags().StringVar(&out, "out", "", "write the envelope to `FILE` instead of standard output")
	return cmd
}

func newManifestVerifyCmd(c *cli.CLI) *cobra.Command {
	var src sourceFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Open a signed release as a machine would",
		Example: `  shoal manifest verify --root root-2.env.json m43.env.json
  shoal manifest verify m43.env.json -o json`,
		Long: `The roots are those of --root, of a copy of the tree, or of the configured repository. A root
that is named is taken at the word of who names it; --pin says which fleet it must be of.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := ceremonySource(c, &src)
			if err != nil {
				return err
			}
			fleet, err := s.Open(cmd.Context(), false)
			if err != nil {
				return err
			}
			res, err := fleet.VerifyManifest(args[0])
			if err != nil {
				return err
			}
			return c.Print("shoal.verified/v1", res, func(w io.Writer) {
				var names []string
				for _, k := range res.SignedBy {
					names = append(names, k.Name)
				}
				fmt.Fprintf(w, "Good: %s %s, number %d.%d, signed by %s\n", res.Channel, res.Version, res.Epoch, res.Sequence, words.Printable(strings.Join(names, ", ")))
				fmt.Fprintf(w, "Fleet    %s, root %d\nBelieved until %s\n", res.FleetID, res.Root, res.Expires.Format("2006-01-02 15:04 UTC"))
			})
		},
	}
	src.register(cmd, false)
	return cmd
}

func newManifestShowCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a draft or an envelope says, unverified",
		Example: `  shoal manifest show m43.json
  shoal manifest show m43.env.json -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := ceremony.ReadManifest(args[0])
			if err != nil {
				return err
			}
			info := ceremony.DescribeManifest(d)
			return c.Print("shoal.manifest/v1", info, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s, number %s\nfleet   %s\npayload sha256:%s\n", d.Manifest.Name(), d.Manifest.Release.Version, d.Manifest.Order(), d.Manifest.Repo.Prefixed(), d.Hash())
				writeChanges(w, diff.Manifests(nil, d.Manifest))
				for _, id := range info.KeyIDs {
					fmt.Fprintf(w, "  says it is signed by %s\n", words.Printable(string(id)))
				}
				fmt.Fprintln(w, "Nobody's signature was checked: shoal manifest verify FILE")
			})
		},
	}
}

func newManifestSchemaCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "schema [" + strings.Join(schema.Names(), "|") + "]",
		Short: "Print the JSON Schema of a document",
		Example: `  shoal manifest schema
  shoal manifest schema root > root.schema.json`,
		Long: `The schema says what members a document has and of what shape. What else must hold, such as
unique names or order, it cannot say. Without a name it is the manifest's.`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: schema.Names(),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "manifest"
			if len(args) == 1 {
				name = args[0]
			}
			text, err := schema.Document(name)
			if err != nil {
				return err
			}
			_, err = c.Data().Write(text)
			return err
		},
	}
}
