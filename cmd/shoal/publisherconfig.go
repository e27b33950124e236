package main

import (
	"strings"

	"shoal/cmd/shoal/internal/config"
	"shoal/publisher"
)

// publisherConfig is the publisher's configuration as files, environment and flags
// give it, with its paths and its logger filled in.
func (c *cli) publisherConfig() (publisher.Config, error) {
	file := config.DefaultPublisher()
	loaded, err := c.load("publisher", &file)
	if err != nil {
		return publisher.Config{}, err
	}
	if err := file.Log.Check(); err != nil {
		return publisher.Config{}, err
	}
	cfg := file.Config()
	// What a file says is meant beside that file; what a person types now is meant here.
	cfg.Store = loaded.Origins["store"].Beside(cfg.Store)
	cfg.Keys.PassphraseFile = loaded.Origins["keys.passphrase_file"].Beside(cfg.Keys.PassphraseFile)
	cfg.FleetKeyFile = loaded.Origins["fleet_key_file"].Beside(cfg.FleetKeyFile)
	cfg.UI.TokensFile = loaded.Origins["ui.tokens_file"].Beside(cfg.UI.TokensFile)
	cfg.UI.Cert, cfg.UI.Key = loaded.Origins["ui.cert"].Beside(cfg.UI.Cert), loaded.Origins["ui.key"].Beside(cfg.UI.Key)
	cfg.UI.Version = buildInfo().Version
	cfg.FleetCredentials = c.getenv("CREDENTIALS_DIRECTORY")
	cfg.Keys.Beacon = loaded.Origins["keys.beacon"].BesideRef(cfg.Keys.Beacon)
	for i := range cfg.Webhooks {
		cfg.Webhooks[i].SecretFile = loaded.Origins["webhooks"].Beside(cfg.Webhooks[i].SecretFile)
	}
	for i, ref := range cfg.Keys.Release {
		cfg.Keys.Release[i] = loaded.Origins["keys.release"].BesideRef(ref)
	}
	for i, place := range cfg.Mirrors {
		if !strings.Contains(place, "://") {
			cfg.Mirrors[i] = loaded.Origins["mirrors"].Beside(place)
		}
	}
	c.passphraseDefault = cfg.Keys.PassphraseFile
	cfg.Logger = c.serviceLog(file.Log.Level, file.Log.Format)
	return cfg, nil
}
