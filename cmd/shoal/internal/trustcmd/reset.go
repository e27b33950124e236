package trustcmd

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/internal/fault"
	"shoal/manifest"
)

func newTrustResetCmd(c *cli.CLI) *cobra.Command {
	var root, sum string
	cmd := &cobra.Command{
		Use:   "reset --root FILE --sha256 HEX",
		Short: "Make this machine trust another fleet, after root keys were stolen",
		Example: `  sudo shoal trust reset --root root-1.env.json --sha256 5b1c0a... --yes
  sudo shoal trust reset --root /srv/config/root-1.env.json --sha256 sha256:5b1c0a...`,
		Long: `Whoever has a threshold of root keys can sign any root, and no document can take that back. Then a
new fleet is made, and its first root and its fleet id are brought to each machine by another way,
such as configuration management. Everything trusted is replaced; the programs, what was recorded
about them and the agent's key stay. Stop a running agent first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := cli.Digest("sha256", sum)
			if err != nil {
				return err
			}
			env, err := readRootFile(root)
			if err != nil {
				return err
			}
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			ok, err := c.Confirm(fmt.Sprintf("Trust the fleet %s from now on, and nothing of the one before?", id.Prefixed()))
			if err != nil {
				return err
			}
			if !ok {
				return fault.New(fault.Interrupted, "nothing was changed: the answer was no")
			}
			done, err := agent.Reset(cmd.Context(), cfg, env, id)
			if err != nil {
				return err
			}
			return c.Print("shoal.trust_reset/v1", done, func(w io.Writer) {
				if done.Already {
					fmt.Fprintf(w, "This machine trusts %s already; nothing was changed.\n", done.Fleet)
					return
				}
				fmt.Fprintf(w, "This machine trusts %s now.\nBefore: %s\nNext: start the agent, or shoal agent check\n", done.Fleet, done.Before)
			})
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "`FILE` with the new fleet's first root")
	cmd.Flags().StringVar(&sum, "sha256", "", "the new fleet's id, from elsewhere than the file: `HEX`")
	return cli.Required(cmd, "root", "sha256")
}

func readRootFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "reading the root: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxRoot+1))
	if err != nil {
		return nil, fault.New(fault.IO, "reading the root: %w", err)
	}
	return b, nil // one byte too many is what makes it too large
}
