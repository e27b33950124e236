// Package fleetcmd has the verbs that show what machines report, and say whose reports count:
// shoal fleet.
package fleetcmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// New is shoal fleet.
func New(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "See what the machines run, which need a look, and why",
		Example: `  shoal fleet status
  shoal fleet approve --pending`,
		Long: `Machines report to shoal serve, signed with keys of their own. Only those that you approved count.
These commands work beside a running serve, as the user it runs as, and without one.`,
	}
	cmd.AddCommand(newStatusCmd(c), newListCmd(c), newShowCmd(c), newApproveCmd(c), newLabelCmd(c),
		newForgetCmd(c), newLoginCmd(c), newEventsCmd(c), newExportCmd(c), newImportCmd(c))
	return cmd
}

// allAgents is what publishing.EachAgent finds.
func allAgents(ctx context.Context, f fleet.Fleet, q fleet.Query) ([]*fleet.Agent, error) {
	all := []*fleet.Agent{}
	err := publishing.EachAgent(ctx, f, q, func(a *fleet.Agent) error { all = append(all, a); return nil })
	return all, err
}

// parseLabels reads NAME=VALUE.
func parseLabels(args []string) ([]manifest.Label, error) {
	var labels []manifest.Label
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || !manifest.ValidName(name) {
			return nil, cli.Usagef("%q is not NAME=VALUE", arg)
		}
		labels = append(labels, manifest.Label{Name: name, Value: value})
	}
	return labels, nil
}

func newStatusCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Count the machines, by channel, state and version",
		Example: `  shoal fleet status
  shoal fleet status -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				s, err := f.Summary(cmd.Context())
				if err != nil {
					return err
				}
				trouble, err := allAgents(cmd.Context(), f, fleet.Query{Trouble: true})
				if err != nil {
					return err
				}
				return c.Print("shoal.fleet/v1", s, func(w io.Writer) { writeFleet(w, s, trouble) })
			})
		},
	}
}

func writeFleet(w io.Writer, s *fleet.Summary, trouble []*fleet.Agent) {
	if s.Agents+s.Unapproved == 0 {
		fmt.Fprintln(w, "No machine has reported yet. Machines report to the publisher they joined, while shoal serve runs.")
		return
	}
	fmt.Fprintf(w, "%d machine(s), %d of them not seen for a day", s.Agents, s.NotSeen)
	if s.Cloned > 0 {
		fmt.Fprintf(w, ", %d reported by two hosts with one key", s.Cloned)
	}
	fmt.Fprintln(w)
	for _, ch := range s.Channels {
		fmt.Fprintf(w, "\n%s   %d machine(s)\n", words.Printable(ch.Channel.String()), ch.Agents)
		fmt.Fprintf(w, "  states     %s\n", counted(ch.States))
		fmt.Fprintf(w, "  versions   %s\n", counted(ch.Versions))
		b := ch.Bytes
		if sum := b.LAN + b.WAN + b.Origin + b.Webseed; sum > 0 {
			fmt.Fprintf(w, "  bytes      %s of the last updates: %d %% lan, %d %% wan, %d %% origin, %d %% webseed\n",
				humanize.Bytes(uint64(sum)), 100*b.LAN/sum, 100*b.WAN/sum, 100*b.Origin/sum, 100*b.Webseed/sum)
		}
	}
	shown := 0
	for _, a := range trouble {
		if !a.Approved {
			continue
		}
		if shown == 0 {
			fmt.Fprintln(w, "\nNeed a look:")
		}
		if shown++; shown > 10 {
			fmt.Fprintln(w, "  … shoal fleet list --trouble")
			break
		}
		for _, line := range agentLines(a) {
			fmt.Fprintf(w, "  %s  %s\n", words.Printable(a.Report.Host), line)
		}
	}
	if s.Unapproved > 0 {
		fmt.Fprintf(w, "\n%d machine(s) report and are not approved: they count nowhere.\nNext: shoal fleet list --state unapproved, then shoal fleet approve ID… or --pending\n", s.Unapproved)
	}
}

// counted is "12 healthy, 3 failed", the most first.
func counted(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		n := counts[name]
		parts = append(parts, fmt.Sprintf("%d %s", n, words.Printable(cmp.Or(name, "nothing"))))
	}
	return strings.Join(parts, ", ")
}

// agentLines is how a machine stands, one line an app, and what else is to be known.
func agentLines(a *fleet.Agent) []string {
	var lines []string
	for i, r := range a.Report.Apps {
		line := fmt.Sprintf("%s/%s %s %s", r.App, r.Channel, cmp.Or(r.Version, "-"), a.State(i))
		if w := r.Why; w != nil && w.Code != fault.OK {
			line += fmt.Sprintf(": %s [%s]", w.Text, w.Code)
		}
		lines = append(lines, words.OneLine(line))
	}
	if len(lines) == 0 {
		lines = append(lines, "no app is configured")
	}
	if a.Cloned {
		lines = append(lines, "another machine reports with the same key: give one of them a key of its own (shoal agent leave, and join)")
	}
	return lines
}

func newListCmd(c *cli.CLI) *cobra.Command {
	var (
		labels  []string
		q       fleet.Query
		channel string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List machines, all or those that fit",
		Example: `  shoal fleet list -l site=munich --state failed
  shoal fleet list --trouble`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			if channel != "" {
				if q.Channel, err = manifest.ParseChannel(channel); err != nil {
					return cli.Usagef("--channel: %w", err)
				}
			}
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				all, err := allAgents(cmd.Context(), f, q)
				if err != nil {
					return err
				}
				return c.Print("shoal.agents/v1", all, func(w io.Writer) { writeAgents(w, all) })
			})
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&labels, "label", "l", nil, "only with this label or note: `NAME=VALUE`")
	fl.StringVar(&q.State, "state", "", "only with an app in this `STATE`; also not-seen, unapproved")
	fl.StringVar(&q.Version, "version", "", "only where an app runs this `VERSION`")
	fl.StringVar(&q.Name, "name", "", "only hosts with this `TEXT` in them, or ids that begin so")
	fl.StringVar(&channel, "channel", "", "only those that follow `APP/CHANNEL`")
	fl.BoolVar(&q.Trouble, "trouble", false, "only those that need a look")
	return cmd
}

func writeAgents(w io.Writer, all []*fleet.Agent) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no machine fits")
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	for _, a := range all {
		for i, line := range agentLines(a) {
			host, id, seen := words.OneLine(a.Report.Host), string(a.ID), humanize.Time(a.Seen)
			if i > 0 {
				host, id, seen = "", "", ""
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", host, id, seen, line)
		}
	}
}
