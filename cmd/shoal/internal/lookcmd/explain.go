package lookcmd

import (
	"embed"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
)

// explanations holds one page per code: what it means, usual causes, what to do and
// for whom.
//
//go:embed explain/*.md
var explanations embed.FS

// explanation returns the page of a code.
func explanation(code fault.Code) (string, error) {
	b, err := explanations.ReadFile("explain/" + string(code) + ".md")
	return strings.TrimSpace(string(b)), err
}

// Explain is shoal explain.
func Explain(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a code: what it means, why it happens, what to do",
		Example: `  shoal explain threshold
  shoal explain`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var codes []string
			for _, row := range fault.Table {
				codes = append(codes, string(row.Code)+"\t"+row.Meaning)
			}
			return codes, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listCodes(c)
			}
			row, ok := fault.Lookup(fault.Code(strings.Trim(args[0], "[]")))
			if !ok {
				return cli.Usagef("there is no code %q", args[0]).Do("shoal explain lists them all")
			}
			text, err := explanation(row.Code)
			if err != nil {
				return fmt.Errorf("reading the page of %s: %w", row.Code, err)
			}
			out := struct {
				Code    fault.Code `json:"code"`
				Exit    int        `json:"exit"`
				Meaning string     `json:"meaning"`
				Text    string     `json:"text"`
			}{row.Code, row.Exit, row.Meaning, text}
			return c.Print("shoal.explain/v1", out, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s  (exit status %d)\n\n%s\n", row.Code, row.Meaning, row.Exit, text)
			})
		},
	}
}

func listCodes(c *cli.CLI) error {
	type item struct {
		Code    fault.Code `json:"code"`
		Exit    int        `json:"exit"`
		Meaning string     `json:"meaning"`
	}
	var items []item
	for _, row := range fault.Table {
		items = append(items, item(row))
	}
	return c.Print("shoal.codes/v1", items, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "CODE\tEXIT\tMEANING")
		for _, i := range items {
			fmt.Fprintf(tw, "%s\t%d\t%s\n", i.Code, i.Exit, i.Meaning)
		}
		tw.Flush()
	})
}
