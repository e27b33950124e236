package lookcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
)

// Version is shoal version.
func Version(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show which build this is and what it speaks",
		Example: `  shoal version
  shoal version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := cli.BuildInfo()
			return c.Print("shoal.version/v1", b, func(w io.Writer) {
				fmt.Fprintf(w, "shoal     %s\n", b.Version)
				if b.Commit != "" {
					suffix := ""
					if b.Modified {
						suffix = " with changes"
					}
					fmt.Fprintf(w, "commit    %s%s, %s\n", b.Commit, suffix, b.Date)
				}
				fmt.Fprintf(w, "go        %s, %s\n", b.Go, b.Platform)
				fmt.Fprintf(w, "speaks    protocol %d, %s\n", b.Protocol, b.Manifest)
			})
		},
	}
}
