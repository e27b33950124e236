package agentcmd

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
)

func newCacheCmd(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show and empty the downloads that are kept",
		Example: `  shoal agent cache ls
  shoal agent cache rm --unused`,
	}
	cmd.AddCommand(newCacheLsCmd(c), newCacheRmCmd(c))
	return cmd
}

func newCacheLsCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the downloads that are kept, and what for",
		Example: `  shoal agent cache ls
  shoal agent cache ls -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				files, err := h.Stored(ctx)
				if err != nil {
					return err
				}
				return c.Print("shoal.cache/v1", files, func(w io.Writer) { writeStored(w, files) })
			})
		},
	}
}

func writeStored(w io.Writer, files []agent.Stored) {
	if len(files) == 0 {
		fmt.Fprintln(w, "nothing is kept")
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer tw.Flush()
	for _, f := range files {
		use := "can go"
		switch {
		case !f.Whole:
			use = "unfinished"
		case f.Given && f.Wanted:
			use = "in use, given to neighbours"
		case f.Given:
			use = "can go, given to neighbours"
		case f.Wanted:
			use = "in use"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s %s\t%s\n", f.SHA256, humanize.IBytes(uint64(max(f.Bytes, 0))), f.App, words.Printable(f.Version), use)
	}
}

func newCacheRmCmd(c *cli.CLI) *cobra.Command {
	var unused bool
	cmd := &cobra.Command{
		Use:   "rm --unused | SHA256...",
		Short: "Remove downloads; programs stay as they are",
		Example: `  shoal agent cache rm --unused
  shoal agent cache rm 8f0c2d41`,
		Long: `--unused takes every file that is neither installed nor offered nor being fetched. A file can be named by
the first eight digits of its SHA-256, or more. What is installed is given to neighbours from where it is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if unused == (len(args) > 0) {
				return cli.Usagef("say which: --unused, or SHA256")
			}
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			return machine.With(cmd.Context(), c, cfg, func(ctx context.Context, h agent.Handle) error {
				gone, err := h.Drop(ctx, args)
				if err != nil {
					return err
				}
				return c.Print("shoal.cache-rm/v1", gone, func(w io.Writer) {
					if len(gone.Files) == 0 {
						fmt.Fprintln(w, "there was nothing to remove")
						return
					}
					fmt.Fprintf(w, "removed %d files, %s\n", len(gone.Files), humanize.IBytes(uint64(max(gone.Bytes, 0))))
				})
			})
		},
	}
	cmd.Flags().BoolVar(&unused, "unused", false, "all that nothing on this machine asks for")
	return cmd
}
