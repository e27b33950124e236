package holder

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"shoal/agent/follow"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/gossip"
)

const (
	defaultEvery = 15 * time.Minute
	defaultAgain = time.Minute // until what could not be had is tried again
)

// Round is what one look at the channels came to.
type Round struct {
	Listen   string    `json:"listen"` // where peers reach this machine
	Channels []Channel `json:"channels"`
	Bytes    int64     `json:"bytes"` // held
}

// Channel is how a channel stands.
type Channel struct {
	Channel  string     `json:"channel"`
	Version  string     `json:"version,omitempty"`
	Epoch    int64      `json:"epoch,omitempty"`
	Sequence int64      `json:"sequence,omitempty"`
	Held     int        `json:"held"` // artifacts that are given to peers
	Of       int        `json:"of"`   // that are to be
	Code     fault.Code `json:"code"`
	Text     string     `json:"text,omitempty"` // what is not well
}

// Run keeps what the channels offer, and gives it to peers, until ctx ends. It follows
// the channels' news as an agent does: what neighbours know is taken from them, and they
// are told what is held here. Sources that do not answer and documents that ran out end
// nothing: what is here is given on. It is told of every round.
func (h *Holder) Run(ctx context.Context, tell func(Round)) error {
	node, err := h.swarm()
	if err != nil {
		return err
	}
	h.followNeighbours(node)
	var due time.Time // when the sources are asked again
	for {
		ask := !time.Now().Before(due)
		r := h.round(ctx, ask)
		if ctx.Err() != nil {
			return nil
		}
		r.Listen = node.Addr().String()
		tell(r)
		if ask {
			jitter := h.c.Every / 5
			due = time.Now().Add(h.c.Every - jitter + rand.N(2*jitter+1))
		}
		wait := time.Until(due)
		if r.lacks() {
			wait = min(wait, h.c.again)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-h.news:
			t.Stop()
		}
	}
}

// lacks reports whether something is not here that is to be.
func (r *Round) lacks() bool {
	return slices.ContainsFunc(r.Channels, func(c Channel) bool { return c.Held < c.Of })
}

// followNeighbours joins the swarm of every channel, until the node is closed.
func (h *Holder) followNeighbours(node *swarm.Node) {
	for _, ch := range h.c.Channels {
		board := h.follow.Board(ch, func(_ context.Context, heard follow.Heard) {
			if _, ok := h.follow.Held(ch); ok && heard.Verdict == gossip.Taken {
				select {
				case h.news <- struct{}{}:
				default:
				}
			}
		})
		c, err := node.Follow(follow.Topic(manifest.Digest(h.c.Pin.Repo), ch), board, swarm.FollowOptions{Trackers: h.c.Trackers, Peers: h.c.Peers})
		if err != nil {
			h.c.Logger.Warn("news comes from the sources alone", "channel", ch, "err", err)
			continue
		}
		h.mu.Lock()
		h.followed = append(h.followed, c)
		h.mu.Unlock()
		c.Changed() // what was stored meanwhile
	}
}

// tellNeighbours tells them of what was just stored. The follower calls it, and must not be called.
func (h *Holder) tellNeighbours() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.followed {
		c.Changed()
	}
}

// held is an artifact that is to be here.
type held struct {
	v   *manifest.Verified
	art *manifest.Artifact
	p   *manifest.Payload
	of  int // which channel of the round
}

// round asks the sources, or has what neighbours told be enough.
func (h *Holder) round(ctx context.Context, ask bool) Round {
	var r Round
	var all []held
	for i, ch := range h.c.Channels {
		v, _ := h.follow.Held(ch)
		var err error
		if ask {
			v, _, err = h.Check(ctx, ch)
		}
		c := Channel{Channel: ch.String(), Code: fault.OK}
		if err != nil {
			c.Code, c.Text = fault.CodeOf(err), err.Error()
		}
		if v != nil {
			m := v.Manifest
			c.Version, c.Epoch, c.Sequence = m.Release.Version, m.Epoch, m.Sequence
			for k := range m.Artifacts {
				if p, ok := m.Artifacts[k].Usable(); ok && h.keeps(m.Artifacts[k].Platform()) {
					all = append(all, held{v, &m.Artifacts[k], p, i})
					c.Of++
				}
			}
		}
		r.Channels = append(r.Channels, c)
	}
	h.prune(all)
	for _, a := range all {
		c := &r.Channels[a.of]
		if h.c.Size > 0 && r.Bytes+a.p.Length > h.c.Size {
			c.fail(fault.New(fault.Quota, "what the channels offer does not fit into %d bytes", h.c.Size))
			continue
		}
		if err := h.hold(ctx, a); err != nil {
			c.fail(err)
			continue
		}
		c.Held++
		r.Bytes += a.p.Length
	}
	return r
}

func (c *Channel) fail(err error) {
	if c.Code == fault.OK || c.Code == fault.Unreachable {
		c.Code, c.Text = fault.CodeOf(err), err.Error()
	}
}

func (h *Holder) keeps(p manifest.Platform) bool {
	for _, want := range h.c.Platforms {
		if want.OS == p.OS && want.Arch == p.Arch && (want.Variant == "" || want.Variant == p.Variant) {
			return true
		}
	}
	return len(h.c.Platforms) == 0
}

// hold has a be here and given to peers. What is here needs no source, and no date.
func (h *Holder) hold(ctx context.Context, a held) error {
	if h.given[a.p.Infohash] == a.p.SHA256 {
		return nil
	}
	if _, err := os.Stat(h.Path(a.p.SHA256)); err != nil {
		f, _, err := h.Get(ctx, a.v, a.art, nil)
		if err != nil {
			return err
		}
		f.Close()
	}
	if err := h.Give(ctx, a.p, h.Path(a.p.SHA256)); err != nil {
		return err
	}
	h.given[a.p.Infohash] = a.p.SHA256
	h.c.Logger.Info("giving", "channel", a.v.Manifest.Name(), "version", a.v.Manifest.Release.Version,
		"platform", a.art.Platform(), "bytes", a.p.Length)
	return nil
}

// prune takes out of swarm and cache what no channel offers any more.
func (h *Holder) prune(all []held) {
	keep := map[manifest.Digest]bool{}
	for _, a := range all {
		keep[a.p.SHA256] = true
	}
	for infohash, d := range h.given {
		if !keep[d] {
			delete(h.given, infohash)
			if node, err := h.swarm(); err == nil {
				node.Drop(infohash)
			}
		}
	}
	if root, _ := h.follow.Root(); root == nil {
		return // nothing is known, so nothing is known to be useless
	}
	if err := h.cache.Prune(func(d manifest.Digest) bool { return keep[d] }); err != nil {
		h.c.Logger.Warn("pruning the cache", "err", err)
	}
}
