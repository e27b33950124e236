package lookcmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

// Doctor is shoal doctor.
func Doctor(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps this machine from being updated, and say what mends it",
		Example: `  shoal doctor
  shoal doctor network`,
		Long: `Looks at membership, clock, state, disk, limits and each target, and changes nothing. A running agent is
asked to look itself: its service may have fewer rights than the user who asks. Exit status 0: all is
well; else that of the first thing that is not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := machine.Ask(cmd.Context(), c, agent.Examine)
			if err != nil {
				return err
			}
			status := 0
			for _, f := range x.Findings {
				if f.Code != fault.OK && status == 0 {
					status = max(f.Code.Exit(), 1)
				}
			}
			out := struct {
				*agent.Examined
				Exit int `json:"exit"`
			}{x, status}
			return tellExamined(c, "shoal.doctor/v1", out, x, status)
		},
	}
	cmd.AddCommand(newDoctorNetworkCmd(c))
	return cmd
}

// tellExamined prints what an examination found, and ends the command with its status.
func tellExamined(c *cli.CLI, schema string, out any, x *agent.Examined, status int) error {
	if err := c.Print(schema, out, func(w io.Writer) { writeExamined(w, x) }); err != nil {
		return err
	}
	if status != 0 {
		return cli.ExitStatus(status)
	}
	return nil
}

func writeExamined(w io.Writer, x *agent.Examined) {
	for _, f := range x.Findings {
		mark, name := "ok ", f.Check
		if f.Code != fault.OK {
			mark = "BAD"
		}
		if f.App != "" {
			name += " " + f.App
		}
		line := fmt.Sprintf("%s  %-14s %s", mark, name, f.Text)
		if f.Code != fault.OK {
			line += "  [" + string(f.Code) + "]"
		}
		fmt.Fprintln(w, words.Printable(line))
		for _, l := range f.Lines {
			fmt.Fprintln(w, "       "+words.Printable(strings.TrimSpace(l)))
		}
		for _, l := range f.Fix {
			fmt.Fprintln(w, "     → "+words.Printable(l))
		}
	}
	if !x.Inside {
		fmt.Fprintln(w, "No agent is running: this was looked at with the rights of who asked.")
	}
}
