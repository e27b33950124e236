package agent

import (
	"context"
	"sync"

	"shoal/agent/follow"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/gossip"
)

// board is what neighbours are told of a channel, and where their news of it comes in.
type board struct {
	a  *Agent
	ch manifest.Channel

	mu   sync.Mutex // guards news
	news *gossip.Holding
}

// Head implements gossip.Board.
func (b *board) Head() gossip.Head {
	news := b.a.follow.News(b.ch)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.news = news
	return news.Head
}

// Document implements gossip.Board.
func (b *board) Document(name gossip.Name) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news.Document(name) // which there is: Head is asked first
}

// Offer implements gossip.Board. What was taken goes the way of what a source has.
func (b *board) Offer(ctx context.Context, d gossip.Document) gossip.Verdict {
	report, err := b.a.follow.Take(ctx, b.ch, d)
	v := verdict(report, err, d)
	code := fault.CodeOf(err)
	b.a.log.Debug("news from a neighbour", "channel", b.ch, "document", d.Name.Kind.String(), "number", d.Name.Number, "peer", d.From, "code", code)
	switch {
	case v == gossip.Taken:
		b.a.do(ctx, func() { b.a.learn(b.ch, report) }) // else the agent stops
	case v == gossip.Faulty, code == fault.Equivocation:
		b.a.do(ctx, func() {
			b.a.note(manifest.Event{Code: code, Doc: d.Name.Kind.String() + " " + b.ch.String(), Detail: "from neighbour " + d.From + ": " + err.Error()})
		})
	}
	return v
}

// verdict says whose fault it is that a document was not taken. Honest neighbours have
// other clocks, may know of other roots, and may be late or early: only what nobody
// honest could have verified is held against who gave it. A signature that is not enough
// is, if the sender's root is ours, which would have said so there too; when a newer one
// came here meanwhile, it may have ended a key that was good there.
func verdict(r *follow.Report, err error, d gossip.Document) gossip.Verdict {
	switch fault.CodeOf(err) {
	case fault.OK:
		return gossip.Taken
	case fault.Malformed, fault.TooLarge, fault.WrongType, fault.ContentMismatch, fault.WrongTarget:
		return gossip.Faulty
	case fault.Threshold:
		if r != nil && uint64(r.RootVersion) == d.Root && d.Name.Kind != gossip.Root {
			return gossip.Faulty
		}
	}
	return gossip.Passed
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
		c, err := node.Follow(topicOf(repo, app.channel), &board{a: a, ch: app.channel}, o)
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

func topicOf(repo manifest.Digest, ch manifest.Channel) swarm.Topic {
	return swarm.Topic{Repo: repo.Prefixed(), App: ch.App, Channel: ch.Name}
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
