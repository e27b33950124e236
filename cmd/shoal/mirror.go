package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/publisher/mirror"
	"shoal/publisher/repo"
)

func newMirrorCmd(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Put what is published where any web server serves it",
		Example: `  shoal mirror push /srv/mirror
  shoal mirror push /mnt/stick --prune`,
	}
	cmd.AddCommand(newMirrorPushCmd(c))
	return cmd
}

func newMirrorPushCmd(c *cli) *cobra.Command {
	var o mirror.Options
	cmd := &cobra.Command{
		Use:   "push DIR",
		Short: "Bring a mirror up to what the repository offers",
		Example: `  shoal mirror push /srv/mirror
  shoal mirror push /srv/mirror --prune -o json`,
		Long: `What the channels offer now is copied, documents and payloads, as static files: with a web server in
front of DIR it is a complete source, for machines (sources.mirrors) and for stock BitTorrent clients. A
manifest comes after all that it names, and every file at once, so readers need not be stopped. Pushing
again changes nothing.

A mirror that holds something newer, or something else under the same number, is refused: the repository
may have been put back from a backup. A mirror needs no trust, and keeps no secret: whoever reaches its
web server can read every release, although a fleet may have a key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.publisherConfig()
			if err != nil {
				return err
			}
			r, err := repo.Open(cfg.Store)
			if err != nil {
				return err
			}
			to, err := place(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := c.withTimeout(cmd.Context(), 0)
			defer cancel()
			report, err := mirror.Push(ctx, r, to, o)
			if err != nil {
				return err
			}
			for _, note := range report.Notes {
				c.warn("%s", note)
			}
			if cfg.FleetKeyFile != "" {
				c.warn("this mirror is as private as its web server: who reaches it can read every release, although the fleet has a key")
			}
			return c.print("shoal.mirror/v1", report, func(w io.Writer) { writeMirror(w, report) })
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&o.Prune, "prune", false, "remove what no channel offers any more; machines may still be fetching it")
	fl.BoolVar(&o.Verify, "verify", false, "read the payloads that are there too, and replace what is not as signed")
	return cmd
}

// place is the mirror that a person names.
func place(name string) (mirror.Place, error) {
	if strings.Contains(name, "://") {
		return nil, usagef("%q is not a directory", name).Do("shoal mirror push DIR, of a directory that a web server serves")
	}
	return mirror.Dir(name), nil
}

func writeMirror(w io.Writer, r *mirror.Report) {
	for _, ch := range r.Channels {
		word := "as before"
		if ch.Changed {
			word = "new there"
		}
		fmt.Fprintf(w, "%s %s (%d.%d) %s\n", ch.Channel, ch.Version, ch.Epoch, ch.Sequence, word)
	}
	if len(r.Channels) == 0 {
		fmt.Fprintln(w, "nothing is published yet")
	}
	fmt.Fprintf(w, "%s: %d files written (%s), %d there already", printable(r.Mirror), r.Written, humanize.IBytes(uint64(r.Bytes)), r.Kept)
	if r.Removed > 0 {
		fmt.Fprintf(w, ", %d removed", r.Removed)
	}
	fmt.Fprintf(w, "\nMachines ask it when it is in their sources.mirrors: [ URL ]; publish compares with it when it is in mirrors: [ %s ]\n", printable(r.Mirror))
}
