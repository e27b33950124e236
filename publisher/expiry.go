package publisher

import (
	"context"
	"fmt"
	"time"

	"shoal/publisher/fleet"
	"shoal/publisher/hook"
)

const expiryEvery = time.Hour // between two looks at the dates

// expirySteps are how long before a document runs out people are told, once each; 0 is when
// it has.
var expirySteps = []time.Duration{0, 1 * day, 7 * day, 14 * day, 30 * day}

const day = 24 * time.Hour

// watchExpiry logs, until ctx ends, that the root or a manifest runs out of date.
func (p *Publisher) watchExpiry(ctx context.Context, reports *fleet.Store) {
	tick := time.NewTicker(expiryEvery)
	defer tick.Stop()
	for {
		if err := p.noteExpiry(ctx, reports); err != nil && ctx.Err() == nil {
			p.log.Warn("looking at what runs out of date", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// noteExpiry logs what has come within a step of its date since it was last looked at.
func (p *Publisher) noteExpiry(ctx context.Context, reports *fleet.Store) error {
	st, err := p.repo.Read()
	if err != nil {
		return err
	}
	now := p.now()
	note := func(doc string, expires time.Time, e fleet.Event, next string) error {
		left := expires.Sub(now)
		for _, step := range expirySteps {
			if left > step {
				continue
			}
			e.Kind = fleet.KindExpirySoon
			switch {
			case left <= 0:
				e.Text = fmt.Sprintf("%s ran out of date at %s: %s", doc, expires.UTC().Format(time.RFC3339), next)
			default:
				e.Text = fmt.Sprintf("%s runs out of date in %d d, at %s: %s", doc, int(left/day), expires.UTC().Format(time.RFC3339), next)
			}
			mark := fmt.Sprintf("expiry %s %s %dd", doc, expires.UTC().Format(time.RFC3339), int(step/day))
			return reports.LogOnce(ctx, mark, e)
		}
		return nil
	}
	root := st.Trust.Root()
	if err := note(fmt.Sprintf("root %d", root.Version), root.Expires, fleet.Event{}, "shoal trust draft"); err != nil {
		return err
	}
	for _, ch := range st.Channels {
		if ch.Latest == nil {
			continue
		}
		m := ch.Latest
		e := fleet.Event{App: m.App, Channel: m.Channel, Version: m.Release.Version}
		if err := note(fmt.Sprintf("manifest %s", ch.Name), m.Expires, e, "shoal channel refresh "+ch.Name.String()); err != nil {
			return err
		}
	}
	return nil
}

// hooks are what is told of the fleet's events; nil for nobody.
func (p *Publisher) hooks(reports *fleet.Store) (*hook.Hooks, error) {
	if len(p.cfg.Webhooks) == 0 {
		return nil, nil
	}
	id, err := p.repo.FleetID()
	if err != nil {
		return nil, err
	}
	return hook.New(hook.Hooks{Store: reports, Fleet: id.String(), Hooks: p.cfg.Webhooks, Clock: p.now, Logger: p.log})
}
