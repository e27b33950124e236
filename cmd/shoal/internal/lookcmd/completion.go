package lookcmd

import (
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
)

// Completion is shoal completion.
func Completion(c *cli.CLI) *cobra.Command {
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
				return cli.Usagef("%q is not bash, zsh, fish or powershell", args[0])
			}
			return generate(cmd.Root(), c.Std.Out)
		},
	}
}
