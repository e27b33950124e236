package main

import "github.com/spf13/cobra"

// setupCmds are the verbs of "shoal agent" that make a machine one of a fleet and end it.
func setupCmds(c *cli) []*cobra.Command {
	return []*cobra.Command{newAgentJoinCmd(c), newAgentInstallCmd(c), newAgentUninstallCmd(c), newAgentLeaveCmd(c)}
}
