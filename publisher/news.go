package publisher

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"
	"time"

	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/tracker"
	"shoal/swarm"
	"shoal/swarm/gossip"
)

// news tells the swarms of all channels what the repository holds, as soon as it does.
// Only seeds.follow calls its methods.
type news struct {
	p        *Publisher
	node     *swarm.Node
	channels map[manifest.Channel]*channelNews
}

// channelNews is what neighbours are told of one channel. It takes nothing from them: the
// repository is where news begins.
type channelNews struct {
	followed *swarm.Channel
	topic    swarm.Topic

	mu    sync.Mutex // guards holds
	holds gossip.Holding
}

func newNews(p *Publisher, node *swarm.Node) *news {
	return &news{p: p, node: node, channels: map[manifest.Channel]*channelNews{}}
}

// update follows the channels of the repository, and tells of what is new in them.
func (n *news) update(state *repo.State) {
	fleet, roots := state.Trust.Repo(), state.Trust.Snapshot().Roots
	here := map[manifest.Channel]bool{}
	for i := range state.Channels {
		ch := &state.Channels[i]
		here[ch.Name] = true
		c := n.channels[ch.Name]
		if c == nil {
			c = &channelNews{topic: swarm.Topic{Repo: fleet.Prefixed(), App: ch.Name.App, Channel: ch.Name.Name}}
		}
		beacon, _ := readLimited(filepath.Join(n.p.Tree(), filepath.FromSlash(tree.Beacon(ch.Name))), manifest.MaxBeacon)
		changed := c.set(ch, roots, beacon)
		if c.followed == nil {
			var err error
			if c.followed, err = n.node.Follow(c.topic, c, swarm.FollowOptions{}); err != nil {
				n.p.log.Error("machines are not told of news", "channel", ch.Name.String(), "err", err)
				continue
			}
			n.channels[ch.Name] = c
		} else if changed {
			c.followed.Changed()
		}
	}
	for name, c := range n.channels {
		if !here[name] {
			c.followed.Close()
			delete(n.channels, name)
		}
	}
}

// torrents are where machines meet, for the tracker.
func (n *news) torrents() []tracker.Torrent {
	var list []tracker.Torrent
	for _, c := range n.channels {
		list = append(list, tracker.Torrent{Infohash: c.topic.Infohash(), Origin: true})
	}
	return list
}

// set takes over what the repository holds, and reports whether that is something else.
func (c *channelNews) set(ch *repo.Channel, roots [][]byte, beacon []byte) (changed bool) {
	h := gossip.Holding{Head: gossip.Head{Root: uint64(len(roots)), Beacon: issued(beacon)}, Roots: roots, BeaconEnvelope: beacon}
	if ch.Held != nil {
		o := ch.Held.Manifest.Order()
		h.Order = gossip.Order{Epoch: uint64(o.Epoch), Sequence: uint64(o.Sequence)}
		h.Manifest, h.Size, h.ManifestEnvelope = ch.Held.Hash, uint32(len(ch.Envelope)), ch.Envelope
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = h.Head != c.holds.Head
	c.holds = h
	return changed
}

// issued is when a beacon of the repository was; zero for none, and for what is none.
func issued(env []byte) uint64 {
	e, err := manifest.ParseEnvelope(env, manifest.TypeBeacon)
	if err != nil {
		return 0
	}
	var b struct {
		Issued time.Time `json:"issued"`
	}
	if json.Unmarshal(e.Payload, &b) != nil || b.Issued.Unix() < 0 {
		return 0
	}
	return uint64(b.Issued.Unix())
}

// Head implements gossip.Board.
func (c *channelNews) Head() gossip.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds.Head
}

// Document implements gossip.Board.
func (c *channelNews) Document(n gossip.Name) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds.Document(n)
}

// Offer implements gossip.Board.
func (c *channelNews) Offer(context.Context, gossip.Document) gossip.Verdict { return gossip.Passed }
