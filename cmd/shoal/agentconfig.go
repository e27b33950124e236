package main

import (
	"path/filepath"
	"strings"

	"shoal/agent"
	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
	"shoal/swarm"
)

// agentConfig is the agent's configuration as files, environment and flags give it,
// with its places and its logger filled in.
func (c *cli) agentConfig() (agent.Config, error) {
	file := config.DefaultAgent()
	loaded, err := c.load("agent", &file)
	if err != nil {
		return agent.Config{}, err
	}
	if err := checkLog(file.Log); err != nil {
		return agent.Config{}, err
	}
	cfg := agentFromFile(file)
	dir, err := filepath.Abs(c.stateDir())
	if err != nil {
		return agent.Config{}, fault.New(fault.Config, "state directory %q: %w", c.stateDir(), err)
	}
	cfg.StateDir = dir
	cfg.AnchorFile = c.anchorFile(dir)
	cfg.JoinFile = filepath.Join(filepath.Dir(c.configPath("agent")), "join.json")
	if cache, _, _ := strings.Cut(c.getenv("CACHE_DIRECTORY"), ":"); cache != "" && !c.stateDirGiven() {
		cfg.CacheDir = cache
	}
	cfg.FleetKeyFile = beside(loaded.Origins["fleet_key_file"], cfg.FleetKeyFile)
	cfg.FleetCredentials = c.getenv("CREDENTIALS_DIRECTORY")
	build := buildInfo()
	cfg.Version, cfg.Build = build.Version, build.Time
	cfg.Logger = c.serviceLog(file.Log.Level, file.Log.Format)
	cfg.Self.Program, cfg.Self.Check = c.program, c.selfCheckArgs(dir)
	return cfg, nil
}

func agentFromFile(f config.Agent) agent.Config {
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
