package agent

import (
	"context"
	"errors"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm/gossip"
)

// ChannelPeers are the neighbours in a channel's swarm, connected now.
type ChannelPeers struct {
	Channel manifest.Channel `json:"channel"`
	// Sequence and Epoch are of the manifest that this machine holds; zero for none.
	Epoch    int64 `json:"epoch"`
	Sequence int64 `json:"sequence"`
	// Version is what it offers.
	Version string `json:"version,omitempty"`
	Root    int64  `json:"root_version"`
	Peers   []Peer `json:"peers"`
	// Muted is how many are kept out for bad documents, for a few minutes.
	Muted int `json:"muted"`
}

// Peer is what a neighbour says of itself. Nobody has verified it.
type Peer struct {
	Addr   string `json:"addr"`
	Class  string `json:"class"`            // lan, wan or origin
	Member string `json:"member,omitempty"` // of a fleet with a key: who it is
	// Epoch and Sequence are of the manifest that it holds; zero for none. Version is that
	// manifest's, where this machine knows it.
	Epoch    int64     `json:"epoch"`
	Sequence int64     `json:"sequence"`
	Version  string    `json:"version,omitempty"`
	Stand    string    `json:"stand"` // same, behind, ahead, other (another one of that sequence) or none
	Root     int64     `json:"root_version"`
	Heard    time.Time `json:"heard"`
	Faults   int       `json:"faults"` // bad documents and messages lately
}

// Peers asks the running agent for its neighbours in every channel. The code is
// unreachable when none is running: only a running agent has neighbours.
func Peers(ctx context.Context, cfg Config) ([]ChannelPeers, error) {
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if errors.Is(err, control.ErrNotRunning) {
		return nil, fault.New(fault.Unreachable, "no agent is running here, and only a running agent has neighbours").
			Do("shoal agent run, or start its service")
	}
	if err != nil {
		return nil, err
	}
	var all []ChannelPeers
	return all, client.Do(ctx, "peers", nil, nil, &all)
}

// peers implements the command of that name.
func (a *Agent) peers() []ChannelPeers {
	all := []ChannelPeers{}
	seen := map[manifest.Channel]bool{}
	for _, app := range a.apps {
		c := a.channel(app.channel)
		if c == nil || seen[app.channel] {
			continue
		}
		seen[app.channel] = true
		news := a.follow.News(app.channel)
		cp := ChannelPeers{
			Channel: app.channel, Epoch: int64(news.Order.Epoch), Sequence: int64(news.Order.Sequence),
			Version: a.versionOf(app, news.Order), Root: int64(news.Root), Peers: []Peer{}, Muted: c.Stats().Muted,
		}
		for _, n := range c.Neighbours() {
			cp.Peers = append(cp.Peers, Peer{
				Addr: n.Addr.String(), Class: n.Class.String(), Member: n.Member,
				Epoch: int64(n.Have.Order.Epoch), Sequence: int64(n.Have.Order.Sequence),
				Version: a.versionOf(app, n.Have.Order), Stand: stand(news.Head, n.Have),
				Root: int64(n.Have.Root), Heard: n.Heard.UTC(), Faults: n.Faults,
			})
		}
		all = append(all, cp)
	}
	return all
}

// versionOf is the version of the release with an order, where it is known here: it is
// the one on offer, or was installed.
func (a *Agent) versionOf(app *app, o gossip.Order) string {
	order := manifest.Order{Epoch: int64(o.Epoch), Sequence: int64(o.Sequence)}
	if held, ok := a.follow.Held(app.channel); ok && held.Manifest.Order() == order {
		return held.Manifest.Release.Version
	}
	history, err := a.engine.History(app.program.Target)
	if err != nil {
		return ""
	}
	for _, r := range history {
		if r.To.Epoch == order.Epoch && r.To.Sequence == order.Sequence {
			return r.To.Version
		}
	}
	return ""
}

// stand compares what a neighbour says it holds with what is held here.
func stand(ours, theirs gossip.Head) string {
	switch a, b := theirs.Order, ours.Order; {
	case a == gossip.Order{}:
		return "none"
	case a == b && theirs.Manifest == ours.Manifest:
		return "same"
	case a == b:
		return "other"
	case a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Sequence < b.Sequence:
		return "behind"
	}
	return "ahead"
}
