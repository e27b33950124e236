package main

import (
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/config"
)

func newCompletionCmd(c *cli) *cobra.Command {
	shells := map[string]func(root *cobra.Command, w io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":        func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) },
	}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes shoal's commands in your shell",
		Example: `  source <(shoal completion bash)
  shoal completion fish > ~/.config/fish/completions/shoal.fish`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := shells[args[0]]
			if !ok {
				return usagef("%q is not bash, zsh, fish or powershell", args[0])
			}
			return generate(cmd.Root(), c.std.out)
		},
	}
}

// completeChannels offers the channels that this machine's configuration names.
func (c *cli) completeChannels(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	publisher := config.DefaultPublisher()
	if _, err := c.load("publisher", &publisher); err == nil {
		for _, ch := range publisher.Channels {
			names = append(names, ch.Name)
		}
	}
	agent := config.DefaultAgent()
	if _, err := c.load("agent", &agent); err == nil {
		for _, app := range agent.Apps {
			names = append(names, app.Name+"/"+app.Channel)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
