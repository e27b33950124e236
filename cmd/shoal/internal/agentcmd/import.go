package agentcmd

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
)

func newImportCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "import BUNDLE",
		Short: "Install what a bundle brings, without a network",
		Example: `  sudo shoal agent import /media/usb/acme-stable-43.shoalbundle
  shoal agent import ./acme-stable-43.shoalbundle -o json`,
		Long: `What is in the bundle is verified as if it came over the network: the same keys, the same order, the
same expiry. The payload is kept and given to neighbours, and what the channel offers is installed as
by shoal agent update: windows, waves and holds count. A running agent does the work, and has to be able
to read the file.

A bundle that is older than what this machine trusts is refused, and importing one twice changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return cli.Usagef("%q: %w", args[0], err)
			}
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				lines := machine.NewProgress(c)
				updated, err := h.Import(ctx, path, lines.Show)
				if err != nil {
					return err
				}
				return tellUpdated(c, updated, true)
			})
		},
	}
}
