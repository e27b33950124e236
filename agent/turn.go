package agent

import (
	"context"

	"shoal/agent/state"
	"shoal/internal/turn"
)

// OpenToRun is Open for an agent that is to stay. A command that holds the lock of the
// state directory is waited for, 15 s at most: a service must not fail because somebody
// asked how it stands. Beside another agent that runs it fails at once.
func OpenToRun(ctx context.Context, cfg Config) (*Agent, error) {
	return turn.Service(ctx, cfg.StateDir, func() (*Agent, error) { return Open(ctx, cfg) })
}

// openAlone takes the lock of the state directory for a command that changes what an
// agent that runs believes it knows: beside one it fails.
func openAlone(ctx context.Context, cfg Config) (*state.Store, error) {
	return turn.Alone(ctx, cfg.StateDir, func() (*state.Store, error) { return state.Open(cfg.StateDir, cfg.AnchorFile) })
}
