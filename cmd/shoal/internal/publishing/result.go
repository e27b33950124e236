package publishing

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher"
)

// WriteResult says what was signed and published, or why not yet, and what comes next.
func WriteResult(c *cli.CLI, w io.Writer, res *publisher.PublishResult) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range res.Artifacts {
		fmt.Fprintf(tw, "%s\t%s\tsha256 %s\t%s\n", a.Platform, words.Size(a.Length), words.Short(a.SHA256.String()), a.File)
	}
	for _, a := range res.Attached {
		fmt.Fprintf(tw, "attached\t%s\tsha256 %s\t%s\n", words.Size(a.Length), words.Short(a.SHA256.String()), a.Name)
	}
	tw.Flush()
	sequence := fmt.Sprintf("sequence %d", res.Sequence)
	version := res.Version
	if res.Already {
		fmt.Fprintf(w, "%s %s is already published as %s; nothing was changed.\n", res.Channel, version, sequence)
		return
	}
	if res.Previous != "" {
		if res.Previous != version {
			version = res.Previous + " → " + version
		}
		last, err := manifest.ParseOrder(res.PreviousOrder)
		if err == nil && last.Epoch == res.Epoch {
			sequence = fmt.Sprintf("sequence %d → %d", last.Sequence, res.Sequence)
		} else {
			sequence = fmt.Sprintf("sequence %s → %d.%d", res.PreviousOrder, res.Epoch, res.Sequence)
		}
	}
	fmt.Fprintf(w, "%s  %s   %s   expires %s   %s\n", res.Channel, version, sequence, res.Expires.Format("2006-01-02"), WaveWords(res))
	if res.Blocked > 0 {
		fmt.Fprintf(w, "Blocked: %d file(s) that no machine runs.\n", res.Blocked)
	}
	if len(res.Left) > 0 {
		fmt.Fprintf(w, "Left out: %s had a build in %s and has none now; machines there stay as they are.\n",
			strings.Join(res.Left, ", "), res.Previous)
	}
	switch {
	case res.DryRun:
		fmt.Fprintf(w, "Dry run: nothing was signed or changed. %d key(s) must sign.\n", res.Threshold)
	case res.Draft != "":
		fmt.Fprintf(w, "Wrote %s for review; nothing was signed or published.\n", res.Draft)
		fmt.Fprintf(w, "Sign it: ssh-keygen -Y sign -n %s -f KEY %s\n", manifest.TypeManifest, words.Shell(res.Draft))
	default:
		fmt.Fprintf(w, "Signed by %s (%d of %d).\n", SignerNames(res), len(res.SignedBy), res.Threshold)
		if res.Paused {
			fmt.Fprintf(w, "Next: %s     then     %s\n", c.Again("serve"), c.Again("rollout start"))
			return
		}
		fmt.Fprintf(w, "Next: %s\n", c.Again("serve"))
	}
}

// SignerNames lists who signed.
func SignerNames(res *publisher.PublishResult) string {
	var names []string
	for _, s := range res.SignedBy {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// NextWithConfig makes the commands that err offers find this configuration again.
func NextWithConfig(c *cli.CLI, err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		for i, next := range e.Next {
			if rest, ok := strings.CutPrefix(next, "shoal publish "); ok {
				e.Next[i] = c.Again("publish ") + rest
			}
		}
	}
	return err
}
