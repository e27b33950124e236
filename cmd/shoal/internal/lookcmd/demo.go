package lookcmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shoal/cmd/shoal/demo"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
)

// Demo is shoal demo.
func Demo(c *cli.CLI) *cobra.Command {
	var agents int
	var size, limit units.Size
	var dir string
	var keep, open, clean, plain bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Update a small fleet on this machine, live, and show what is refused",
		Example: `  shoal demo
  shoal demo --agents 12 --limit 5MB --keep`,
		Long: `A publisher and a few agents run as processes of their own, on loopback only, with the
real commands; nothing is installed, and everything is removed at the end. Of three machines
or more the last one has no network: it gets a bundle, and gives what is in it to one more
machine that joins beside it.

On a terminal in a desktop session the fleet page opens in the browser, and the demo stays up
at the end, until Ctrl-C; neither with --open=false, nor with --plain or another output.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if clean {
				return cleanDemos(cmd.Context(), c, dir)
			}
			if runtime.GOOS == "windows" {
				return fault.New(fault.Policy, "the demo needs a Unix system").
					Line("It replaces running programs by rename, as agents do there.")
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding the running program: %w", err)
			}
			cfg := demo.Config{Exe: exe, Agents: agents, Size: size.Bytes(), Base: dir, Keep: keep}
			cfg.Open = open && c.OutTTY && !plain && !c.Quiet() && c.ForPeople()
			if limit > 0 {
				cfg.Limit = limit.String()
			}
			// With another form of output, standard output is the result's alone.
			if c.ForPeople() {
				cfg.Talk, cfg.Fancy = c.Std.Out, c.Fancy(c.OutTTY) && !plain && terminalFits(c.Std.Out, agents)
			} else if !c.Quiet() {
				cfg.Talk = c.Std.Err
			}
			stayed := false
			printed := func(r *demo.Result) error {
				return c.Print("shoal.demo/v1", r, func(w io.Writer) {
					if !stayed {
						fmt.Fprint(w, "\n  Everything was removed.  Keep it up and look around:  shoal demo --keep\n")
					}
				})
			}
			cfg.Stay = func(ctx context.Context, r *demo.Result, where string) {
				stayed = true
				if !c.ForPeople() {
					printed(r)
				}
				c.Say("\n  Still running, in %s.  End it with Ctrl-C.", where)
				publisher := "shoal --config " + filepath.Join(where, "publisher", "publisher.yaml")
				m1 := filepath.Join(where, "m1")
				agent := "shoal --config " + filepath.Join(m1, "agent.yaml") + " --state " + filepath.Join(m1, "state")
				c.Say("  Look around:  %s fleet status", publisher)
				c.Say("                %s rollout status", publisher)
				c.Say("                %s fleet login", publisher)
				c.Say("                %s agent peers", agent)
				<-ctx.Done()
			}
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			// A closed terminal or pipe would end this process before it has cleaned up.
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGPIPE, syscall.SIGHUP)
			defer stop()
			r, err := demo.Run(ctx, cfg)
			if err != nil {
				return err
			}
			if !stayed {
				err = printed(r)
			}
			if err == nil && len(r.Problems) > 0 {
				err = cli.ExitStatus(fault.IO.Exit()) // the result tells what
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&agents, "agents", 6, "how many machines, 1 to 64")
	size = 48e6
	f.Var(&size, "size", "size of the program that is updated, at least shoal's own")
	limit = 20e6
	f.Var(&limit, "limit", "the most the publisher gives per second, to all machines together; 0 for no limit")
	f.StringVar(&dir, "dir", "", "make the demo's directory in `DIR`, instead of the place for temporary files")
	f.BoolVar(&keep, "keep", false, "stay up at the end, until Ctrl-C")
	f.BoolVar(&open, "open", true, "open the fleet page in the browser, on a terminal in a desktop session")
	f.BoolVar(&clean, "clean", false, "remove what a killed demo left, and do nothing else")
	f.BoolVar(&plain, "plain", false, "lines instead of moving bars")
	cmd.AddCommand(newDemoProgramCmd(c), newDemoServiceCmd(c))
	return cmd
}

// titles are the lines among the bars that are no machine's.
const titles = 3

// terminalFits reports whether out is a terminal with room for a line per machine:
// bars that do not fit cannot move.
func terminalFits(out io.Writer, agents int) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return err == nil && width >= 80 && height > agents+titles
}

func cleanDemos(ctx context.Context, c *cli.CLI, dir string) error {
	removed, err := demo.Clean(ctx, dir)
	if err != nil {
		return err
	}
	out := struct {
		Removed []string `json:"removed"`
	}{append([]string{}, removed...)}
	return c.Print("shoal.demo-clean/v1", out, func(w io.Writer) {
		for _, dir := range removed {
			fmt.Fprintf(w, "Removed %s\n", dir)
		}
		if len(removed) == 0 {
			fmt.Fprintln(w, "Nothing to remove.")
		}
	})
}

// newDemoProgramCmd is what a copy of this executable does as the demo's program.
func newDemoProgramCmd(c *cli.CLI) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:    "program",
		Short:  "Be the program that the demo updates",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding the running program: %w", err)
			}
			return demo.RunProgram(cmd.Context(), exe, listen, c.Std.Out)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`HOST:PORT` to serve on")
	return cmd
}

// newDemoServiceCmd is how the demo's agents control their program.
func newDemoServiceCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:    "service start|stop|restart|status URL",
		Short:  "Tell the demo to start or stop a machine's program",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo.Control(cmd.Context(), args[0], args[1], c.Std.Out)
		},
	}
}
