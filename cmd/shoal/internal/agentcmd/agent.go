// Package agentcmd has the verbs of this machine's agent: shoal agent. Those that make the
// machine one of a fleet are in setupcmd, and what the agent does with a new version of
// itself is in selfcmd.
package agentcmd

import (
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/agentcmd/setupcmd"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/manifest"
)

// New is shoal agent.
func New(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep this machine's programs on what their channels ask for",
		Example: `  shoal agent join 'shoal:join?repo=sha256:...' --target /opt/acme/acme
  shoal agent status`,
	}
	cmd.AddCommand(setupcmd.Commands(c)...)
	cmd.AddCommand(
		newRunCmd(c), newStatusCmd(c), newPeersCmd(c), newCheckCmd(c), newUpdateCmd(c), newImportCmd(c),
		newExportCmd(c), newRevertCmd(c), newHoldCmd(c), newPauseCmd(c), newResumeCmd(c), newPinCmd(c),
		newUnpinCmd(c), newLogCmd(c), newCacheCmd(c), newUnbanCmd(c), newInitCmd(c),
	)
	return cmd
}

// channelFlags name a channel as the plumbing does: by argument, or by --app and
// --channel.
type channelFlags struct{ app, channel string }

func (f *channelFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.app, "app", "", "the `APP`, where several are followed")
	cmd.Flags().StringVar(&f.channel, "channel", "", "the `CHANNEL`, or APP/CHANNEL")
}

// apps are the followed apps that flags and arguments mean, by name; none for all.
func (f *channelFlags) apps(cfg agent.Config, args []string) ([]string, error) {
	names := args
	if f.channel != "" {
		names = append(names, f.channel)
	}
	var apps []string
	for _, name := range names {
		app, channel, both := strings.Cut(name, "/")
		if !both {
			app, channel = f.app, name
		}
		found, err := machine.Followed(cfg, app, channel)
		if err != nil {
			return nil, err
		}
		apps = append(apps, found)
	}
	if len(names) == 0 && f.app != "" {
		found, err := machine.Followed(cfg, f.app, "")
		if err != nil {
			return nil, err
		}
		apps = append(apps, found)
	}
	return apps, nil
}

// one is the followed app that flags and arguments mean, where it can only be one.
func (f *channelFlags) one(cfg agent.Config, args []string) (string, error) {
	apps, err := f.apps(cfg, args)
	if err != nil {
		return "", err
	}
	if len(apps) == 0 {
		app, err := machine.Followed(cfg, "", "")
		return app, err
	}
	if len(apps) > 1 {
		return "", cli.Usagef("one channel at a time")
	}
	return apps[0], nil
}

// commanded is the configuration, and the apps of it that the command line means.
func commanded(c *cli.CLI, channel *channelFlags, args []string) (agent.Config, []string, error) {
	cfg, err := machine.Config(c)
	if err != nil {
		return cfg, nil, err
	}
	apps, err := channel.apps(cfg, args)
	return cfg, apps, err
}

// exact is the channel that the plumbing was told in full.
func (f *channelFlags) exact() (manifest.Channel, error) {
	name := f.channel
	if f.app != "" {
		name = f.app + "/" + f.channel
	}
	if f.channel == "" || strings.Count(name, "/") != 1 {
		return manifest.Channel{}, cli.Usagef("--app APP and --channel CHANNEL are needed here")
	}
	ch, err := manifest.ParseChannel(name)
	if err != nil {
		return ch, cli.Usagef("%w", err)
	}
	return ch, nil
}
