package deliverycmd

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/publisher"
)

// linkInfo is a join link as it is printed.
type linkInfo struct {
	Link        string           `json:"link"`
	Repo        manifest.FleetID `json:"repo"`
	Channel     manifest.Channel `json:"channel"`
	MinRoot     int64            `json:"min_root,omitempty"`
	MinSequence string           `json:"min_sequence,omitempty"` // "epoch.sequence"
	At          []string         `json:"at"`
	Announce    []string         `json:"announce"`
	Peers       []string         `json:"peers"`
}

// Link is shoal link.
func Link(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Make and read the links by which machines join",
		Example: `  shoal link create --channel stable
  shoal link show 'shoal:join?repo=...'`,
	}
	cmd.AddCommand(newLinkCreateCmd(c), newLinkShowCmd(c))
	return cmd
}

func newLinkCreateCmd(c *cli.CLI) *cobra.Command {
	var req publisher.LinkRequest
	var channel string
	cmd := &cobra.Command{
		Use:   "create [CHANNEL]",
		Short: "Make the link by which a machine joins a channel",
		Example: `  shoal link create --channel stable
  shoal link create stable --at https://updates.acme.lan:7800`,
		Long: `The link is not secret. It pins this fleet, and names its root and its newest release, so that a
newcomer cannot be led into another fleet or given an older past.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if channel != "" && channel != args[0] {
					return cli.Usagef("two channels: %q and %q", channel, args[0])
				}
				channel = args[0]
			}
			if req.Channel, err = p.Channel(channel); err != nil {
				return err
			}
			l, err := p.Link(req)
			if err != nil {
				return err
			}
			if l.MinSequence.Sequence == 0 {
				c.Say("%s has no release yet, so the link names none: make it again after the first one", l.Channel)
			}
			if cfg.FleetKeyFile != "" {
				c.Say("The link is not secret. The fleet key travels apart: %s goes to each machine (agent join --fleet-key)", cfg.FleetKeyFile)
			}
			info := linkInfoOf(l)
			return c.Print("shoal.link/v1", info, func(w io.Writer) { fmt.Fprintln(w, info.Link) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&channel, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	f.StringSliceVar(&req.At, "at", nil, "base `URL` of a serve or a mirror, instead of the configured one; may be given again")
	f.StringSliceVar(&req.Trackers, "tracker", nil, "announce `URL` of another tracker")
	f.StringSliceVar(&req.Peers, "peer", nil, "`HOST:PORT` of a peer that is always there; may be given again")
	return cmd
}

func newLinkShowCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "show LINK",
		Short: "Say what a join link means, without a network",
		Example: `  shoal link show 'shoal:join?repo=...'
  shoal link show 'shoal:join?repo=...' -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := link.Parse(args[0])
			if err != nil {
				return err
			}
			info := linkInfoOf(l)
			return c.Print("shoal.link/v1", info, func(w io.Writer) { writeLink(w, info) })
		},
	}
}

func linkInfoOf(l *link.Link) linkInfo {
	info := linkInfo{
		Link: l.String(), Repo: manifest.FleetID(l.Repo), Channel: l.Channel, MinRoot: l.MinRoot,
		At: append([]string{}, l.At...), Announce: append([]string{}, l.AnnounceURLs()...), Peers: append([]string{}, l.Peers...),
	}
	if l.MinSequence.Sequence > 0 {
		info.MinSequence = l.MinSequence.String()
	}
	return info
}

func writeLink(w io.Writer, info linkInfo) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintf(tw, "Fleet\t%s\nChannel\t%s\n", info.Repo, info.Channel)
	if info.MinRoot > 0 {
		fmt.Fprintf(tw, "Root\tversion %d or newer\n", info.MinRoot)
	}
	if info.MinSequence != "" {
		fmt.Fprintf(tw, "Release\tsequence %s or newer\n", info.MinSequence)
	}
	for _, at := range info.At {
		fmt.Fprintf(tw, "At\t%s\n", at)
	}
	for _, tr := range info.Announce {
		fmt.Fprintf(tw, "Tracker\t%s\n", tr)
	}
	for _, peer := range info.Peers {
		fmt.Fprintf(tw, "Peer\t%s\n", peer)
	}
}
