// Package publishing gives verbs the publisher's desk: the configured repository and fleet,
// the keys that sign, the flags of what is signed, and the result as it is printed.
package publishing

import (
	"strings"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/config"
	"shoal/publisher"
)

// Config is the publisher's configuration as files, environment and flags
// give it, with its paths and its logger filled in.
func Config(c *cli.CLI) (publisher.Config, error) {
	file := config.DefaultPublisher()
	loaded, err := c.Load("publisher", &file)
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
	cfg.UI.Version = cli.BuildInfo().Version
	cfg.FleetCredentials = c.Getenv("CREDENTIALS_DIRECTORY")
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
	c.PassphraseDefault = cfg.Keys.PassphraseFile
	cfg.Logger = c.ServiceLog(file.Log.Level, file.Log.Format)
	return cfg, nil
}

// Open opens the configured publisher.
func Open(c *cli.CLI) (*publisher.Publisher, error) {
	cfg, err := Config(c)
	if err != nil {
		return nil, err
	}
	return publisher.Open(cfg)
}
