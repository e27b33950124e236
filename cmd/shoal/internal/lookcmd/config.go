package lookcmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

// Config is shoal config.
func Config(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show, check and explain configuration files",
		Example: `  shoal config show
  shoal config example agent > agent.yaml`,
	}
	cmd.AddCommand(newConfigShowCmd(c), newConfigValidateCmd(c), newConfigExampleCmd(c), newConfigSchemaCmd(c))
	return cmd
}

// configArg reads the name of a configuration; agent when none is given.
func configArg(args []string) (string, error) {
	if len(args) == 0 {
		return "agent", nil
	}
	if args[0] != "agent" && args[0] != "publisher" {
		return "", cli.Usagef("%q is neither agent nor publisher", args[0])
	}
	return args[0], nil
}

// defaults returns a pointer to the named configuration with its defaults.
func defaults(name string) any {
	if name == "publisher" {
		cfg := config.DefaultPublisher()
		return &cfg
	}
	cfg := config.DefaultAgent()
	return &cfg
}

func newConfigShowCmd(c *cli.CLI) *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use:   "show [agent|publisher]",
		Short: "Print every key with its value and where it comes from",
		Example: `  shoal config show
  shoal config show publisher --origin=false`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := configArg(args)
			if err != nil {
				return err
			}
			cfg := defaults(name)
			loaded, err := c.Load(name, cfg)
			if err != nil {
				return err
			}
			origins := map[string]string{}
			for key, o := range loaded.Origins {
				origins[key] = o.String()
			}
			values, err := config.Values(cfg)
			if err != nil {
				return err
			}
			out := struct {
				Config  string            `json:"config"`
				Files   []string          `json:"files"`
				Values  any               `json:"values"`
				Origins map[string]string `json:"origins"`
			}{name, append([]string{}, loaded.Files...), values, origins}
			if !origin {
				out.Origins = nil
			}
			text, err := config.Show(cfg, out.Origins)
			if err != nil {
				return err
			}
			return c.Print("shoal.config/v1", out, func(w io.Writer) { w.Write(text) })
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", true, "say where each value comes from")
	return cmd
}

func newConfigValidateCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration file without using it",
		Example: `  shoal config validate /etc/shoal/agent.yaml
  shoal config validate ./publisher.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			name := "agent"
			if strings.Contains(filepath.Base(path), "publisher") {
				name = "publisher"
			} else if !strings.Contains(filepath.Base(path), "agent") && fitsPublisher(path) {
				name = "publisher"
			}
			cfg := defaults(name)
			if _, err := config.Load(cfg, config.Options{Files: []string{path}, Require: true}); err != nil {
				return err
			}
			if err := config.Validate(cfg); err != nil {
				return err
			}
			out := map[string]string{"file": path, "config": name}
			return c.Print("shoal.config-check/v1", out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is a good %s configuration\n", path, name)
			})
		},
	}
}

// fitsPublisher tells a publisher's file of an unusual name by its keys.
func fitsPublisher(path string) bool {
	_, asAgent := config.Load(defaults("agent"), config.Options{Files: []string{path}, Require: true})
	_, asPublisher := config.Load(defaults("publisher"), config.Options{Files: []string{path}, Require: true})
	return asAgent != nil && asPublisher == nil
}

func newConfigExampleCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "example agent|publisher",
		Short: "Print a configuration file with every key, its default and what it means",
		Example: `  shoal config example agent > agent.yaml
  shoal config example publisher`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := configArg(args)
			if err != nil {
				return err
			}
			text, err := config.Example(defaults(name))
			if err != nil {
				return err
			}
			out := map[string]string{"config": name, "text": string(text)}
			return c.Print("shoal.config-example/v1", out, func(w io.Writer) { w.Write(text) })
		},
	}
}

func newConfigSchemaCmd(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "schema [agent|publisher]",
		Short: "Print the JSON Schema of a configuration file, for editors",
		Example: `  shoal config schema agent
  shoal config schema publisher > publisher.schema.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := configArg(args)
			if err != nil {
				return err
			}
			text, err := config.Schema(defaults(name))
			if err != nil {
				return fault.New(fault.IO, "making the schema: %w", err)
			}
			_, err = c.Data().Write(text)
			return err
		},
	}
}
