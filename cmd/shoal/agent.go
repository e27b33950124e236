package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/internal/fault"
	"shoal/manifest"
)

func newAgentCmd(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep this machine's programs on what their channels ask for",
		Example: `  shoal agent join 'shoal:join?repo=sha256:...' --target /opt/acme/acme
  shoal agent status`,
	}
	cmd.AddCommand(setupCmds(c)...)
	cmd.AddCommand(
		newAgentRunCmd(c), newAgentStatusCmd(c), newAgentPeersCmd(c), newAgentCheckCmd(c), newAgentUpdateCmd(c), newAgentImportCmd(c),
		newAgentExportCmd(c), newAgentRevertCmd(c), newAgentHoldCmd(c), newAgentPauseCmd(c), newAgentResumeCmd(c), newAgentPinCmd(c),
		newAgentUnpinCmd(c), newAgentLogCmd(c), newAgentCacheCmd(c), newAgentUnbanCmd(c), newAgentInitCmd(c),
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
		found, err := followed(cfg, app, channel)
		if err != nil {
			return nil, err
		}
		apps = append(apps, found)
	}
	if len(names) == 0 && f.app != "" {
		found, err := followed(cfg, f.app, "")
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
		app, err := followed(cfg, "", "")
		return app, err
	}
	if len(apps) > 1 {
		return "", usagef("one channel at a time")
	}
	return apps[0], nil
}

// withAgent runs do on this machine's agent: the running one, or one that works for this
// command alone.
func (c *cli) withAgent(ctx context.Context, cfg agent.Config, do func(context.Context, agent.Handle) error) error {
	cfg.Logger = c.log() // a person reads this, not a journal
	ctx, cancel := c.withTimeout(ctx, 0)
	defer cancel()
	h, err := agent.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer h.Close()
	return do(ctx, h)
}

// commanded is the configuration, and the apps of it that the command line means.
func (c *cli) commanded(channel *channelFlags, args []string) (agent.Config, []string, error) {
	cfg, err := c.agentConfig()
	if err != nil {
		return cfg, nil, err
	}
	apps, err := channel.apps(cfg, args)
	return cfg, apps, err
}

// followed is the one app that follows the channel; either name may be empty.
func followed(cfg agent.Config, app, channel string) (string, error) {
	var fit []string
	for _, a := range cfg.Apps {
		if (app == "" || a.Name == app) && (channel == "" || a.Channel == channel) {
			fit = append(fit, a.Name)
		}
	}
	wanted := strings.Trim(app+"/"+channel, "/")
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		if len(cfg.Apps) == 0 {
			return "", fault.New(fault.Config, "no app is configured").Do("shoal agent join LINK --target PATH")
		}
		e := usagef("this machine follows no channel %q", wanted)
		for _, a := range cfg.Apps {
			e.Line("It follows %s/%s.", a.Name, a.Channel)
		}
		return "", e
	}
	if wanted == "" {
		return "", usagef("this machine follows %s", strings.Join(fit, " and ")).Do("say which: APP/CHANNEL")
	}
	return "", usagef("%q means %s", wanted, strings.Join(fit, " and ")).Do("say which: --app APP")
}

// exact is the channel that the plumbing was told in full.
func (f *channelFlags) exact() (manifest.Channel, error) {
	name := f.channel
	if f.app != "" {
		name = f.app + "/" + f.channel
	}
	if f.channel == "" || strings.Count(name, "/") != 1 {
		return manifest.Channel{}, usagef("--app APP and --channel CHANNEL are needed here")
	}
	ch, err := manifest.ParseChannel(name)
	if err != nil {
		return ch, usagef("%w", err)
	}
	return ch, nil
}

// joinFile is where the pin of a joined machine is.
func (c *cli) joinFile() string {
	return filepath.Join(filepath.Dir(c.configPath("agent")), "join.json")
}
