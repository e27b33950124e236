package fleetcmd

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
)

func newLoginCmd(c *cli.CLI) *cobra.Command {
	var viewer bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Print a link to the fleet page that logs in once",
		Example: `  shoal fleet login
  shoal fleet login --viewer`,
		Long: `The link is good for one login on this machine, for 15 minutes; whoever opens it is an operator until they
log out, twelve hours at most. It takes a running serve, and the user that runs as. For other machines, and for
programs, there are tokens: ui.tokens_file in publisher.yaml.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := publishing.Open(c)
			if err != nil {
				return err
			}
			l, err := p.Login(cmd.Context(), viewer)
			if err != nil {
				return err
			}
			return c.Print("shoal.login/v1", l, func(w io.Writer) {
				fmt.Fprintf(w, "%s\nGood for one login, as %s, until %s\n", l.URL, l.Role, l.Until.Format(time.RFC3339))
			})
		},
	}
	cmd.Flags().BoolVar(&viewer, "viewer", false, "only to look")
	return cmd
}
