package follow

import (
	"context"
	"sync"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/gossip"
)

// Board is what neighbours are told of a channel, and where their news of it comes in.
type Board struct {
	f     *Follower
	ch    manifest.Channel
	heard func(context.Context, Heard)

	mu   sync.Mutex // guards news
	news *gossip.Holding
}

// Heard is a document that a neighbour gave, and what became of it.
type Heard struct {
	Document gossip.Document
	Report   *Report // of taking it
	Err      error   // why it was not taken
	Verdict  gossip.Verdict
}

// Board returns the board of ch, which calls heard, from one goroutine at a time, with
// every document that was given.
func (f *Follower) Board(ch manifest.Channel, heard func(context.Context, Heard)) *Board {
	return &Board{f: f, ch: ch, heard: heard, news: &gossip.Holding{}}
}

// Topic is where those meet who follow ch of a fleet.
func Topic(fleet manifest.Digest, ch manifest.Channel) swarm.Topic {
	return swarm.Topic{Repo: fleet.Prefixed(), App: ch.App, Channel: ch.Name}
}

// Head implements gossip.Board.
func (b *Board) Head() gossip.Head {
	news := b.f.News(b.ch)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.news = news
	return news.Head
}

// Document implements gossip.Board.
func (b *Board) Document(name gossip.Name) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news.Document(name)
}

// Offer implements gossip.Board.
func (b *Board) Offer(ctx context.Context, d gossip.Document) gossip.Verdict {
	report, err := b.f.Take(ctx, b.ch, d)
	v := verdict(report, err, d)
	b.f.c.Logger.Debug("news from a neighbour", "channel", b.ch, "document", d.Name.Kind.String(), "number", d.Name.Number,
		"peer", d.From, "code", fault.CodeOf(err))
	b.heard(ctx, Heard{d, report, err, v})
	return v
}

// verdict says whose fault it is that a document was not taken. Honest neighbours have
// other clocks, may know of other roots, and may be late or early: only what nobody
// honest could have verified is held against who gave it. A signature that is not enough
// is, if the sender's root is ours, which would have said so there too; when a newer one
// came here meanwhile, it may have ended a key that was good there.
func verdict(r *Report, err error, d gossip.Document) gossip.Verdict {
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
