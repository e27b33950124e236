package deliverycmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/manifest"
	"shoal/publisher"
	"shoal/publisher/pack"
	"shoal/publisher/repo"
)

// Bundle is shoal bundle.
func Bundle(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Carry a release to machines without a network, as one file",
		Example: `  shoal bundle create stable --platform linux/amd64 --out /media/usb/
  shoal bundle verify /media/usb/acme-stable-43.shoalbundle --pin sha256:5b1c...`,
	}
	cmd.AddCommand(newBundleCreateCmd(c), newBundleInspectCmd(c), newBundleVerifyCmd(c))
	return cmd
}

func newBundleCreateCmd(c *cli.CLI) *cobra.Command {
	var (
		channel, out string
		platforms    []string
	)
	cmd := &cobra.Command{
		Use:   "create [CHANNEL]",
		Short: "Write what a channel offers into one file",
		Example: `  shoal bundle create stable --platform linux/amd64 --out /media/usb/
  shoal bundle create acme/stable --out acme.shoalbundle`,
		Long: `The file has every root, the channel's newest release and its payloads: all that a machine needs to
verify and install it. It is not secret, and needs no trust: whoever changes it is found out. There:
shoal agent import FILE, or, on a machine that has not joined, shoal agent join LINK --from FILE.

It gets its name when it is whole and was verified on the disk. Made again of the same release, it is
the same to the last byte.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if channel != "" && channel != args[0] {
					return cli.Usagef("one channel at a time: %s or %s", args[0], channel)
				}
				channel = args[0]
			}
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			req := pack.Request{Out: out, Now: time.Now()}
			if req.Channel, err = p.Channel(channel); err != nil {
				return err
			}
			for _, s := range platforms {
				platform, err := manifest.ParsePlatform(s)
				if err != nil {
					return cli.Usagef("--platform: %w", err)
				}
				req.Platforms = append(req.Platforms, platform)
			}
			r, err := repo.Open(cfg.Store)
			if err != nil {
				return err
			}
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			res, err := pack.Create(ctx, r, req)
			if err != nil {
				return err
			}
			return c.Print("shoal.bundle/v1", res, func(w io.Writer) {
				fmt.Fprintf(w, "%s  %s   valid until %s\n", res.File, humanize.IBytes(uint64(res.Bytes)), res.Channels[0].Expires.UTC().Format("2006-01-02"))
				fmt.Fprintf(w, "There: shoal agent import FILE     check it: shoal bundle verify FILE --pin %s\n", res.Fleet)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&channel, "channel", "", "the `CHANNEL`, or APP/CHANNEL")
	fl.StringArrayVar(&platforms, "platform", nil, "only the payloads for `OS/ARCH`; may be given again; by default all")
	fl.StringVar(&out, "out", "."+string(filepath.Separator), "the `FILE` to write, or a directory")
	return cmd
}

func newBundleInspectCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what is in a bundle",
		Example: `  shoal bundle inspect acme-stable-43.shoalbundle
  shoal bundle inspect acme-stable-43.shoalbundle -o json`,
		Long: "The documents are verified; the payloads are not read, and it may be out of date.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return examine(c, cmd, args[0], pack.Options{Now: time.Now()})
		},
	}
}

func newBundleVerifyCmd(c *cli.CLI) *cobra.Command {
	var pin string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Say whether machines would take a bundle",
		Example: `  shoal bundle verify acme-stable-43.shoalbundle --pin sha256:5b1c...
  shoal bundle verify /media/usb/acme-stable-43.shoalbundle -o json`,
		Long: `Every signature is checked, every byte of every payload, and that it is not out of date. Nothing is
asked of a network. --pin is the fleet id; without it the bundle is taken at its word about whose it is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := pack.Options{Contents: true, Now: time.Now()}
			if pin != "" {
				d, err := cli.Digest("pin", pin)
				if err != nil {
					return err
				}
				o.Pin = &d
			}
			return examine(c, cmd, args[0], o)
		},
	}
	cmd.Flags().StringVar(&pin, "pin", "", "fleet id: `SHA256`")
	return cmd
}

func examine(c *cli.CLI, cmd *cobra.Command, path string, o pack.Options) error {
	ctx, cancel := c.WithTimeout(cmd.Context(), 0)
	defer cancel()
	res, err := pack.Examine(ctx, path, o)
	if err != nil {
		return err
	}
	if o.Contents && !res.Pinned {
		c.Warn("the bundle says itself that it is of the fleet %s: compare, or name it with --pin", res.Fleet)
	}
	return c.Print("shoal.bundle/v1", res, func(w io.Writer) { writeBundle(w, res, time.Now()) })
}

func writeBundle(w io.Writer, r *pack.Report, now time.Time) {
	word := ""
	if !r.Pinned {
		word = ", as it says itself"
	}
	fmt.Fprintf(w, "%s  %s\nfleet %s (%s)%s, roots up to %d\n", r.File, humanize.IBytes(uint64(r.Bytes)), r.Fleet, words.Printable(r.Name), word, r.Root)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, ch := range r.Channels {
		fmt.Fprintf(tw, "%s %s (%d.%d), signed by %s, %s\n", ch.Channel, ch.Version, ch.Epoch, ch.Sequence,
			words.Printable(strings.Join(ch.SignedBy, " and ")), words.Left(ch.Expires, now))
		for _, a := range ch.Artifacts {
			here := "in the bundle"
			if !a.Here {
				here = "not in the bundle"
			}
			fmt.Fprintf(tw, "  %s\t%s\tsha256 %s\t%s\n", a.Platform, humanize.IBytes(uint64(a.Length)), a.SHA256, here)
		}
	}
	tw.Flush()
	if r.Verified {
		fmt.Fprintln(w, "Verified: every signature, and every byte of every payload.")
	}
}
