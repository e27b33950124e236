package agentcmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/durable"
	"shoal/internal/fault"
)

func newExportCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "export-reports FILE",
		Short: "Write this machine's report into a file, for a publisher it cannot reach",
		Example: `  shoal agent export-reports pos-0113.report
  cat *.report > site.reports   # then, at the publisher: shoal fleet import site.reports`,
		Long: `The report is the one a connected machine sends: how each app stands and why, and the events since the
last one, signed with this machine's own key. Files can be joined. It holds no secrets.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				env, err := h.Report(ctx)
				if err != nil {
					return err
				}
				if err := durable.WriteFile(args[0], append(env, '\n'), 0o644); err != nil {
					return fault.New(fault.IO, "writing the report: %w", err)
				}
				if err := h.Reported(ctx, env); err != nil {
					return fault.New(fault.CodeOf(err), "noting that the report is written: %w", err).
						Line("%q is whole. The next report tells the same events again.", args[0])
				}
				out := struct {
					File  string `json:"file"`
					Bytes int    `json:"bytes"`
				}{args[0], len(env) + 1}
				return c.Print("shoal.report-file/v1", out, func(w io.Writer) {
					fmt.Fprintf(w, "%s: %d bytes. At the publisher: shoal fleet import %s\n", words.Printable(out.File), out.Bytes, words.Printable(out.File))
				})
			})
		},
	}
}
