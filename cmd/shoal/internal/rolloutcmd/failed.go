package rolloutcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
)

const shownFailed = 10 // machines

// failedMachine is one on which what a rollout offers failed, and why.
type failedMachine struct {
	Host    string            `json:"host"`
	Agent   string            `json:"agent"`
	State   manifest.AppState `json:"state"`
	Version string            `json:"version,omitempty"` // that runs
	Code    fault.Code        `json:"code,omitempty"`
	Why     string            `json:"why,omitempty"`
	Next    string            `json:"next"`
}

// errEnough ends the search.
var errEnough = errors.New("enough machines")

// failedIn returns the machines that st counts as failed, and that are not well for
// another reason, the first shownFailed of them. What cannot be asked is left out: how the
// rollout stands is known without.
func failedIn(ctx context.Context, c *cli.CLI, st *rollout.Status) []failedMachine {
	failed := []failedMachine{}
	if !st.Counted {
		return failed
	}
	err := publishing.WithReports(ctx, c, func(f fleet.Fleet) error {
		return publishing.EachAgent(ctx, f, fleet.Query{Channel: st.Channel, Trouble: true}, func(a *fleet.Agent) error {
			for i, r := range a.Report.Apps {
				if r.App != st.Channel.App || r.Channel != st.Channel.Name {
					continue
				}
				switch manifest.AppState(a.State(i)) {
				case manifest.StateFailed, manifest.StateReverted, manifest.StateBlocked:
				default:
					continue
				}
				m := failedMachine{Host: a.Report.Host, Agent: string(a.ID), State: r.State, Version: r.Version, Next: "shoal fleet show " + string(a.ID)}
				if w := r.Why; w != nil {
					m.Code, m.Why, m.Next = w.Code, w.Text, cmp.Or(w.Next, m.Next)
				}
				if failed = append(failed, m); len(failed) == shownFailed {
					return errEnough
				}
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errEnough) {
		c.Warn("the machines that failed are not shown: %v", err)
	}
	return failed
}

func writeFailed(w io.Writer, failed []failedMachine) {
	if len(failed) == 0 {
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FAILED\tSTATE\tCODE\tWHY\tNEXT")
	for _, m := range failed {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", words.OneLine(m.Host), m.State, m.Code, words.OneLine(m.Why), words.OneLine(m.Next))
	}
	tw.Flush()
	if len(failed) == shownFailed {
		fmt.Fprintln(w, "… shoal fleet list --trouble")
	}
}
