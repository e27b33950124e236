package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/internal/fault"
)

func newDoctorCmd(c *cli) *cobra.Command {
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
			x, err := askAgent(cmd.Context(), c, agent.Examine)
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
			return c.tellExamined("shoal.doctor/v1", out, x, status)
		},
	}
	cmd.AddCommand(newDoctorNetworkCmd(c))
	return cmd
}

// tellExamined prints what an examination found, and ends the command with its status.
func (c *cli) tellExamined(schema string, out any, x *agent.Examined, status int) error {
	if err := c.print(schema, out, func(w io.Writer) { writeExamined(w, x) }); err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
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
		fmt.Fprintln(w, printable(line))
		for _, l := range f.Lines {
			fmt.Fprintln(w, "       "+printable(strings.TrimSpace(l)))
		}
		for _, l := range f.Fix {
			fmt.Fprintln(w, "     → "+printable(l))
		}
	}
	if !x.Inside {
		fmt.Fprintln(w, "No agent is running: this was looked at with the rights of who asked.")
	}
}
