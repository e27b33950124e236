package fleetcmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/publisher/fleet"
)

const shownEvents = 30 // of one machine

func newShowCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID|HOST",
		Short: "Show one machine: what it runs, why, and what happened there",
		Example: `  shoal fleet show pos-0113
  shoal fleet show SHA256:3kVx -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				a, err := f.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				events, err := f.Events(cmd.Context(), fleet.EventQuery{Agent: a.ID, Last: true, Limit: shownEvents})
				if err != nil {
					return err
				}
				out := struct {
					*fleet.Agent
					Events []fleet.Event `json:"events"`
				}{a, events.Events}
				return c.Print("shoal.agent/v1", out, func(w io.Writer) { writeAgent(w, a, events.Events) })
			})
		},
	}
}

func writeAgent(w io.Writer, a *fleet.Agent, events []fleet.Event) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, words.OneLine(fmt.Sprintf(format, args...)))
	}
	row("host", "%s", a.Report.Host)
	row("agent", "%s", a.ID)
	switch {
	case !a.Approved:
		row("approved", "no: it counts nowhere. shoal fleet approve %s", a.ID)
	case a.NotSeen:
		row("approved", "yes, and not seen for a day: it is left out of what counts")
	default:
		row("approved", "yes")
	}
	row("seen", "%s (%s), first %s", humanize.Time(a.Seen), a.Seen.UTC().Format(time.RFC3339), a.First.UTC().Format(time.RFC3339))
	if off := a.Report.Time.Sub(a.Seen); off.Abs() > 5*time.Minute && a.From.IsValid() {
		row("clock", "%s off from this publisher's", off.Round(time.Second))
	}
	row("system", "%s, agent %s, root %d", a.Report.Platform, a.Report.AgentVersion, a.Report.RootVersion)
	if len(a.Report.Labels) > 0 {
		var labels []string
		for _, l := range a.Report.Labels {
			labels = append(labels, l.Name+"="+l.Value)
		}
		row("labels", "%s", strings.Join(labels, " "))
	}
	for _, n := range a.Notes {
		row("note", "%s=%s", n.Name, n.Value)
	}
	if a.Cloned {
		row("cloned", "two machines report with this key, last noticed %s:", humanize.Time(a.ClonedAt))
		for _, r := range a.Runs {
			row("", "%s, seen %s", r.Host, humanize.Time(r.Seen))
		}
	}
	for i, r := range a.Report.Apps {
		row("app", "%s/%s %s  %s since %s", r.App, r.Channel, r.Version, a.State(i), a.Standing[i].Since.UTC().Format(time.RFC3339))
		if why := r.Why; why != nil {
			row("  why", "%s [%s]", why.Text, why.Code)
			if !why.Until.IsZero() {
				row("  until", "%s", why.Until.UTC().Format(time.RFC3339))
			}
			if why.Next != "" {
				row("  next", "%s", why.Next)
			}
		}
		b := r.Bytes
		row("  bytes", "lan %s, wan %s, origin %s, webseed %s; given %s", humanize.Bytes(uint64(b.LAN)), humanize.Bytes(uint64(b.WAN)),
			humanize.Bytes(uint64(b.Origin)), humanize.Bytes(uint64(b.Webseed)), humanize.Bytes(uint64(b.Given)))
	}
	for _, e := range events {
		fmt.Fprintln(w, eventLine(e))
	}
}
