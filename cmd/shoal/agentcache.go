package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/agent"
)

func newAgentCacheCmd(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show and empty the downloads that are kept",
		Example: `  shoal agent cache ls
  shoal agent cache rm --unused`,
	}
	cmd.AddCommand(newAgentCacheLsCmd(c), newAgentCacheRmCmd(c))
	return cmd
}

func newAgentCacheLsCmd(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the downloads that are kept, and what for",
		Example: `  shoal agent cache ls
  shoal agent cache ls -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.agentConfig()
			if err != nil {
				return err
			}
			return c.withAgent(cmd.Context(), cfg, func(ctx context.Context, h agent.Handle) error {
				files, err := h.Stored(ctx)
				if err != nil {
					return err
				}
				return c.print("shoal.cache/v1", files, func(w io.Writer) { writeStored(w, files) })
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
		fmt.Fprintf(tw, "%s\t%s\t%s %s\t%s\n", f.SHA256, humanize.IBytes(uint64(max(f.Bytes, 0))), f.App, printable(f.Version), use)
	}
}

func newAgentCacheRmCmd(c *cli) *cobra.Command {
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
				return usagef("say which: --unused, or SHA256")
			}
			cfg, err := c.agentConfig()
			if err != nil {
				return err
			}
			return c.withAgent(cmd.Context(), cfg, func(ctx context.Context, h agent.Handle) error {
				gone, err := h.Drop(ctx, args)
				if err != nil {
					return err
				}
				return c.print("shoal.cache-rm/v1", gone, func(w io.Writer) {
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
