package fleetcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/publisher/fleet"
)

func newApproveCmd(c *cli.CLI) *cobra.Command {
	var pending bool
	cmd := &cobra.Command{
		Use:   "approve ID... | --pending",
		Short: "Let machines count: in gates, brakes and numbers",
		Example: `  shoal fleet approve SHA256:3kVxTnO8
  shoal fleet approve --pending --yes`,
		Long: `A machine is named by its id, the fingerprint of its key, or by eight or more letters of it: shoal agent status
shows it on the machine. A host will not do, since any machine can call itself so. Approved keys are kept in
agents.allow in the store, which can be edited.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if pending == (len(args) > 0) {
				return cli.Usagef("name machines, or --pending for all that wait")
			}
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				approved, err := f.Approve(cmd.Context(), args, pending)
				if err != nil {
					return err
				}
				return c.Print("shoal.approved/v1", approved, func(w io.Writer) {
					for _, a := range approved {
						fmt.Fprintf(w, "%s  %s  counts from now on\n", a.ID, words.OneLine(a.Report.Host))
					}
					if len(approved) == 0 {
						fmt.Fprintln(w, "already approved, or nobody waits")
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&pending, "pending", false, "all that report and are not approved")
	return cmd
}

func newForgetCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "forget ID|HOST...",
		Short: "Forget machines, and that they were approved",
		Example: `  shoal fleet forget pos-0113
  shoal fleet forget SHA256:3kVxTnO8 SHA256:9sQw2LmA`,
		Long: `A machine that reports again is there again, and waits to be approved. What has not reported for 90 days is
forgotten by itself.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				gone, err := f.Forget(cmd.Context(), args)
				if err != nil {
					return err
				}
				return c.Print("shoal.forgotten/v1", gone, func(w io.Writer) {
					for _, a := range gone {
						fmt.Fprintf(w, "%s  %s  is forgotten\n", a.ID, words.OneLine(a.Report.Host))
					}
				})
			})
		},
	}
}

func newLabelCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "label ID|HOST NAME=TEXT...",
		Short: "Note something about a machine; it decides nothing",
		Example: `  shoal fleet label pos-0113 room=server
  shoal fleet label pos-0113 room=`,
		Long: `A note is shown, and list -l finds it. Rings are a machine's own labels, in its configuration: no note
changes when it updates. Without a text the note goes.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			notes, err := parseLabels(args[1:])
			if err != nil {
				return err
			}
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				a, err := f.Label(cmd.Context(), args[0], notes)
				if err != nil {
					return err
				}
				return c.Print("shoal.agent/v1", a, func(w io.Writer) {
					fmt.Fprintf(w, "%s  %s", a.ID, words.OneLine(a.Report.Host))
					for _, n := range a.Notes {
						fmt.Fprintf(w, "  %s=%s", n.Name, words.OneLine(n.Value))
					}
					fmt.Fprintln(w)
				})
			})
		},
	}
}
