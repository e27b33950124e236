package main

import (
	"context"

	"shoal/agent"
)

// askAgent puts one question about this machine's agent, as the configuration has it, and
// waits for the answer no longer than --timeout says.
func askAgent[T any](ctx context.Context, c *cli, question func(context.Context, agent.Config) (T, error)) (T, error) {
	cfg, err := c.agentConfig()
	if err != nil {
		var none T
		return none, err
	}
	cfg.Logger = c.log() // a person reads this, not a journal
	ctx, cancel := c.withTimeout(ctx, 0)
	defer cancel()
	return question(ctx, cfg)
}
