package swarm

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"shoal/swarm/announce"
	"shoal/swarm/lsd"
)

const (
	lookEvery  = 10 * time.Second // for neighbours, where there are enough
	firstLooks = time.Second      // at first, and where there are few
	redialAt   = 10 * time.Second // an address that did not answer

	maxExchange  = 4 << 10 // bytes of a message of peer exchange
	maxExchanged = 50      // addresses of one
	exchangeEach = 45 * time.Second
	forgetAfter  = 200 // dials in vain
)

// found is an address at which somebody may follow the channel.
type found struct {
	near   bool
	tried  time.Time
	failed int // dials in a row
}

// keep looks for neighbours until the channel is left.
func (c *Channel) keep() {
	for round := 0; ; round++ {
		c.tidy()
		c.offer()
		pause := lookEvery
		if round < 10 || c.neighbours() < fewPeers {
			pause = firstLooks
		}
		timer := time.NewTimer(pause*3/4 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-c.wake:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

func (c *Channel) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// neighbours is how many there are.
func (c *Channel) neighbours() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live)
}

// tidy closes connections that are of no use.
func (c *Channel) tidy() {
	c.mu.Lock()
	useless := c.useless
	c.useless = nil
	for pc, f := range c.live {
		if f.gossip == nil && time.Since(f.since) > introduceWithin {
			useless = append(useless, pc)
		}
	}
	c.mu.Unlock()
	for _, pc := range useless {
		pc.Close()
	}
}

// heard notes addresses of others that follow the channel.
func (c *Channel) heard(peers []netip.AddrPort, near bool) {
	c.mu.Lock()
	fresh := false
	for _, p := range peers {
		p = unmap(p)
		if f := c.found[p]; f != nil {
			f.near = f.near || near
			continue
		}
		if len(c.found) >= maxFound {
			c.forget()
		}
		c.found[p] = &found{near: near}
		fresh = true
	}
	c.mu.Unlock()
	if fresh {
		c.poke()
	}
}

// answer dials a peer that has no neighbours, though there may be enough here.
func (c *Channel) answer(p netip.AddrPort) {
	if connected, live := c.reachable(); live < mostAnswering && !connected[p] {
		c.lib.AddPeers([]torrent.PeerInfo{c.n.peerInfo(p, torrent.PeerSourceTracker)})
	}
}

// forget makes room for an address, with c.mu held: of a few, that one goes which has
// been dialled in vain most often.
func (c *Channel) forget() {
	var worst netip.AddrPort
	most, left := -1, 8
	for a, f := range c.found {
		if f.failed > most {
			worst, most = a, f.failed
		}
		if left--; left == 0 {
			break
		}
	}
	delete(c.found, worst)
}

// exchange takes what a neighbour tells of others. The engine's lock is held.
func (c *Channel) exchange(f *follower, payload []byte) {
	now := time.Now()
	c.mu.Lock()
	early := now.Sub(f.pex) < exchangeEach
	if !early {
		f.pex = now
	}
	c.mu.Unlock()
	if early || len(payload) > maxExchange {
		return
	}
	m, err := pp.LoadPexMsg(payload)
	if err != nil {
		return
	}
	var peers []netip.AddrPort
	for _, list := range [][]krpc.NodeAddr{m.Added.NodeAddrs(), m.Added6.NodeAddrs()} {
		for _, na := range list {
			ip, ok := netip.AddrFromSlice(na.IP)
			if !ok || na.Port < 0 || na.Port >= 1<<16 {
				continue
			}
			a := unmap(netip.AddrPortFrom(ip, uint16(na.Port)))
			switch ip := a.Addr(); {
			case len(peers) == maxExchanged || a.Port() == 0:
			case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast():
			case ip.IsLoopback() && !f.remote.Addr().IsLoopback():
			default:
				peers = append(peers, a)
			}
		}
	}
	c.heard(peers, false)
}

// offer has the engine dial known peers, and some that were heard of: as many as
// neighbours are missing, and one that did not answer the last time. When the network was
// split, both halves have neighbours enough; that one joins them again.
func (c *Channel) offer() {
	connected, live := c.reachable()
	now := time.Now()
	var dial []netip.AddrPort
	try := func(a netip.AddrPort, f *found) {
		f.tried = now
		f.failed++ // until it is connected
		dial = append(dial, a)
	}
	known := c.resolve()
	c.mu.Lock()
	for _, a := range known {
		if c.found[a] == nil {
			c.found[a] = &found{}
		}
	}
	missing := min(leastNeighbours-live, dialAtOnce)
	var fresh, stale []netip.AddrPort
	for a, f := range c.found {
		switch {
		case connected[a]:
			f.failed = 0
		case a == c.n.tr.local || now.Sub(f.tried) < redialAt:
		case f.failed == 0:
			fresh = append(fresh, a)
		default:
			stale = append(stale, a)
		}
	}
	for _, a := range known {
		if f := c.found[a]; !connected[a] && a != c.n.tr.local && now.Sub(f.tried) >= redialAt {
			try(a, f)
		}
	}
	for i, list := range [][]netip.AddrPort{fresh, stale} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for j, a := range list {
			f := c.found[a]
			if f == nil || f.tried == now || missing <= 0 && (i == 0 || j > 0) {
				continue
			}
			if f.failed >= forgetAfter {
				delete(c.found, a)
				continue
			}
			try(a, f)
			missing--
		}
	}
	c.mu.Unlock()
	var offers []torrent.PeerInfo
	for _, a := range dial {
		offers = append(offers, c.n.peerInfo(a, torrent.PeerSourceTracker))
	}
	c.lib.AddPeers(offers)
}

// reachable returns where those accept peers that are connected, and how many they are.
func (c *Channel) reachable() (map[netip.AddrPort]bool, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[netip.AddrPort]bool, len(c.live))
	for _, f := range c.live {
		m[f.reached()] = true
	}
	return m, len(c.live)
}

// resolve returns where the configured peers are.
func (c *Channel) resolve() []netip.AddrPort {
	ctx, cancel := context.WithTimeout(c.ctx, resolveTimeout)
	defer cancel()
	var all []netip.AddrPort
	for _, name := range c.known {
		addrs, err := resolve(ctx, name)
		if err != nil {
			if c.ctx.Err() == nil {
				c.n.log.Debug("resolving a peer", "peer", name, "error", err)
			}
			continue
		}
		c.n.learn(name, addrs)
		all = append(all, addrs...)
	}
	return all
}

// acquainted are the addresses of the neighbours in all channels: whoever follows one may
// well have what it asks for.
func (n *Node) acquainted() []netip.AddrPort {
	n.mu.Lock()
	var channels []*Channel
	for _, c := range n.channels {
		channels = append(channels, c)
	}
	n.mu.Unlock()
	var all []netip.AddrPort
	for _, c := range channels {
		m, _ := c.reachable()
		for a := range m {
			all = append(all, a)
		}
	}
	return all
}

// Acquainted reports whether the node has neighbours in its channels: it may then find
// peers that nobody named.
func (n *Node) Acquainted() bool { return len(n.acquainted()) > 0 }

// meet has a share hear of the neighbours in the node's channels.
func (s *share) meet() {
	for _, a := range s.n.acquainted() {
		s.heard([]netip.AddrPort{a}, s.n.tr.classes.dialled(a) == ClassLAN)
	}
}

// rendezvous is what trackers are told of a channel.
type rendezvous struct{ c *Channel }

func (r rendezvous) Status() announce.Status {
	return announce.Status{
		Infohash: r.c.infohash, PeerID: r.c.n.cl.PeerID(), Port: r.c.n.tr.local.Port(),
		Left: 1, Wanting: r.c.neighbours() < fewPeers, // nobody is a seed of it
	}
}

func (r rendezvous) Offer(peers []netip.AddrPort) { r.c.heard(peers, false) }

func (r rendezvous) Complete() <-chan struct{} { return nil }

// announced is what the LAN is told of it.
func (c *Channel) announced() lsd.Torrent {
	return lsd.Torrent{Infohash: c.infohash, Wanting: c.neighbours() == 0}
}
