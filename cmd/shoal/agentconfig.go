package main

import (
	"path/filepath"
	"strings"

	"shoal/agent"
	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

// agentConfig is the agent's configuration as files, environment and flags give it,
// with its places and its logger filled in.
func (c *cli) agentConfig() (agent.Config, error) {
	file := config.DefaultAgent()
	loaded, err := c.load("agent", &file)
	if err != nil {
		return agent.Config{}, err
	}
	if err := file.Log.Check(); err != nil {
		return agent.Config{}, err
	}
	cfg := file.Config()
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
	cfg.FleetKeyFile = loaded.Origins["fleet_key_file"].Beside(cfg.FleetKeyFile)
	cfg.FleetCredentials = c.getenv("CREDENTIALS_DIRECTORY")
	build := buildInfo()
	cfg.Version, cfg.Build = build.Version, build.Time
	cfg.Logger = c.serviceLog(file.Log.Level, file.Log.Format)
	cfg.Self.Program, cfg.Self.Check = c.program, c.selfCheckArgs(dir)
	return cfg, nil
}
