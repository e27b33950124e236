package swarm

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"shoal/swarm/announce"
	"shoal/swarm/ban"
	"shoal/swarm/fleet"
	"shoal/swarm/gossip"
)

// A channel has a rendezvous torrent, of which nobody has an info dict, and in whose swarm
// all that follow the channel meet. Their connections carry peer exchange (BEP 11) and an
// extension (BEP 10) for news, see package gossip, and nothing else.

// newsExtension is its name, of the first version.
const newsExtension = "shoal_news"

// newsExtensions are spoken on rendezvous torrents. The engine handles neither: what is
// told of peers goes to our keeper, and an info dict is not wanted from anybody.
var newsExtensions = &torrent.LocalLtepProtocolMap{Index: []pp.ExtensionName{pp.ExtensionNamePex, newsExtension}}

const (
	pexID  pp.ExtensionNumber = 1 // the places in newsExtensions
	newsID pp.ExtensionNumber = 2

	// Neighbours that are looked for, and that there may be.
	leastNeighbours = 10
	mostNeighbours  = 30

	introduceWithin = 10 * time.Second // of a connection, or it is closed
)

// Topic is a channel whose news is followed.
type Topic struct{ Repo, App, Channel string } // as they are on the wire: Repo is "sha256:<hex>"

// Infohash is that of the rendezvous torrent.
func (t Topic) Infohash() [20]byte {
	return sha1.Sum([]byte("shoal.channel.v1\x00" + t.Repo + "\x00" + t.App + "\x00" + t.Channel))
}

func (t Topic) String() string { return t.App + "/" + t.Channel }

// FollowOptions say where to look for others that follow the channel.
type FollowOptions struct {
	// Trackers are announce URLs, as in FetchOptions.
	Trackers []string
	// Peers are "host:port" known from elsewhere, dialled whenever they are not connected.
	Peers []string
}

// Channel is a channel that a node follows.
type Channel struct {
	n        *Node
	topic    Topic
	infohash [20]byte
	member   *gossip.Member
	opened   chan struct{} // closed when the engine has it
	lib      *torrent.Torrent
	known    []string

	ctx    context.Context // governs it; ends with the node too
	cancel context.CancelCauseFunc
	wake   chan struct{} // of the keeper
	keeper sync.WaitGroup
	ending sync.Once

	mu    sync.Mutex // guards what follows; never held while the engine is called
	live  map[*torrent.PeerConn]*follower
	found map[netip.AddrPort]*found
	// Connections the engine has to close; callbacks may not.
	useless []*torrent.PeerConn
}

// follower is a connection in a rendezvous swarm.
type follower struct {
	*peer
	since  time.Time
	pex    time.Time // when it told of peers last
	gossip *gossip.Neighbour
}

// Neighbour is somebody else who follows a channel, connected now.
type Neighbour struct {
	Addr   netip.AddrPort // where it accepts peers, as far as that is known
	Class  Class
	Member string // who it is in a fleet with a key, in hex
	Have   gossip.Head
	Heard  time.Time // when it said something last
	Faults int       // it has been found with lately
}

// Follow joins the swarm of a channel: what neighbours hold is offered to the board, if
// it is newer, and what the board holds is given to them. It ends with Channel.Close, or
// with the node. A channel can be followed once; ErrBusy says that it is.
func (n *Node) Follow(topic Topic, board gossip.Board, o FollowOptions) (*Channel, error) {
	c := &Channel{
		n: n, topic: topic, infohash: topic.Infohash(), known: o.Peers, wake: make(chan struct{}, 1), opened: make(chan struct{}),
		live: make(map[*torrent.PeerConn]*follower), found: make(map[netip.AddrPort]*found),
	}
	c.ctx, c.cancel = context.WithCancelCause(n.ctx)
	n.mu.Lock()
	var err error
	switch {
	case n.ctx.Err() != nil:
		err = ErrClosed
	case n.channels[c.infohash] != nil, n.torrents[c.infohash] != nil:
		err = ErrBusy
	default:
		n.channels[c.infohash] = c
		c.member = gossip.New(gossip.Config{Board: board, Logger: n.log.With("channel", topic.String())})
	}
	n.mu.Unlock()
	if err != nil {
		c.cancel(err)
		return nil, fmt.Errorf("following %s: %w", topic, err)
	}
	c.lib, _ = n.cl.AddTorrentInfoHash(c.infohash)
	c.lib.SetMaxEstablishedConns(mostNeighbours)
	c.keeper.Go(c.keep)
	close(c.opened)
	for _, t := range o.Trackers {
		u, err := announce.CheckURL(t)
		if err != nil {
			n.log.Warn("leaving out a tracker", "error", err)
			continue
		}
		n.trackers.Start(c.ctx, u, rendezvous{c})
	}
	if n.lsd != nil {
		n.lsd.Started(c.infohash)
	}
	return c, nil
}

// Changed says that the board may hold something else than before: neighbours are told.
func (c *Channel) Changed() { c.member.Changed() }

// Close leaves the channel. It returns when the board is not called any more.
func (c *Channel) Close() {
	c.ending.Do(func() {
		c.cancel(ErrClosed)
		<-c.opened
		c.lib.Drop()
		c.keeper.Wait()
		c.member.Close()
		c.n.mu.Lock()
		delete(c.n.channels, c.infohash)
		c.n.mu.Unlock()
	})
}

// Stats returns what was said and heard.
func (c *Channel) Stats() gossip.Stats { return c.member.Stats() }

// Neighbours returns those there are now, in the order of their addresses.
func (c *Channel) Neighbours() []Neighbour {
	c.mu.Lock()
	var all []Neighbour
	for _, f := range c.live {
		if f.gossip == nil {
			continue
		}
		seen := f.gossip.Seen()
		nb := Neighbour{Addr: f.reached(), Class: f.class(c.n.tr.classes), Have: seen.Have, Heard: seen.Heard, Faults: seen.Faults}
		if (f.member != fleet.Identity{}) {
			nb.Member = hex.EncodeToString(f.member[:])
		}
		all = append(all, nb)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Neighbour) int { return a.Addr.Compare(b.Addr) })
	return all
}

// who is what a follower is known by from one connection to the next. The port it says
// that it listens on is its own word, and another word must not make another one of it.
func (c *Channel) who(f *follower) string {
	source := ban.Source(f.remote.Addr()).String()
	switch {
	case f.member != fleet.Identity{}: // those behind one address have keys of their own
		return source + " (member " + f.member.String() + ")"
	case f.remote.Addr().IsLoopback():
		return f.reached().String() // nothing else tells the nodes of one machine apart
	}
	return source
}

// channel is the one whose rendezvous a connection is in, or nil.
func (n *Node) channel(pc *torrent.PeerConn) *Channel {
	t := pc.Torrent()
	if t == nil {
		return nil
	}
	return n.followed(t.InfoHash())
}

func (n *Node) followed(infohash [20]byte) *Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.channels[infohash]
}

// The rest is called by the engine with its lock held, and must not call it.

// followerAdded is for a connection that finished its handshake.
func (n *Node) followerAdded(pc *torrent.PeerConn) {
	c := n.channel(pc)
	if c == nil {
		return
	}
	pc.LocalLtepProtocolMap = newsExtensions
	f := &follower{since: time.Now(), peer: &peer{
		pc: pc, remote: unmap(realAddr(pc.RemoteAddr)), dialled: pc.Discovery != torrent.PeerSourceIncoming,
	}}
	if conn := n.tr.find(f.remote, f.dialled); conn != nil {
		f.member = conn.member
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[pc] = f
	if known := c.found[f.remote]; known != nil && f.dialled {
		known.failed = 0
	}
}

// followerIntroduced is for its extension handshake.
func (n *Node) followerIntroduced(pc *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
	c := n.channel(pc)
	if c == nil {
		return
	}
	m.MetadataSize = 0 // the engine would reserve so much
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.live[pc]
	if f == nil || f.gossip != nil {
		return
	}
	if m.Port > 0 && m.Port < 1<<16 && !f.dialled {
		f.listens = uint16(m.Port)
		n.tr.listens(f.remote, f.listens)
	}
	if m.M[newsExtension] != 0 {
		f.gossip = c.member.Join(c.who(f), link{c, pc, new(backlog)})
	}
	if f.gossip == nil { // a stranger, or muted
		c.useless = append(c.useless, pc)
	}
	c.poke()
}

// followerSaid is for a message of an extension.
func (n *Node) followerSaid(e torrent.PeerConnReadExtensionMessageEvent) {
	if e.ExtensionNumber != pexID && e.ExtensionNumber != newsID {
		return
	}
	c := n.channel(e.PeerConn)
	if c == nil {
		return
	}
	c.mu.Lock()
	f := c.live[e.PeerConn]
	c.mu.Unlock()
	if f == nil || f.gossip == nil {
		return
	}
	if e.ExtensionNumber == newsID {
		f.gossip.Deliver(e.Payload)
		return
	}
	c.exchange(f, e.Payload)
}

// followerClosed is for its end.
func (n *Node) followerClosed(pc *torrent.PeerConn) {
	c := n.channel(pc)
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.live[pc]
	if f == nil {
		return
	}
	delete(c.live, pc)
	if f.gossip != nil {
		f.gossip.Leave()
	}
	c.poke()
}

// link is the way to a neighbour, for gossip.
type link struct {
	c  *Channel
	pc *torrent.PeerConn
	b  *backlog
}

// backlog estimates what the engine has not written yet. It does not say, and would queue
// without a bound.
type backlog struct{ queued, base int64 }

func (l link) Send(b []byte) {
	l.b.queued += int64(len(b))
	l.pc.WriteExtendedMessage(newsExtension, b) // fails only where the peer has said otherwise
}

// Backlog takes everything written since there was none for ours.
func (l link) Backlog() int {
	st := l.pc.Stats()
	written := st.BytesWritten.Int64()
	if left := l.b.queued - (written - l.b.base); left > 0 {
		return int(left)
	}
	l.b.queued, l.b.base = 0, written
	return 0
}

func (l link) Close() { l.pc.Close() }
