package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"shoal/cmd/shoal/internal/config"
)

// configKey is the annotation of flags that set a key of the configuration.
const configKey = "shoal-config-key"

// configFlag says that a flag of cmd, when given, sets a key of the configuration.
func configFlag(cmd *cobra.Command, flag, key string) {
	if err := cmd.Flags().SetAnnotation(flag, configKey, []string{key}); err != nil {
		// Only a flag that does not exist gets here, and then no test would pass.
		cmd.PreRunE = func(*cobra.Command, []string) error { return err }
	}
}

// load reads the configuration called name ("agent" or "publisher") into out, which
// holds the defaults. --config and SHOAL_CONFIG replace the usual places.
func (c *cli) load(name string, out any) (*config.Loaded, error) {
	opts := config.Options{Getenv: c.getenv}
	if c.current != nil {
		c.current.Flags().VisitAll(func(f *pflag.Flag) {
			if key := f.Annotations[configKey]; len(key) == 1 {
				opts.Flags = append(opts.Flags, config.Bound{Key: key[0], Flag: f})
			}
		})
	}
	if file := c.configFlagFile(); file != "" {
		opts.Files, opts.Require = []string{file}, !c.makesConfig
	} else {
		for _, p := range config.Paths(name, runtime.GOOS, c.getenv) {
			opts.Files = append(opts.Files, p.File)
		}
	}
	return config.Load(out, opts)
}

func (c *cli) configFlagFile() string {
	if c.flags.config != "" {
		return c.flags.config
	}
	return c.getenv("SHOAL_CONFIG")
}

// configPath is the file that a command which writes configuration writes: --config,
// else the system's for root, else the user's own.
func (c *cli) configPath(name string) string {
	if file := c.configFlagFile(); file != "" {
		return file
	}
	dir := config.UserDir(runtime.GOOS, c.getenv)
	if dir == "" || os.Geteuid() == 0 {
		dir = config.SystemDir(runtime.GOOS, c.getenv)
	}
	return filepath.Join(dir, name+".yaml")
}

// stateDir is the agent's state directory.
func (c *cli) stateDir() string { return stateDirOf(c.flags.state, c.getenv) }

// stateDirOf is the agent's state directory by what --state says, if anything.
func stateDirOf(flag string, getenv func(string) string) string {
	if flag != "" {
		return flag
	}
	if dir := getenv("SHOAL_STATE"); dir != "" {
		return dir
	}
	if first, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":"); first != "" {
		return first
	}
	system := "/var/lib/shoal"
	switch runtime.GOOS {
	case "windows":
		system = filepath.Join(getenv("ProgramData"), "shoal", "state")
	case "darwin":
		system = "/Library/Application Support/shoal/state"
	}
	if os.Geteuid() == 0 {
		return system
	}
	if _, err := os.Stat(system); err == nil {
		return system // this machine's agent, even where only root may read it
	}
	if base := getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "shoal")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "shoal")
	}
	return system
}

// stateDirGiven reports whether someone chose the state directory, as opposed to it
// being the one of this machine's service.
func (c *cli) stateDirGiven() bool { return c.flags.state != "" || c.getenv("SHOAL_STATE") != "" }

// anchorFile is the second copy of what is trusted: inside a chosen state directory,
// else apart from it, so that both are not lost to one mistake.
func (c *cli) anchorFile(stateDir string) string {
	const service = "/var/lib/shoal-anchor"
	if _, err := os.Stat(service); c.stateDirGiven() || runtime.GOOS != "linux" || (err != nil && os.Geteuid() != 0) {
		return filepath.Join(stateDir, "anchor.json")
	}
	sum := sha256.Sum256([]byte(stateDir))
	return filepath.Join(service, hex.EncodeToString(sum[:])[:16]+".json")
}
