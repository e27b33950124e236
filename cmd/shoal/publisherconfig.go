package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
	"shoal/publisher"
	"shoal/publisher/hook"
	"shoal/publisher/rollout"
	"shoal/swarm"
)

// publisherConfig is the publisher's configuration as files, environment and flags
// give it, with its paths and its logger filled in.
func (c *cli) publisherConfig() (publisher.Config, error) {
	file := config.DefaultPublisher()
	loaded, err := c.load("publisher", &file)
	if err != nil {
		return publisher.Config{}, err
	}
	if err := checkLog(file.Log); err != nil {
		return publisher.Config{}, err
	}
	cfg := publisherFromFile(file)
	// What a file says is meant beside that file; what a person types now is meant here.
	cfg.Store = beside(loaded.Origins["store"], cfg.Store)
	cfg.Keys.PassphraseFile = beside(loaded.Origins["keys.passphrase_file"], cfg.Keys.PassphraseFile)
	cfg.FleetKeyFile = beside(loaded.Origins["fleet_key_file"], cfg.FleetKeyFile)
	cfg.UI.TokensFile = beside(loaded.Origins["ui.tokens_file"], cfg.UI.TokensFile)
	cfg.UI.Cert, cfg.UI.Key = beside(loaded.Origins["ui.cert"], cfg.UI.Cert), beside(loaded.Origins["ui.key"], cfg.UI.Key)
	cfg.UI.Version = buildInfo().Version
	cfg.FleetCredentials = c.getenv("CREDENTIALS_DIRECTORY")
	cfg.Keys.Beacon = refBeside(loaded.Origins["keys.beacon"], cfg.Keys.Beacon)
	for i := range cfg.Webhooks {
		cfg.Webhooks[i].SecretFile = beside(loaded.Origins["webhooks"], cfg.Webhooks[i].SecretFile)
	}
	for i, ref := range cfg.Keys.Release {
		cfg.Keys.Release[i] = refBeside(loaded.Origins["keys.release"], ref)
	}
	for i, place := range cfg.Mirrors {
		if !strings.Contains(place, "://") {
			cfg.Mirrors[i] = beside(loaded.Origins["mirrors"], place)
		}
	}
	c.passphraseDefault = cfg.Keys.PassphraseFile
	cfg.Logger = c.serviceLog(file.Log.Level, file.Log.Format)
	return cfg, nil
}

func publisherFromFile(f config.Publisher) publisher.Config {
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

func planFrom(r config.Rollout) rollout.Plan {
	return rollout.Plan{Waves: slices.Clone(r.Waves), Soak: r.Soak.Duration(), StopAtFailed: wholePercent(r.StopAtFailed)}
}

// wholePercent is p in percent: a plan takes whole ones, and a part is cut off, since to
// stop early is the careful side.
func wholePercent(p units.Percent) int {
	if p == 0 {
		return 0
	}
	return max(1, int(p.Share()*100+1e-9))
}

// beside makes a path that a configuration file says absolute: it is meant from that
// file's directory.
func beside(o config.Origin, path string) string {
	if o.Kind != "file" || path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(o.File()), path)
}

// refBeside is beside for the path within a key reference.
func refBeside(o config.Origin, ref string) string {
	scheme, path, ok := strings.Cut(ref, ":")
	switch {
	case !ok:
		return beside(o, ref)
	case scheme == "file", scheme == "agent" && strings.HasSuffix(path, ".pub"):
		return scheme + ":" + beside(o, path)
	case runtime.GOOS == "windows" && len(scheme) == 1: // a drive
		return beside(o, ref)
	}
	return ref
}

func checkLog(l config.Log) error {
	if _, err := parseLevel(l.Level); err != nil {
		return fault.New(fault.Config, "log.level: %w", err)
	}
	if err := checkLogFormat(l.Format); err != nil {
		return fault.New(fault.Config, "log.format: %w", err)
	}
	return nil
}

// checkMeaning asks the room a configuration is for whether its values make sense.
func (c *cli) checkMeaning(cfg any) error {
	switch file := cfg.(type) {
	case *config.Agent:
		a := agentFromFile(*file)
		a.StateDir = os.TempDir() // not part of the file
		_, err := a.WithDefaults()
		if err == nil {
			err = checkLog(file.Log)
		}
		return err
	case *config.Publisher:
		p := publisherFromFile(*file)
		if err := p.Validate(); err != nil {
			return err
		}
		return checkLog(file.Log)
	}
	return nil
}
