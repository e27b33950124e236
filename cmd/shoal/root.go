package main

import "github.com/spf13/cobra"

// newRootCmd puts the whole command together: everyday words first, ceremony words apart.
func newRootCmd(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Signed software updates that spread machine to machine",
		Example: `  shoal init --app acme --channel stable
  shoal publish --version 1.0.0 ./dist/acme-*`,
		RunE: func(*cobra.Command, []string) error { return c.welcome() },
	}
	addGroup(root, "everyday", "Publishing", newInitCmd(c), newPublishCmd(c), newServeCmd(c), newFleetCmd(c), newRolloutCmd(c), newReleaseCmd(c), newChannelCmd(c), newLinkCmd(c), newBundleCmd(c), newMirrorCmd(c))
	addGroup(root, "machine", "On each machine", newAgentCmd(c), newFetchCmd(c), newSeedCmd(c), newSelfCheckCmd(c), newRecoverSelfCmd(c))
	addGroup(root, "ceremony", "Keys and trust", newKeysCmd(c), newTrustCmd(c), newManifestCmd(c))
	addGroup(root, "tools", "Looking around", newDemoCmd(c), newVerifyCmd(c), newDoctorCmd(c), newExplainCmd(c), newConfigCmd(c), newCompletionCmd(c), newVersionCmd(c))
	c.frame(root)
	root.SetHelpCommandGroupID("tools")
	return root
}
