package main

import (
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/agentcmd"
	"shoal/cmd/shoal/internal/agentcmd/selfcmd"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/deliverycmd"
	"shoal/cmd/shoal/internal/fleetcmd"
	"shoal/cmd/shoal/internal/lookcmd"
	"shoal/cmd/shoal/internal/releasecmd"
	"shoal/cmd/shoal/internal/rolloutcmd"
	"shoal/cmd/shoal/internal/trustcmd"
)

// newRoot puts the whole command together: everyday words first, ceremony words apart.
func newRoot(c *cli.CLI) *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Signed software updates that spread machine to machine",
		Example: `  shoal init --app acme --channel stable
  shoal publish --version 1.0.0 ./dist/acme-*`,
		RunE: func(*cobra.Command, []string) error { return lookcmd.Welcome(c) },
	}
	cli.AddGroup(root, "everyday", "Publishing",
		releasecmd.Init(c), releasecmd.Publish(c), deliverycmd.Serve(c), fleetcmd.New(c),
		rolloutcmd.New(c), releasecmd.Release(c), trustcmd.Channel(c), deliverycmd.Link(c),
		deliverycmd.Bundle(c), deliverycmd.Mirror(c),
	)
	cli.AddGroup(root, "machine", "On each machine",
		agentcmd.New(c), deliverycmd.Fetch(c), deliverycmd.Seed(c), selfcmd.Check(c),
		selfcmd.Recover(c),
	)
	cli.AddGroup(root, "ceremony", "Keys and trust",
		trustcmd.Keys(c), trustcmd.Trust(c), trustcmd.Manifest(c),
	)
	cli.AddGroup(root, "tools", "Looking around",
		lookcmd.Demo(c), lookcmd.Verify(c), lookcmd.Doctor(c), lookcmd.Explain(c), lookcmd.Config(c),
		lookcmd.Completion(c), lookcmd.Version(c),
	)
	c.Frame(root)
	root.SetHelpCommandGroupID("tools")
	return root
}
