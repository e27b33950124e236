package agentcmd

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/state"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
)

func newStatusCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what runs here, what is offered, and why not yet",
		Example: `  shoal agent status
  shoal agent status -o json`,
		Long: "It works without a running agent too, and then shows how things were when one last ran.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := machine.Ask(cmd.Context(), c, agent.CurrentStatus)
			if err != nil {
				return err
			}
			return c.Print("shoal.status/v1", s, func(w io.Writer) { writeStatus(w, s, time.Now()) })
		},
	}
}

// longValidity is what a channel has for sites that nothing new reaches for long.
const longValidity = 180 * 24 * time.Hour

// rootWarning is how long before its end the root is worth a line.
const rootWarning = 90 * 24 * time.Hour

func writeStatus(w io.Writer, s *agent.Status, now time.Time) {
	if !s.Running {
		fmt.Fprintf(w, "no agent is running; this is how things were %s ago\n", words.Roughly(now.Sub(s.Updated)))
	}
	if s.StateLost {
		fmt.Fprintln(w, "STATE LOST: what is trusted was built again from the pin. Acknowledge: shoal agent join LINK  [state_lost]")
	}
	if rest := s.RootExpires.Sub(now); !s.RootExpires.IsZero() && rest < rootWarning {
		fmt.Fprintf(w, "root %d: %s; its keepers should sign the next one\n", s.RootVersion, words.Left(s.RootExpires, now))
	}
	if s.TOFU {
		fmt.Fprintln(w, "the fleet id was trusted on first use, not told by anyone")
	}
	for i, app := range s.Apps {
		if i > 0 {
			fmt.Fprintln(w)
		}
		writeAppStatus(w, s, app, now)
	}
	if len(s.Apps) == 0 {
		fmt.Fprintln(w, "no app is configured: add one to apps: in agent.yaml, or shoal agent join LINK --target PATH")
	}
}

func writeAppStatus(w io.Writer, s *agent.Status, app agent.AppStatus, now time.Time) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer tw.Flush()
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, words.Printable(fmt.Sprintf(format, args...)))
	}
	version := app.Version
	switch {
	case app.SHA256.IsZero():
		version = "nothing installed"
	case version == "":
		version = "unknown (" + app.SHA256.String()[:12] + ")"
	}
	trust := "nothing trusted yet"
	if app.Sequence > 0 {
		trust = fmt.Sprintf("sequence %d, trusted until %s (%s)", app.Sequence, app.Expires.Format(time.DateOnly), words.Left(app.Expires, now))
	}
	row(app.App+"/"+app.Channel, "%s %s since %s    %s", version, app.State, words.Roughly(now.Sub(app.Since)), trust)
	if app.Why != nil && app.State != manifest.StateHealthy {
		text := app.Why.Text
		if app.Why.Code != fault.OK {
			text += "  [" + string(app.Why.Code) + "]"
		}
		if app.Why.Until.After(now) {
			text += "  (in " + words.Roughly(app.Why.Until.Sub(now)) + ")"
		}
		row("why", "%s", text)
		if app.Why.Next != "" {
			row("next", "%s", app.Why.Next)
		}
	}
	if app.HoldUntil.Equal(state.NoEnd) {
		row("held", "by this machine's operator; to end it: shoal agent resume")
	} else if app.HoldUntil.After(now) {
		row("held", "by this machine's operator until %s; to end it: shoal agent resume", words.Moment(app.HoldUntil))
	}
	if app.Pin != "" {
		row("pinned", "to %s by this machine's operator; to end it: shoal agent unpin", app.Pin)
	}
	if o := app.Offered; o != nil && o.SHA256 != app.SHA256 {
		text := o.Version + " " + humanize.IBytes(uint64(max(o.Length, 0)))
		switch app.Ahead {
		case agent.AheadHere:
			text += ", downloaded ahead"
		case agent.AheadFetching:
			text += ", downloading ahead"
		}
		row("offered", "%s", text)
	}
	row("last check", "%s  (%s)", checkText(app, now), windowText(app.Window))
	if app.Freshness != manifest.FreshNone && app.Freshness != "" {
		row("beacon", "%s", app.Freshness)
	}
	if !s.FreezeCheck {
		row("clock", "freeze detection: off: nobody here notices that a newer release is held back, or that one has run out")
	} else if app.Freshness == manifest.FreshNone && app.Expires.Sub(now) > longValidity {
		row("clock", "until %s nobody here notices that a newer release is held back: the channel has no beacon", app.Expires.Format(time.DateOnly))
	}
	if app.Update != nil {
		row("this update", "%s %s", app.Update.Version, sources(app.Update))
	}
	if s.Running {
		row("giving", "%d peers, %s so far", app.Peers, humanize.IBytes(uint64(max(app.Given, 0))))
	}
	if len(app.Previous) > 0 {
		var names []string
		for _, version := range app.Previous {
			names = append(names, words.OrUnknown(version))
		}
		row("previous", "%s kept beside the target (shoal agent revert)", strings.Join(names, ", "))
	}
}

// windowText says when an update may begin.
func windowText(w *agent.WindowStatus) string {
	switch {
	case w == nil:
		return "window: any time"
	case w.Open && w.Changes.IsZero():
		return "window: open"
	case w.Open:
		return "window: open until " + words.Moment(w.Changes)
	case w.Changes.IsZero():
		return "window: closed"
	}
	return "window: opens " + words.Moment(w.Changes)
}

func checkText(app agent.AppStatus, now time.Time) string {
	l := app.LastCheck
	if l == nil {
		return "never"
	}
	text := words.Roughly(now.Sub(l.At)) + " ago"
	if l.Code != fault.OK && l.Code != fault.Same {
		text += ": " + l.Text + "  [" + string(l.Code) + "]"
	}
	if app.NextCheck.After(now) {
		text += ", next in " + words.Roughly(app.NextCheck.Sub(now))
	}
	return text
}
