// Package setupcmd has the verbs that make a machine one of a fleet, and end it: shoal agent
// join, install, uninstall and leave. Configuration that a person wrote is added to, and
// never taken away.
package setupcmd

import (
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
)

// Commands are the verbs of "shoal agent" that make a machine one of a fleet and end it.
func Commands(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{newJoinCmd(c), newInstallCmd(c), newUninstallCmd(c), newLeaveCmd(c)}
}
