package trustcmd

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher"
	"shoal/publisher/ceremony"
)

// Channel is shoal channel.
func Channel(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "channel",
		Short: "Look at channels, renew what they offer, draft what root says of them",
		Example: `  shoal channel list
  shoal channel refresh acme/stable --expires 90d`,
	}
	cmd.AddCommand(newChannelListCmd(c), newChannelShowCmd(c), newChannelCreateCmd(c), newChannelSetCmd(c), newChannelRefreshCmd(c))
	return cmd
}

func newChannelListCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the channels, what they offer and for how long",
		Example: `  shoal channel list
  shoal channel list -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := publishing.Fleet(cmd.Context(), c)
			if err != nil {
				return err
			}
			list := fleet.Channels()
			return c.Print("shoal.channels/v1", list, func(w io.Writer) {
				tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				defer tw.Flush()
				fmt.Fprintln(tw, "CHANNEL\tEPOCH\tRELEASE KEYS\tVALID FOR\tOFFERS\tSEQUENCE\tDAYS LEFT\tSTATE")
				for _, ch := range list {
					fmt.Fprintf(tw, "%s\t%d\t%d of %d\t%s\t", ch.Channel, ch.Epoch, ch.Release.Threshold, len(ch.Release.Keys), ch.MaxValidity)
					if ch.Last == nil {
						fmt.Fprintln(tw, "nothing\t\t\t")
						continue
					}
					fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", ch.Last.Version, ch.Last.Sequence, ch.Last.DaysLeft, ch.Last.State)
				}
			})
		},
	}
}

func newChannelShowCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "show CHANNEL",
		Short: "Show a channel: who may sign, what it offers and for how long",
		Example: `  shoal channel show stable
  shoal channel show acme/stable -o json`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := publishing.Open(c)
			if err != nil {
				return err
			}
			name, err := p.Channel(args[0])
			if err != nil {
				return err
			}
			fleet, err := publishing.Fleet(cmd.Context(), c)
			if err != nil {
				return err
			}
			ch, err := fleet.Channel(name)
			if err != nil {
				return err
			}
			return c.Print("shoal.channel/v1", ch, func(w io.Writer) { writeChannel(w, ch) })
		},
	}
}

func writeChannel(w io.Writer, ch *ceremony.ChannelStatus) {
	fmt.Fprintf(w, "%s   epoch %d, a release is believed for at most %s\n", ch.Channel, ch.Epoch, ch.MaxValidity)
	writeRole(w, "release", ch.Release)
	if ch.Beacon != nil {
		writeRole(w, "beacon, fresh for "+ch.StaleAfter, *ch.Beacon)
	}
	switch l := ch.Last; {
	case l == nil:
		fmt.Fprintln(w, "offers nothing in this epoch")
	case l.State == "unsigned":
		fmt.Fprintf(w, "offers nothing: %s, sequence %d, needs signatures by the keys of today\n", l.Version, l.Sequence)
	case l.State == "expired":
		fmt.Fprintf(w, "offers %s, sequence %d, OUT OF DATE since %s\n", l.Version, l.Sequence, l.Expires.Format("2006-01-02 15:04 UTC"))
	default:
		fmt.Fprintf(w, "offers %s, sequence %d, until %s, %d days left\n", l.Version, l.Sequence, l.Expires.Format("2006-01-02 15:04 UTC"), l.DaysLeft)
	}
	if ch.Problem != "" {
		fmt.Fprintf(w, "problem: %s\n", words.Printable(ch.Problem))
	}
}

// channelDraftFlags say what root is to say of a channel.
type channelDraftFlags struct {
	release, beacon, reason, out string
	max, stale, expires          units.Duration
}

func (f *channelDraftFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.release, "release", "", "the release keys and how many must sign: `T:KEY,KEY`")
	fl.Var(&f.max, "max-validity", "the longest a release is believed (90d in a new channel)")
	fl.StringVar(&f.beacon, "beacon", "", "the beacon's `KEY`")
	fl.Var(&f.stale, "stale-after", "how long a beacon is fresh")
	fl.Var(&f.expires, "expires", "how long the root is believed (as the one before)")
	fl.StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	fl.StringVar(&f.out, "out", "", "write the draft to `FILE` instead of standard output")
}

func newChannelCreateCmd(c *cli.CLI) *cobra.Command {
	var f channelDraftFlags
	cmd := &cobra.Command{
		Use:   "create APP/CHANNEL --release T:KEY,KEY",
		Short: "Draft the root that has a new channel",
		Example: `  shoal channel create acme/nightly --release 1:ci.pub --max-validity 7d > root-2.json
  shoal channel create acme/beta --release 2:alice.pub,bob.pub --out root-2.json`,
		Long: "The draft is a root: the root keys sign it, and shoal publish --envelope publishes it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return draftChannel(cmd.Context(), c, &f, args[0], true)
		},
	}
	f.register(cmd)
	return cli.Required(cmd, "release")
}

func newChannelSetCmd(c *cli.CLI) *cobra.Command {
	var f channelDraftFlags
	cmd := &cobra.Command{
		Use:   "set CHANNEL",
		Short: "Draft the root that changes what holds for a channel",
		Example: `  shoal channel set stable --max-validity 30d > root-2.json
  shoal channel set acme/stable --release 2:alice.pub,bob.pub,carol.pub --reason "carol joins" --out root-2.json`,
		Long: `What is left out stays as it was. The draft is a root: the root keys sign it, and shoal publish
--envelope publishes it.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return draftChannel(cmd.Context(), c, &f, args[0], false)
		},
	}
	f.register(cmd)
	return cmd
}

func draftChannel(ctx context.Context, c *cli.CLI, f *channelDraftFlags, name string, create bool) error {
	cfg, err := publishing.Config(c)
	if err != nil {
		return err
	}
	p, err := publisher.Open(cfg)
	if err != nil {
		return err
	}
	fleet, err := publishing.Source(cfg, nil).Open(ctx, false)
	if err != nil {
		return err
	}
	ch, err := p.Channel(name)
	switch {
	case create && err == nil:
		return cli.Usagef("%s is there already", ch).Do("change it: shoal channel set %s", ch)
	case create:
		if ch, err = manifest.ParseChannel(publishing.ChannelName(cfg.App, name)); err != nil {
			return cli.Usagef("%w", err)
		}
	case err != nil:
		return err
	}
	d := ceremony.ChannelDraft{Channel: ch, MaxValidity: f.max.Duration(), StaleAfter: f.stale.Duration()}
	if f.release != "" {
		if d.Release, err = parseRole("--release", f.release, fleet); err != nil {
			return err
		}
	}
	if f.beacon != "" {
		k, err := readKey(f.beacon, fleet)
		if err != nil {
			return err
		}
		d.Beacon = &keys.Role{Threshold: 1, Keys: []keys.PublicKey{k}}
	}
	draft := ceremony.RootDraft{Channels: []ceremony.ChannelDraft{d}, Expires: f.expires.Duration(), Reason: f.reason}
	return printRootDraft(c, fleet, draft, f.out)
}

func newChannelRefreshCmd(c *cli.CLI) *cobra.Command {
	var f publishing.AgainFlags
	cmd := &cobra.Command{
		Use:   "refresh [CHANNEL]",
		Short: "Sign what a channel offers again, with a new expiry",
		Example: `  shoal channel refresh acme/stable --expires 90d
  shoal channel refresh stable --key file:alice --key agent:bob.pub`,
		Long: `The same files with the next sequence: machines fetch and install nothing anew. It signs with every
--key, or the configured ones; with fewer than the channel needs the draft and its signatures are
left in this directory for the next signer.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.ChannelName = args[0]
			}
			return f.SignAndPrint(cmd.Context(), c, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
				return p.Refresh(ctx, f.AgainRequest)
			})
		},
	}
	f.Register(c, cmd)
	return cmd
}
