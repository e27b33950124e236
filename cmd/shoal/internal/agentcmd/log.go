package agentcmd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/apply"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/words"
	"shoal/manifest"
)

// logEntry is one finished update.
type logEntry struct {
	App      string          `json:"app"`
	Ended    time.Time       `json:"ended"`
	State    apply.State     `json:"state"`
	From     string          `json:"from,omitempty"`
	To       string          `json:"to"`
	SHA256   manifest.Digest `json:"sha256"`
	Sequence int64           `json:"sequence,omitempty"`
	Attempts int             `json:"attempts"`
	Code     string          `json:"code,omitempty"`
	Why      string          `json:"why,omitempty"`
	Hooks    []logHook       `json:"hooks,omitempty"`
}

type logHook struct {
	Hook   string `json:"hook"`
	Exit   int    `json:"exit"`
	Error  string `json:"error,omitempty"`
	Output string `json:"output,omitempty"`
}

func newLogCmd(c *cli.CLI) *cobra.Command {
	var (
		channel channelFlags
		release string
		lines   int
	)
	cmd := &cobra.Command{
		Use:   "log [APP/CHANNEL...]",
		Short: "Show what was installed here, what failed, and what it said",
		Example: `  shoal agent log
  shoal agent log --release 2.4.1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, apps, err := commanded(c, &channel, args)
			if err != nil {
				return err
			}
			entries := []logEntry{}
			for _, app := range cfg.Apps {
				if len(apps) > 0 && !slices.Contains(apps, app.Name) {
					continue
				}
				records, err := agent.Log(cfg, app.Name)
				if err != nil {
					return err
				}
				for _, r := range records {
					if release == "" || r.To.Version == release {
						entries = append(entries, newLogEntry(app.Name, r))
					}
				}
			}
			slices.SortStableFunc(entries, func(a, b logEntry) int { return a.Ended.Compare(b.Ended) })
			if lines > 0 && len(entries) > lines {
				entries = entries[len(entries)-lines:]
			}
			return c.Print("shoal.log/v1", entries, func(w io.Writer) {
				for _, e := range entries {
					writeLogEntry(w, e, release != "")
				}
				if len(entries) == 0 {
					fmt.Fprintln(w, "nothing was installed here yet")
				}
			})
		},
	}
	channel.add(cmd)
	cmd.Flags().StringVar(&release, "release", "", "only this `VERSION`, with what its hooks printed")
	cmd.Flags().IntVarP(&lines, "lines", "n", 20, "the last `N` updates; 0 for all that are kept")
	return cmd
}

func newLogEntry(app string, r apply.Record) logEntry {
	e := logEntry{App: app, Ended: r.Ended, State: r.State, From: r.From.Version, To: r.To.Version, SHA256: r.To.SHA256,
		Sequence: r.To.Sequence, Attempts: r.Attempts, Code: r.Code, Why: r.Why}
	for _, h := range r.Hooks {
		e.Hooks = append(e.Hooks, logHook{h.Hook, h.Exit, h.Error, h.Output})
	}
	return e
}

func writeLogEntry(w io.Writer, e logEntry, all bool) {
	from := e.From
	if from == "" {
		from = "?"
	}
	line := fmt.Sprintf("%s  %s %s → %s  %s", e.Ended.Local().Format("2006-01-02 15:04:05"), e.App, from, e.To, e.State)
	if e.Code != "" {
		line += "  [" + e.Code + "]"
	}
	fmt.Fprintln(w, words.Printable(line))
	if e.Why != "" {
		fmt.Fprintln(w, "    "+strings.ReplaceAll(words.Printable(strings.TrimSpace(e.Why)), "\n", "\n    "))
	}
	for _, h := range e.Hooks {
		if !all && h.Exit == 0 {
			continue
		}
		fmt.Fprintf(w, "    %s hook: exit %d %s\n", h.Hook, h.Exit, words.Printable(h.Error))
		if out := strings.TrimSpace(h.Output); out != "" {
			fmt.Fprintln(w, "      "+strings.ReplaceAll(words.Printable(out), "\n", "\n      "))
		}
	}
}
