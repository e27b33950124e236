package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

// Groups of commands in the help text: everyday words first, ceremony words apart.
const (
	groupEveryday = "everyday"
	groupMachine  = "machine"
	groupCeremony = "ceremony"
	groupTools    = "tools"
)

// newRootCmd builds the whole command tree. Each verb has a file of its own.
func newRootCmd(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Signed software updates that spread machine to machine",
		Example: `  shoal init --app acme --channel stable
  shoal publish --version 1.0.0 ./dist/acme-*`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return c.welcome() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			c.current = cmd
			return c.checkGlobalFlags()
		},
	}
	c.addGlobalFlags(root)
	root.AddGroup(
		&cobra.Group{ID: groupEveryday, Title: "Publishing"},
		&cobra.Group{ID: groupMachine, Title: "On each machine"},
		&cobra.Group{ID: groupCeremony, Title: "Keys and trust"},
		&cobra.Group{ID: groupTools, Title: "Looking around"},
	)
	addGroup(root, groupEveryday, newInitCmd(c), newPublishCmd(c), newServeCmd(c), newFleetCmd(c), newRolloutCmd(c), newReleaseCmd(c), newChannelCmd(c), newLinkCmd(c), newBundleCmd(c), newMirrorCmd(c))
	addGroup(root, groupMachine, newAgentCmd(c), newFetchCmd(c), newSeedCmd(c), newSelfCheckCmd(c), newRecoverSelfCmd(c))
	addGroup(root, groupCeremony, newKeysCmd(c), newTrustCmd(c), newManifestCmd(c))
	addGroup(root, groupTools, newDemoCmd(c), newVerifyCmd(c), newDoctorCmd(c), newExplainCmd(c), newConfigCmd(c), newCompletionCmd(c), newVersionCmd(c))
	finish(c, root)
	return root
}

func addGroup(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for i, cmd := range cmds {
		cmd.GroupID = group
		if cmd.Annotations == nil {
			cmd.Annotations = map[string]string{}
		}
		cmd.Annotations[helpOrder] = fmt.Sprintf("%03d", i) // the order given, not the alphabet's
		root.AddCommand(cmd)
	}
}

func (c *cli) addGlobalFlags(root *cobra.Command) {
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

func (c *cli) checkGlobalFlags() error {
	if _, err := config.ParseLevel(c.flags.logLevel); err != nil {
		return usagef("--log-level: %w", err)
	}
	if err := config.CheckLogFormat(c.flags.logFormat); err != nil {
		return usagef("--log-format: %w", err)
	}
	return nil
}

// finish gives every command of the tree what all have in common: a mark when its
// own code begins, an answer to a wrong word after a group, the help layout.
func finish(c *cli, cmd *cobra.Command) {
	if cmd.RunE == nil && cmd.HasSubCommands() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		}
	}
	if !cmd.HasParent() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		}
		cmd.SetHelpFunc(writeHelp)
		cmd.SetUsageFunc(func(*cobra.Command) error { return nil })
		cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err) })
		cmd.CompletionOptions.DisableDefaultCmd = true
		cmd.SetHelpCommand(newHelpCmd())
	}
	if body := cmd.RunE; body != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c.started = true
			return body(cmd, args)
		}
	}
	if cmd.Flags().Lookup("channel") != nil {
		if err := cmd.RegisterFlagCompletionFunc("channel", c.completeChannels); err != nil {
			cmd.PreRunE = func(*cobra.Command, []string) error { return err } // registered twice: no test passes
		}
	}
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Hidden = true // "shoal --help" says that every command has it
	for _, child := range cmd.Commands() {
		finish(c, child)
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
