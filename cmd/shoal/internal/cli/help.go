package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// writeHelp is --help: what the command does in one line, then examples, and only
// then its words and flags.
func writeHelp(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	fmt.Fprintln(w, cmd.Short)
	if cmd.Example != "" {
		fmt.Fprintf(w, "\n%s\n", strings.Trim(cmd.Example, "\n"))
	}
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nUsage: %s COMMAND\n", cmd.CommandPath())
		writeCommands(w, cmd)
	} else {
		fmt.Fprintf(w, "\nUsage: %s\n", cmd.UseLine())
	}
	if flags := cmd.LocalFlags(); cmd.HasParent() && flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", flags.FlagUsages())
	}
	if cmd.HasParent() {
		fmt.Fprintln(w, "\nFlags of every command: shoal --help")
	} else {
		fmt.Fprintf(w, "\nFlags of every command:\n%s", cmd.PersistentFlags().FlagUsages())
	}
}

func writeCommands(w io.Writer, cmd *cobra.Command) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer tw.Flush()
	list := func(title, group string) {
		first := true
		for _, child := range inHelpOrder(cmd.Commands()) {
			if !child.IsAvailableCommand() || child.GroupID != group {
				continue
			}
			if first {
				fmt.Fprintf(tw, "\n%s:\n", title)
				first = false
			}
			fmt.Fprintf(tw, "  %s\t%s\n", child.Name(), child.Short)
		}
	}
	for _, g := range cmd.Groups() {
		list(g.Title, g.ID)
	}
	list("Commands", "")
}

// helpOrder is the annotation of commands that stand in an order of their own.
const helpOrder = "shoal-help-order"

func inHelpOrder(cmds []*cobra.Command) []*cobra.Command {
	cmds = slices.Clone(cmds)
	slices.SortStableFunc(cmds, func(a, b *cobra.Command) int {
		return strings.Compare(a.Annotations[helpOrder], b.Annotations[helpOrder])
	})
	return cmds
}

func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show what a command does",
		Example: `  shoal help publish
  shoal help agent join`,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), strings.Join(args, " "))
			}
			return found.Help()
		},
	}
}
