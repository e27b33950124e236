package config

import (
	"os"
	"slices"

	"shoal/agent"
	"shoal/publisher"
	"shoal/publisher/hook"
	"shoal/publisher/rollout"
	"shoal/swarm"
)

// Config is what the file asks of an agent. What no file says is left empty: the
// places of its state, its clock and its logger.
func (f Agent) Config() agent.Config {
	cfg := agent.Config{
		FleetID: f.FleetID, FleetKeyFile: f.FleetKeyFile, Listen: f.Listen, Peers: f.Peers, Trackers: f.Trackers, Time: f.Time,
		Sources:  agent.Sources{Publisher: f.Sources.Publisher, Mirrors: f.Sources.Mirrors, LAN: swarm.LAN(f.Sources.LAN)},
		Check:    agent.CheckConfig{Every: f.Check.Every.Duration(), Jitter: f.Check.Jitter.Share()},
		Disk:     agent.Disk{Cache: f.Disk.Cache.Bytes(), Reserve: f.Disk.Reserve.Bytes()},
		Reports:  agent.ReportsConfig{Disabled: !f.Reports.Enabled, To: f.Reports.To, Every: f.Reports.Every.Duration()},
		Prefetch: f.Prefetch, SeedAfterUpdate: f.SeedAfterUpdate.Duration(),
		Self: agent.SelfConfig{Settle: f.Settle.Duration()},
		Limits: agent.Limits{
			Up: f.Limits.Up.Bytes(), Down: f.Limits.Down.Bytes(),
			LANUp: f.Limits.LANUp.Bytes(), LANDown: f.Limits.LANDown.Bytes(), Peers: f.Limits.Peers,
		},
	}
	for _, l := range f.Labels {
		cfg.Labels = append(cfg.Labels, agent.Label(l))
	}
	for _, a := range f.Apps {
		cfg.Apps = append(cfg.Apps, agent.AppConfig{
			Name: a.Name, Channel: a.Channel, Target: a.Target, Kind: a.Kind, Variant: a.Variant,
			Service: agent.ServiceConfig{
				Systemd: a.Service.Systemd, Launchd: a.Service.Launchd, Windows: a.Service.Windows,
				Command: agent.ServiceCommand(a.Service.Command),
			},
			Health: agent.HealthConfig{
				Type: a.Health.Type, Command: a.Health.Command, URL: a.Health.URL, Address: a.Health.Address,
				Timeout: a.Health.Timeout.Duration(), Interval: a.Health.Interval.Duration(),
				Successes: a.Health.Successes, Require: a.Health.Require,
			},
			Installer: agent.InstallerConfig{
				Command: a.Installer.Command, Revert: a.Installer.Revert, Success: a.Installer.Success,
				RetryLater: a.Installer.RetryLater, Idempotent: a.Installer.Idempotent, Timeout: a.Installer.Timeout.Duration(),
			},
			Hooks: agent.HooksConfig{
				Pre: a.Hooks.Pre, Post: a.Hooks.Post, OnRevert: a.Hooks.OnRevert, Timeout: a.Hooks.Timeout.Duration(),
			},
			Keep: a.Keep, Windows: a.Windows, Swap: a.Swap,
			RefuseInstall: !a.AllowInstall, AllowInsecureDir: a.AllowInsecureDir,
		})
	}
	return cfg
}

// Config is what the file asks of a publisher, with paths as they stand in it.
func (f Publisher) Config() publisher.Config {
	cfg := publisher.Config{
		App: f.App, Store: f.Store, Mirrors: slices.Clone(f.Mirrors), FleetKeyFile: f.FleetKeyFile, Approve: f.Approve,
		Keys: publisher.KeysConfig{Release: append([]string(nil), f.Keys.Release...), Beacon: f.Keys.Beacon, PassphraseFile: f.Keys.PassphraseFile},
		UI:   publisher.UIConfig{Disabled: !f.UI.Enabled, TokensFile: f.UI.TokensFile, Cert: f.UI.Cert, Key: f.UI.Key},
		Serve: publisher.ServeConfig{
			Listen: f.Serve.Listen, Swarm: f.Serve.Swarm, PublicURL: f.Serve.PublicURL, Up: f.Serve.Up.Bytes(),
			TLS: f.Serve.TLS, OpenData: f.Serve.OpenData, LAN: swarm.LAN(f.Serve.LAN),
		},
	}
	for _, h := range f.Webhooks {
		cfg.Webhooks = append(cfg.Webhooks, hook.Config(h))
	}
	for _, ch := range f.Channels {
		cfg.Channels = append(cfg.Channels, publisher.ChannelConfig{
			Name: ch.Name, Expires: ch.Expires.Duration(), Rollout: planFrom(ch.Rollout),
		})
	}
	return cfg
}

func planFrom(r Rollout) rollout.Plan {
	return rollout.Plan{Waves: slices.Clone(r.Waves), Soak: r.Soak.Duration(), StopAtFailed: r.StopAtFailed.Whole()}
}

// Validate asks the room that a configuration is for whether its values make sense. cfg
// points to an [Agent] or a [Publisher].
func Validate(cfg any) error {
	switch file := cfg.(type) {
	case *Agent:
		a := file.Config()
		a.StateDir = os.TempDir() // not part of the file
		if _, err := a.WithDefaults(); err != nil {
			return err
		}
		return file.Log.Check()
	case *Publisher:
		p := file.Config()
		if err := p.Validate(); err != nil {
			return err
		}
		return file.Log.Check()
	}
	return nil
}
