// Package releasecmd has the verbs that make releases and take them back: init, publish and
// release.
package releasecmd

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/manifest"
	"shoal/publisher"
)

// Release is shoal release.
func Release(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Look at what was released, and take a release back",
		Example: `  shoal release list
  shoal release show 2.4.1`,
	}
	cmd.AddCommand(newListCmd(c), newShowCmd(c), newYankCmd(c))
	return cmd
}

func newListCmd(c *cli.CLI) *cobra.Command {
	var channel string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the releases in the repository, newest first",
		Example: `  shoal release list
  shoal release list --channel stable -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := publishing.Open(c)
			if err != nil {
				return err
			}
			var channels []manifest.Channel
			if channel != "" {
				ch, err := p.Channel(channel)
				if err != nil {
					return err
				}
				channels = append(channels, ch)
			}
			list, err := p.Releases(channels...)
			if err != nil {
				return err
			}
			return c.Print("shoal.releases/v1", list, func(w io.Writer) { writeReleases(w, list) })
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "only `CHANNEL`")
	return cmd
}

func newShowCmd(c *cli.CLI) *cobra.Command {
	var channel string
	var recipe bool
	cmd := &cobra.Command{
		Use:   "show VERSION",
		Short: "Show one release: its files, who signed, until when it is believed",
		Example: `  shoal release show 2.4.1
  shoal release show 1.43 --channel stable -o json`,
		Long: "VERSION is the release's version, or its place in the channel as EPOCH.SEQUENCE.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := publishing.Open(c)
			if err != nil {
				return err
			}
			ch, err := p.Channel(channel)
			if err != nil {
				return err
			}
			if recipe {
				return verifyRecipe(cmd.Context(), c, ch, args[0])
			}
			info, err := p.Release(ch, args[0])
			if err != nil {
				return err
			}
			return c.Print("shoal.release/v1", info, func(w io.Writer) { writeRelease(w, info) })
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	cmd.Flags().BoolVar(&recipe, "verify-recipe", false, "print a script that checks it with jq, sha256sum and ssh-keygen alone")
	return cmd
}

func writeReleases(w io.Writer, list []publisher.ReleaseInfo) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Nothing was released yet.  Next: shoal publish --version V FILE...")
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintln(tw, "CHANNEL\tVERSION\tSEQUENCE\tISSUED\tEXPIRES\tSTATE\tPLATFORMS")
	for _, r := range list {
		var platforms []string
		for _, a := range r.Artifacts {
			platforms = append(platforms, a.Platform)
		}
		fmt.Fprintf(tw, "%s\t%s\t%d.%d\t%s\t%s\t%s\t%s\n", r.Channel, r.Version, r.Epoch, r.Sequence,
			r.Issued.Format("2006-01-02"), r.Expires.Format("2006-01-02"), r.State, strings.Join(platforms, ", "))
	}
}

func writeRelease(w io.Writer, r *publisher.ReleaseInfo) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "Release\t%s %s\n", r.Channel, r.Version)
	fmt.Fprintf(tw, "Sequence\t%d.%d, %s\n", r.Epoch, r.Sequence, r.State)
	fmt.Fprintf(tw, "Issued\t%s\n", r.Issued.Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(tw, "Expires\t%s\n", r.Expires.Format("2006-01-02 15:04 UTC"))
	if r.Severity != "" {
		fmt.Fprintf(tw, "Severity\t%s\n", r.Severity)
	}
	for _, s := range r.SignedBy {
		fmt.Fprintf(tw, "Signed by\t%s %s\n", s.Name, s.ID)
	}
	fmt.Fprintf(tw, "Manifest\t%s\n", r.Manifest)
	tw.Flush()
	for _, a := range r.Artifacts {
		fmt.Fprintf(w, "\n%s   %s\n  sha256   %s\n  infohash %s\n", a.Platform, words.Size(a.Length), a.SHA256, a.Infohash)
	}
	for _, b := range r.Blocked {
		fmt.Fprintf(w, "\nBlocks %s: %s\n", b.SHA256, b.Reason)
	}
	for _, a := range r.Attached {
		fmt.Fprintf(w, "\nAttached %s, %s\n  sha256   %s\n", a.Name, words.Size(a.Length), a.SHA256)
	}
	if r.Notes != "" {
		fmt.Fprintf(w, "\n%s\n", words.Printable(r.Notes))
	}
}
