package cli

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

// JoinFile is where the pin of a joined machine is.
func (c *CLI) JoinFile() string {
	return filepath.Join(filepath.Dir(c.ConfigPath("agent")), "join.json")
}

// configKey is the annotation of flags that set a key of the configuration.
const configKey = "shoal-config-key"

// ConfigFlag says that a flag of cmd, when given, sets a key of the configuration.
func ConfigFlag(cmd *cobra.Command, flag, key string) {
	if err := cmd.Flags().SetAnnotation(flag, configKey, []string{key}); err != nil {
		// Only a flag that does not exist gets here, and then no test would pass.
		cmd.PreRunE = func(*cobra.Command, []string) error { return err }
	}
}

// Load reads the configuration called name ("agent" or "publisher") into out, which
// holds the defaults. --config and SHOAL_CONFIG replace the usual places.
func (c *CLI) Load(name string, out any) (*config.Loaded, error) {
	opts := config.Options{Getenv: c.Getenv}
	if c.current != nil {
		c.current.Flags().VisitAll(func(f *pflag.Flag) {
			if key := f.Annotations[configKey]; len(key) == 1 {
				opts.Flags = append(opts.Flags, config.Bound{Key: key[0], Flag: f})
			}
		})
	}
	if file := c.ConfigFlagFile(); file != "" {
		opts.Files, opts.Require = []string{file}, !c.MakesConfig
	} else {
		for _, p := range config.Paths(name, runtime.GOOS, c.Getenv) {
			opts.Files = append(opts.Files, p.File)
		}
	}
	return config.Load(out, opts)
}

// ConfigFlagFile is the one configuration file that a person named, by --config or
// SHOAL_CONFIG; empty where nobody did.
func (c *CLI) ConfigFlagFile() string {
	if c.flags.config != "" {
		return c.flags.config
	}
	return c.Getenv("SHOAL_CONFIG")
}

// ConfigPath is the file that a command which writes configuration writes: --config,
// else the system's for root, else the user's own.
func (c *CLI) ConfigPath(name string) string {
	if file := c.ConfigFlagFile(); file != "" {
		return file
	}
	dir := config.UserDir(runtime.GOOS, c.Getenv)
	if dir == "" || os.Geteuid() == 0 {
		dir = config.SystemDir(runtime.GOOS, c.Getenv)
	}
	return filepath.Join(dir, name+".yaml")
}

// StateDir is the agent's state directory.
func (c *CLI) StateDir() string { return StateDirOf(c.flags.state, c.Getenv) }

// StateDirOf is the agent's state directory by what --state says, if anything.
func StateDirOf(flag string, getenv func(string) string) string {
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

// StateDirGiven reports whether someone chose the state directory, as opposed to it
// being the one of this machine's service.
func (c *CLI) StateDirGiven() bool { return c.flags.state != "" || c.Getenv("SHOAL_STATE") != "" }

// AnchorFile is the second copy of what is trusted: inside a chosen state directory,
// else apart from it, so that both are not lost to one mistake.
func (c *CLI) AnchorFile(stateDir string) string {
	const service = "/var/lib/shoal-anchor"
	if _, err := os.Stat(service); c.StateDirGiven() || runtime.GOOS != "linux" || (err != nil && os.Geteuid() != 0) {
		return filepath.Join(stateDir, "anchor.json")
	}
	sum := sha256.Sum256([]byte(stateDir))
	return filepath.Join(service, hex.EncodeToString(sum[:])[:16]+".json")
}
