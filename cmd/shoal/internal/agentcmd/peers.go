package agentcmd

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
)

func newPeersCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "Show who nearby holds which version, with no server",
		Example: `  shoal agent peers
  shoal agent peers -o json`,
		Long: `Machines that follow a channel tell each other which signed manifest they hold. This is what they say, which
nobody has verified. A machine that holds a manifest may not have installed its release yet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := machine.Ask(cmd.Context(), c, agent.Peers)
			if err != nil {
				return err
			}
			return c.Print("shoal.peers/v1", all, func(w io.Writer) { writePeers(w, all, time.Now()) })
		},
	}
}

// stands are the words for how a neighbour's manifest compares with ours.
var stands = map[string]string{
	"same": "as here", "behind": "older than here", "ahead": "newer than here, not verified",
	"other": "NOT the one of that sequence that is trusted here", "none": "no manifest yet",
}

func writePeers(w io.Writer, all []agent.ChannelPeers, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no channel is followed")
	}
	for i, ch := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		held := "no manifest yet"
		if ch.Sequence > 0 {
			held = fmt.Sprintf("%s (sequence %d)", words.OrUnknown(ch.Version), ch.Sequence)
		}
		fmt.Fprintf(w, "%s: this machine holds %s, and has %d neighbours\n", ch.Channel, words.Printable(held), len(ch.Peers))
		tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		for _, p := range ch.Peers {
			holds := "-"
			if p.Sequence > 0 {
				holds = fmt.Sprintf("%s (sequence %d)", words.OrUnknown(p.Version), p.Sequence)
			}
			note := stands[p.Stand]
			if p.Faults > 0 {
				note += fmt.Sprintf(", %d faults", p.Faults)
			}
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\theard %s ago\n", p.Addr, p.Class, words.Printable(holds), note, words.Roughly(now.Sub(p.Heard)))
		}
		tw.Flush()
		if ch.Muted > 0 {
			fmt.Fprintf(w, "  %d kept out for a while: they gave bad documents\n", ch.Muted)
		}
	}
}
