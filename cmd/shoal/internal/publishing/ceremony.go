package publishing

import (
	"context"

	"shoal/cmd/shoal/internal/cli"
	"shoal/manifest"
	"shoal/publisher"
	"shoal/publisher/ceremony"
)

// Fleet is that of the configured repository.
func Fleet(ctx context.Context, c *cli.CLI) (*ceremony.Fleet, error) {
	cfg, err := Config(c)
	if err != nil {
		return nil, err
	}
	return Source(cfg, nil).Open(ctx, false)
}

// Source is the configured repository.
func Source(cfg publisher.Config, pin *manifest.Digest) ceremony.Source {
	return ceremony.Source{Store: cfg.Store, Places: cfg.Places(), Transport: cfg.Transport(), Pin: pin, Clock: cfg.Clock}
}
