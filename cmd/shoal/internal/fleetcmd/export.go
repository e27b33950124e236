package fleetcmd

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/publisher/fleet"
)

// csvHead names the columns of an export: one row for each app of each machine. Columns
// are only ever added at the end.
var csvHead = []string{"host", "agent", "approved", "app", "channel", "state", "version", "sha256", "epoch", "sequence", "code", "why",
	"last_seen", "platform", "agent_version", "labels", "lan", "wan", "origin", "webseed", "given"}

func newExportCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "export csv|jsonl",
		Short: "Write all machines, one line each app, for a spreadsheet or a script",
		Example: `  shoal fleet export csv > fleet.csv
  shoal fleet export jsonl | jq .report.host`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"csv", "jsonl"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				out := c.Data() // even when there is no machine
				if args[0] == "jsonl" {
					return publishing.EachAgent(cmd.Context(), f, fleet.Query{}, func(a *fleet.Agent) error { return c.PrintLine("shoal.agent/v1", a) })
				}
				w := csv.NewWriter(out)
				if err := w.Write(csvHead); err != nil {
					return err
				}
				err := publishing.EachAgent(cmd.Context(), f, fleet.Query{}, func(a *fleet.Agent) error {
					for i := range a.Report.Apps {
						if err := w.Write(csvRow(a, i)); err != nil {
							return err
						}
					}
					return nil
				})
				w.Flush()
				if err == nil {
					err = w.Error()
				}
				return err
			})
		},
	}
}

func csvRow(a *fleet.Agent, app int) []string {
	r := a.Report.Apps[app]
	row := []string{cell(a.Report.Host), string(a.ID), strconv.FormatBool(a.Approved), r.App, r.Channel, a.State(app), r.Version,
		"", fmt.Sprint(r.Epoch), fmt.Sprint(r.Sequence), "", "", a.Seen.UTC().Format(time.RFC3339), a.Report.Platform.String(), a.Report.AgentVersion}
	if !r.SHA256.IsZero() {
		row[7] = r.SHA256.String()
	}
	if r.Why != nil {
		row[10], row[11] = string(r.Why.Code), cell(r.Why.Text)
	}
	var labels []string
	for _, l := range a.Report.Labels {
		labels = append(labels, l.Name+"="+l.Value)
	}
	row = append(row, cell(strings.Join(labels, " ")))
	for _, n := range []int64{r.Bytes.LAN, r.Bytes.WAN, r.Bytes.Origin, r.Bytes.Webseed, r.Bytes.Given} {
		row = append(row, strconv.FormatInt(n, 10))
	}
	return row
}

// cell is a machine's words for a spreadsheet, which must not take them for a formula.
func cell(s string) string {
	s = words.OneLine(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

func newImportCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take in the reports of machines without a network",
		Example: `  shoal fleet import site.reports
  cat /media/stick/*.report | shoal fleet import -`,
		Long: `Each machine writes its own with shoal agent export-reports; files can be joined. Every report is checked as
one that came over the network is: its signature, its fleet, its counter. What is older than what is known
of a machine is left out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := c.Std.In
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fault.New(fault.IO, "opening the reports: %w", err)
				}
				defer file.Close()
				in = file
			}
			envs, err := fleet.ReadReports(in)
			if err != nil {
				return err
			}
			if len(envs) == 0 {
				return fault.New(fault.Malformed, "%q holds no report", args[0]).Do("on the machine: shoal agent export-reports FILE")
			}
			return publishing.WithReports(cmd.Context(), c, func(f fleet.Fleet) error {
				got, err := f.Import(cmd.Context(), envs)
				if err != nil {
					return err
				}
				if err := c.Print("shoal.imported/v1", got, func(w io.Writer) {
					fmt.Fprintf(w, "%d report(s) taken in, %d of machines that are not approved; %d left out: known already\n", got.Taken, got.Unapproved, got.Old)
				}); err != nil {
					return err
				}
				if len(got.Refused) > 0 {
					return fault.New(got.Refused[0], "%d of %d reports were refused; the first one: %s", len(got.Refused), len(envs), got.Refused[0]).
						Line("The others were taken in.").Fact("refused", got.Refused)
				}
				return nil
			})
		},
	}
}
