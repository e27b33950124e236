package publishing

import (
	"context"

	"shoal/cmd/shoal/internal/cli"
	"shoal/publisher/fleet"
)

// WithReports does something with what the fleet reported.
func WithReports(ctx context.Context, c *cli.CLI, do func(fleet.Fleet) error) error {
	p, err := Open(c)
	if err != nil {
		return err
	}
	store, err := p.FleetConfig()
	if err != nil {
		return err
	}
	f, err := fleet.Connect(ctx, store)
	if err != nil {
		return err
	}
	err = do(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// EachAgent calls do with every machine that q asks for.
func EachAgent(ctx context.Context, f fleet.Fleet, q fleet.Query, do func(*fleet.Agent) error) error {
	for {
		page, err := f.Agents(ctx, q)
		if err != nil {
			return err
		}
		for _, a := range page.Agents {
			if err := do(a); err != nil {
				return err
			}
		}
		if q.After = page.Next; q.After == "" {
			return nil
		}
	}
}
