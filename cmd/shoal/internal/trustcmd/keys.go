package trustcmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/durable"
	"shoal/keys"
)

// keyInfo is a key as the keys commands print it.
type keyInfo struct {
	ID      keys.ID `json:"id"`
	Public  string  `json:"public"`
	Comment string  `json:"comment"`
	File    string  `json:"file,omitempty"`
}

func infoOf(pub keys.PublicKey, file string) keyInfo {
	return keyInfo{ID: pub.ID(), Public: pub.String(), Comment: pub.Comment(), File: file}
}

// Keys is shoal keys.
func Keys(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, show and protect keys",
		Example: `  shoal keys new --out release-2 --comment release-2@acme
  shoal keys show file:release-2`,
		Long: "Keys that sign are OpenSSH ed25519 keys: ssh-keygen and ssh-agent work with them as well.",
	}
	cmd.AddCommand(newKeysNewCmd(c), newKeysListCmd(c), newKeysShowCmd(c), newKeysExportPubCmd(c), newKeysPasswdCmd(c), newKeysFleetCmd(c))
	return cmd
}

func newKeysNewCmd(c *cli.CLI) *cobra.Command {
	var out, comment string
	var plain bool
	cmd := &cobra.Command{
		Use:   "new --out FILE",
		Short: "Make a key: FILE is the private half, FILE.pub the public one",
		Example: `  shoal keys new --out root-1 --comment root-1@acme
  shoal keys new --out ci-nightly --no-passphrase`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if comment == "" {
				comment = filepath.Base(out)
			}
			signer, err := keys.Generate(comment)
			if err != nil {
				return cli.Usagef("%w", err)
			}
			var passphrase []byte
			if !plain {
				if passphrase, err = c.NewPassphrase(cmd.Context(), out); err != nil {
					return cli.OfferNoPassphrase(err)
				}
			}
			if err := keys.WritePrivate(out, signer, passphrase); err != nil {
				return cli.KeyError(out, err)
			}
			info := infoOf(signer.Public(), out)
			return c.Print("shoal.key/v1", info, func(w io.Writer) {
				fmt.Fprintf(w, "Created  %s and %s.pub\nKey id   %s\n", out, out, info.ID)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` of the private key; never overwritten")
	cmd.Flags().StringVar(&comment, "comment", "", "what the key is called; the file's name when not given")
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "leave the private key unprotected, for machines")
	c.PassphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file")
	return cli.Required(cmd, "out")
}

func newKeysListCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "list [DIR]",
		Short: "List the keys in a directory; the configured one when none is named",
		Example: `  shoal keys list
  shoal keys list ./keys -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Join(filepath.Dir(c.ConfigPath("publisher")), "keys")
			if len(args) == 1 {
				dir = args[0]
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				return cli.KeyError(dir, err)
			}
			list := []keyInfo{}
			for _, e := range entries {
				if filepath.Ext(e.Name()) != ".pub" {
					continue
				}
				path := filepath.Join(dir, e.Name())
				pub, err := keys.ReadPublic(path)
				if err != nil {
					c.Warn("%v", err)
					continue
				}
				list = append(list, infoOf(pub, path))
			}
			return c.Print("shoal.keys/v1", list, func(w io.Writer) {
				tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "KEY ID\tCOMMENT\tPUBLIC FILE\tPRIVATE HALF")
				for _, k := range list {
					private := "not here"
					if _, err := os.Stat(strings.TrimSuffix(k.File, ".pub")); err == nil {
						private = "here"
					}
					fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", k.ID, k.Comment, k.File, private)
				}
				tw.Flush()
			})
		},
	}
}

func newKeysShowCmd(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show REF",
		Short: "Show which key a reference or a public key file names",
		Example: `  shoal keys show release-1.pub
  shoal keys show agent:release-1.pub -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pub, err := publicKey(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			info := infoOf(pub, "")
			return c.Print("shoal.key/v1", info, func(w io.Writer) {
				fmt.Fprintf(w, "Key id   %s\nComment  %s\nPublic   %s\n", info.ID, info.Comment, info.Public)
			})
		},
	}
	c.PassphraseFlag(cmd)
	return cmd
}

func newKeysExportPubCmd(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export-pub REF",
		Short: "Print the public line of a key, as authorized_keys has it",
		Example: `  shoal keys export-pub file:release-1 > release-1.pub
  shoal keys export-pub agent:SHA256:9bQ...`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pub, err := publicKey(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return c.Print("shoal.key/v1", infoOf(pub, ""), func(w io.Writer) { fmt.Fprintln(w, pub) })
		},
	}
	c.PassphraseFlag(cmd)
	return cmd
}

func newKeysPasswdCmd(c *cli.CLI) *cobra.Command {
	var next string
	var plain bool
	cmd := &cobra.Command{
		Use:   "passwd FILE",
		Short: "Change the passphrase of a private key file",
		Example: `  shoal keys passwd release-1
  shoal keys passwd release-1 --passphrase-file old --new-passphrase-file new`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			signer, err := keys.Open(cmd.Context(), "file:"+path, c.Passphrase)
			if err != nil {
				return cli.KeyError(path, err)
			}
			var passphrase []byte
			switch {
			case plain:
			case next != "":
				if passphrase, err = c.ReadPassphraseFile(next); err != nil {
					return err
				}
			default:
				// --passphrase-file is the old one here; the new one is asked for.
				if passphrase, err = c.AskNewPassphrase(cmd.Context(), path); err != nil {
					return cli.OfferNoPassphrase(err)
				}
			}
			if err := replacePrivate(path, signer, passphrase); err != nil {
				return cli.KeyError(path, err)
			}
			state := "protected by the new passphrase"
			if len(passphrase) == 0 {
				state = "not protected by a passphrase"
			}
			info := infoOf(signer.Public(), path)
			return c.Print("shoal.key/v1", info, func(w io.Writer) { fmt.Fprintf(w, "%s is %s\n", path, state) })
		},
	}
	c.PassphraseFlag(cmd)
	cmd.Flags().StringVar(&next, "new-passphrase-file", "", "`FILE` with the new passphrase, instead of asking")
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "leave the private key unprotected")
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "new-passphrase-file")
	return cmd
}

// replacePrivate writes the key anew beside path and renames it there, so that at
// every instant one whole key file is there.
func replacePrivate(path string, signer keys.Signer, passphrase []byte) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".shoal-key-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "key")
	if err := keys.WritePrivate(fresh, signer, passphrase); err != nil {
		return err
	}
	return durable.Rename(fresh, path)
}

// publicKey finds the public half of what ref names, without opening a private key
// where a public file will do.
func publicKey(ctx context.Context, c *cli.CLI, ref string) (keys.PublicKey, error) {
	if strings.HasSuffix(ref, ".pub") && !strings.Contains(ref, ":") {
		pub, err := keys.ReadPublic(ref)
		return pub, cli.KeyError(ref, err)
	}
	signer, err := keys.Open(ctx, ref, c.Passphrase)
	if err != nil {
		return keys.PublicKey{}, cli.KeyError(ref, err)
	}
	return signer.Public(), nil
}
