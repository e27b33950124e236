package trustcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/swarm/fleet"
)

func newKeysFleetCmd(c *cli.CLI) *cobra.Command {
	var fresh bool
	cmd := &cobra.Command{
		Use:   "fleet FILE",
		Short: "Say which fleet keys a file holds, or make a new one",
		Example: `  shoal keys fleet ~/.config/shoal/keys/fleet
  shoal keys fleet --new fleet-2`,
		Long: `A fleet key keeps strangers out of a fleet; it signs nothing. Its id says which one it is, and can be
told to anyone.

A file holds one key or, while it is replaced, two: the first is presented, both are accepted. Append
the new one on all machines, then swap the two on all, then remove the old one from all, and restart
shoal serve and the agents after each step.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := args[0]
			k, err := fleet.Generate()
			if err != nil {
				return err
			}
			if fresh {
				err = k.Write(path)
			} else {
				k, err = fleet.Read(path)
			}
			if err != nil {
				return cli.KeyError(path, err)
			}
			out := struct {
				File string   `json:"file"`
				IDs  []string `json:"ids"`
			}{path, k.IDs()}
			return c.Print("shoal.fleet-key/v1", out, func(w io.Writer) {
				what := "Fleet key"
				if fresh {
					what = "Created fleet key"
				}
				for i, id := range out.IDs {
					does := "presented and accepted"
					if i > 0 {
						does = "accepted"
					}
					fmt.Fprintf(w, "%s %s   (%s)\n", what, id, does)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&fresh, "new", false, "make a key, in a FILE that is not there yet")
	return cmd
}
