package setupcmd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/install"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/internal/fault"
)

func newInstallCmd(c *cli.CLI) *cobra.Command {
	var now, dryRun bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have this machine's service manager run the agent",
		Example: `  sudo /opt/shoal/shoal agent install --now
  shoal agent install --dry-run`,
		Long: `Under systemd it writes the unit, with just the rights that the configured programs need, and, when
an app's target is the agent itself, a second one for the guard. Elsewhere the system's own manager is
told. Join first; do it again after an app was added. Doing it again is safe.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, o, err := installOptions(c)
			if err != nil {
				return err
			}
			if dryRun {
				return showUnits(c, o)
			}
			if !cfg.Joined() {
				return fault.New(fault.Config, "this machine has not joined a fleet, so there is nothing to run").Do("shoal agent join LINK --target PATH")
			}
			res, err := install.Install(cmd.Context(), o, now)
			if err != nil {
				return err
			}
			return c.Print("shoal.install/v1", res, func(w io.Writer) {
				for _, f := range res.Files {
					fmt.Fprintf(w, "  %s\n", f)
				}
				switch {
				case !res.Changed:
					fmt.Fprintf(w, "The service was installed already (%s).\n", res.Manager)
				default:
					fmt.Fprintf(w, "The service is installed (%s), and starts with the machine.\n", res.Manager)
				}
				if now {
					fmt.Fprintln(w, "It runs.  Next: shoal agent status")
				} else {
					fmt.Fprintln(w, "Next: start it now: shoal agent install --now")
				}
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&now, "now", false, "start it, too")
	f.BoolVar(&dryRun, "dry-run", false, "print the units, and change nothing")
	return cmd
}

func newUninstallCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the agent's service and remove it",
		Example: `  sudo shoal agent uninstall
  sudo shoal agent uninstall && sudo shoal agent leave --yes`,
		Long: `Configuration, state, the programs and their previous versions stay: shoal agent leave forgets the
fleet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, o, err := installOptions(c)
			if err != nil {
				return err
			}
			res, err := install.Uninstall(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.Print("shoal.uninstall/v1", res, func(w io.Writer) {
				if !res.Changed {
					fmt.Fprintf(w, "No service of ours is installed (%s). Nothing was changed.\n", res.Manager)
					return
				}
				for _, f := range res.Files {
					fmt.Fprintf(w, "  removed %s\n", f)
				}
				fmt.Fprintf(w, "The agent is no service any more. What stays: %s, %s, and every program.\n", c.ConfigPath("agent"), cfg.StateDir)
			})
		},
	}
}

// installOptions say how a service would have to run what this command line means.
func installOptions(c *cli.CLI) (agent.Config, install.Options, error) {
	cfg, err := machine.Config(c)
	if err != nil {
		return cfg, install.Options{}, err
	}
	if c.Program == nil {
		return cfg, install.Options{}, fault.New(fault.IO, "this program cannot tell where it is installed")
	}
	o := install.Options{Program: c.Program.Path()}
	if file := c.ConfigFlagFile(); file != "" {
		if o.Config, err = filepath.Abs(file); err != nil {
			return cfg, o, fault.New(fault.Config, "configuration file %q: %w", file, err)
		}
	}
	if c.StateDirGiven() {
		o.State = cfg.StateDir
	}
	for _, app := range cfg.Apps {
		o.Targets = append(o.Targets, app.Target)
		o.Self = o.Self || c.Program.Is(app.Target)
	}
	if _, err := os.Stat(cfg.FleetKeyFile); cfg.FleetKeyFile != "" && err == nil {
		o.FleetKey = cfg.FleetKeyFile
	}
	return cfg, o, nil
}

// showUnits prints what would be written.
func showUnits(c *cli.CLI, o install.Options) error {
	units, err := install.Text(o)
	if err != nil {
		return err
	}
	type unit struct {
		Name string `json:"name"`
		Text string `json:"text"`
	}
	out := struct {
		Units []unit `json:"units"`
	}{[]unit{}}
	for _, u := range units {
		out.Units = append(out.Units, unit(u))
	}
	return c.Print("shoal.install/v1", out, func(w io.Writer) {
		for i, u := range units {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprint(w, u.Text)
		}
	})
}
