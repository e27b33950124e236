package agent

import (
	"context"

	"shoal/agent/follow"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/gossip"
)

// heard acts on what a neighbour gave. What was taken goes the way of what a source has.
func (a *Agent) heard(ctx context.Context, ch manifest.Channel, h follow.Heard) {
	code := fault.CodeOf(h.Err)
	switch {
	case h.Verdict == gossip.Taken:
		a.do(ctx, func() { a.learn(ch, h.Report) }) // else the agent stops
	case h.Verdict == gossip.Faulty, code == fault.Equivocation:
		a.do(ctx, func() {
			a.note(manifest.Event{Code: code, Doc: h.Document.Name.Kind.String() + " " + ch.String(),
				Detail: "from neighbour " + h.Document.From + ": " + h.Err.Error()})
		})
	}
}

// learn acts on what a neighbour's document brought, as on a check. Only the owner calls
// it.
func (a *Agent) learn(ch manifest.Channel, r *follow.Report) {
	a.note(r.Events...)
	for _, app := range a.apps {
		for _, o := range r.Outcomes {
			if o.Channel == app.channel {
				app.status.Freshness = o.Freshness
				app.checked, app.asked = nil, true
				a.noteRunningBlocked(app)
			}
		}
		if app.channel == ch || len(r.Outcomes) == 0 { // a root is for all
			a.check(app, r)
		}
	}
}

// followNeighbours joins the swarm of every channel, until the node is closed.
func (a *Agent) followNeighbours(node *swarm.Node) {
	var repo manifest.Digest
	if a.pin != nil {
		repo = manifest.Digest(a.pin.Repo)
	} else if _, fleet := a.follow.Root(); !fleet.IsZero() {
		repo = fleet
	} else {
		return // the state is lost, and an operator is told
	}
	o := swarm.FollowOptions{Trackers: a.cfg.announceURLs(), Peers: a.cfg.Peers}
	for _, app := range a.apps {
		if a.channel(app.channel) != nil {
			continue
		}
		board := a.follow.Board(app.channel, func(ctx context.Context, h follow.Heard) { a.heard(ctx, app.channel, h) })
		c, err := node.Follow(follow.Topic(repo, app.channel), board, o)
		if err != nil {
			a.log.Warn("news comes from the sources alone", "channel", app.channel, "err", err)
			continue
		}
		a.channelsMu.Lock()
		a.channels[app.channel] = c
		a.channelsMu.Unlock()
		c.Changed() // what was stored meanwhile
	}
}

func (a *Agent) channel(ch manifest.Channel) *swarm.Channel {
	a.channelsMu.Lock()
	defer a.channelsMu.Unlock()
	return a.channels[ch]
}

// tellNeighbours tells them of what was just stored. The follower calls it, and must not be called.
func (a *Agent) tellNeighbours() {
	a.channelsMu.Lock()
	defer a.channelsMu.Unlock()
	for _, c := range a.channels {
		c.Changed()
	}
}
