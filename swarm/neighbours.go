package swarm

import (
	"maps"
	"net/netip"
	"slices"

	"shoal/swarm/lsd"
)

// newAnnouncer starts looking for neighbours.
func (n *Node) newAnnouncer(c Config) (*lsd.Announcer, error) {
	l := lsd.Config{
		Addr: n.tr.local, Interfaces: c.LAN.Interfaces, Torrents: n.announceable, Logger: c.Logger,
		Found: n.found,
	}
	if c.Fleet != nil {
		l.Keys = c.Fleet.LANKeys()
	}
	return lsd.New(l)
}

// found notes a neighbour that has, or wants, a torrent or a channel.
func (n *Node) found(infohash [20]byte, p netip.AddrPort, calls bool) {
	var of interface {
		heard(peers []netip.AddrPort, near bool)
		answer(p netip.AddrPort)
	}
	if s := n.share(infohash); s != nil && s.added() {
		of = s
	} else if c := n.followed(infohash); c != nil {
		of = c
	} else {
		return
	}
	of.heard([]netip.AddrPort{p}, true)
	if calls {
		of.answer(p)
	}
}

// announceable are the torrents that neighbours are told of.
func (n *Node) announceable() []lsd.Torrent {
	n.mu.Lock()
	shares := make([]*share, 0, len(n.torrents))
	for _, s := range n.torrents {
		shares = append(shares, s)
	}
	channels := slices.Collect(maps.Values(n.channels))
	n.mu.Unlock()
	var all []lsd.Torrent
	for _, c := range channels {
		all = append(all, c.announced())
	}
	for _, s := range shares {
		if s.added() {
			st := announced{s}.Status()
			all = append(all, lsd.Torrent{Infohash: st.Infohash, Complete: st.Left == 0, Wanting: st.Wanting})
		}
	}
	return all
}

// tellNeighbours announces the share on the LAN, soon.
func (s *share) tellNeighbours() {
	if s.n.lsd != nil {
		s.n.lsd.Started(s.info.ref.Infohash)
	}
}

// added reports whether the engine has the torrent.
func (s *share) added() bool {
	select {
	case <-s.opened:
		return s.lib != nil
	default:
		return false
	}
}
