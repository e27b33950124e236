// Package machine gives verbs the agent of the machine they run on: its configuration as
// files, environment and flags give it, the running agent or one for this command alone,
// and its progress as lines.
package machine

import (
	"path/filepath"
	"strings"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/config"
	"shoal/internal/fault"
)

// Config is the agent's configuration as files, environment and flags give it,
// with its places and its logger filled in.
func Config(c *cli.CLI) (agent.Config, error) {
	file := config.DefaultAgent()
	loaded, err := c.Load("agent", &file)
	if err != nil {
		return agent.Config{}, err
	}
	if err := file.Log.Check(); err != nil {
		return agent.Config{}, err
	}
	cfg := file.Config()
	dir, err := filepath.Abs(c.StateDir())
	if err != nil {
		return agent.Config{}, fault.New(fault.Config, "state directory %q: %w", c.StateDir(), err)
	}
	cfg.StateDir = dir
	cfg.AnchorFile = c.AnchorFile(dir)
	cfg.JoinFile = c.JoinFile()
	if cache, _, _ := strings.Cut(c.Getenv("CACHE_DIRECTORY"), ":"); cache != "" && !c.StateDirGiven() {
		cfg.CacheDir = cache
	}
	cfg.FleetKeyFile = loaded.Origins["fleet_key_file"].Beside(cfg.FleetKeyFile)
	cfg.FleetCredentials = c.Getenv("CREDENTIALS_DIRECTORY")
	build := cli.BuildInfo()
	cfg.Version, cfg.Build = build.Version, build.Time
	cfg.Logger = c.ServiceLog(file.Log.Level, file.Log.Format)
	cfg.Self.Program, cfg.Self.Check = c.Program, selfCheckArgs(c, dir)
	return cfg, nil
}

// selfCheckArgs are the arguments with which a new version of this agent is tried: those
// that made this one find its configuration and its state.
func selfCheckArgs(c *cli.CLI, stateDir string) []string {
	args := []string{"self-check", "-o", "json"}
	if file := c.ConfigFlagFile(); file != "" {
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
		args = append(args, "--config", file)
	}
	if c.StateDirGiven() {
		args = append(args, "--state", stateDir)
	}
	return args
}
