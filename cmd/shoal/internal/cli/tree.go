package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

// AddGroup adds cmds to root below a title of its help, in the order given and not in the
// alphabet's. id names the group.
func AddGroup(root *cobra.Command, id, title string, cmds ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for i, cmd := range cmds {
		cmd.GroupID = id
		if cmd.Annotations == nil {
			cmd.Annotations = map[string]string{}
		}
		cmd.Annotations[helpOrder] = fmt.Sprintf("%03d", i)
		root.AddCommand(cmd)
	}
}

// Frame makes root, whose commands are all there, the command of this invocation: with the
// flags that every command has, its own help and its own errors.
func (c *CLI) Frame(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		c.current = cmd
		return c.checkGlobalFlags()
	}
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	root.SetHelpFunc(writeHelp)
	root.SetUsageFunc(func(*cobra.Command) error { return nil })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err) })
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelpCmd())
	c.addGlobalFlags(root)
	c.finish(root)
}

func (c *CLI) addGlobalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&c.flags.config, "config", "", "configuration `FILE`, instead of the usual places")
	f.StringVar(&c.flags.state, "state", "", "state directory `DIR`, instead of the usual place")
	f.VarP(&c.flags.output, "output", "o", "text, json, jsonl or yaml")
	f.BoolVarP(&c.flags.quiet, "quiet", "q", false, "say only what went wrong")
	f.BoolVarP(&c.flags.verbose, "verbose", "v", false, "log details")
	f.BoolVar(&c.flags.noColor, "no-color", false, "no colours, no moving bars")
	f.BoolVar(&c.flags.yes, "yes", false, "answer every question with yes")
	f.Var(&c.flags.timeout, "timeout", "give up after this long")
	f.StringVar(&c.flags.logLevel, "log-level", "", "log at this `LEVEL`: debug, info, warn or error")
	f.StringVar(&c.flags.logFormat, "log-format", "", "log in this `FORMAT`: auto, text or json")
}

func (c *CLI) checkGlobalFlags() error {
	if _, err := config.ParseLevel(c.flags.logLevel); err != nil {
		return Usagef("--log-level: %w", err)
	}
	if err := config.CheckLogFormat(c.flags.logFormat); err != nil {
		return Usagef("--log-format: %w", err)
	}
	return nil
}

// finish gives cmd and every command below it what all have in common: a mark when its
// own code begins, an answer to a wrong word after a group, the channels to complete.
func (c *CLI) finish(cmd *cobra.Command) {
	if cmd.RunE == nil && cmd.HasSubCommands() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		}
	}
	if body := cmd.RunE; body != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c.started = true
			return body(cmd, args)
		}
	}
	if cmd.Flags().Lookup("channel") != nil {
		if err := cmd.RegisterFlagCompletionFunc("channel", c.CompleteChannels); err != nil {
			cmd.PreRunE = func(*cobra.Command, []string) error { return err } // registered twice: no test passes
		}
	}
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Hidden = true // "shoal --help" says that every command has it
	for _, child := range cmd.Commands() {
		c.finish(child)
	}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	e := fault.New(fault.Usage, "unknown command %q for %q", word, cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2 // letters apart
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		e.Message += fmt.Sprintf(": did you mean %q?", strings.Join(s, `" or "`))
	}
	return e.Do("%s --help", cmd.CommandPath())
}
