package swarm

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/anacrolix/torrent"

	"shoal/swarm/ban"
)

const (
	keepEvery      = 15 * time.Second // and up to twice that
	resolveTimeout = 5 * time.Second

	// A torrent looks for so many neighbours, and dials so many of those it was told of at
	// a time: others dial too. All it could have would be a mesh, in which everyone tells
	// everyone of every piece.
	neighbours = 10
	dialAtOnce = neighbours / 2

	maxFound = 400 // addresses that are remembered
)

// keep starts the peer keeper of a share: as long as something is missing, it offers the
// engine known peers it is not connected to, all of them, and as many of those it has been
// told of as it lacks neighbours. (The engine forgets an address as soon as it has dialled
// it once.) At first it does so every second or two: what starts together finds each other
// together.
func (s *share) keep(known []string) {
	s.keeper.Go(func() {
		for round := 0; ; round++ {
			pause := keepEvery + rand.N(keepEvery)
			if !s.store.complete() {
				s.offer(known)
				s.seek()
				pause = min(pause, time.Second<<min(round, 10))
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-s.wake:
			case <-s.ctx.Done():
				timer.Stop()
				return
			}
			timer.Stop()
			s.count() // lets go of closed connections
		}
	})
}

// heard notes the addresses of peers that a tracker told of.
func (s *share) heard(peers []netip.AddrPort) {
	s.pmu.Lock()
	if s.found == nil || len(s.found)+len(peers) > maxFound {
		s.found = make(map[netip.AddrPort]struct{})
	}
	for _, p := range peers {
		s.found[p] = struct{}{}
	}
	s.pmu.Unlock()
	s.seek()
}

// seek has the engine dial some of the peers heard of, if neighbours are missing.
func (s *share) seek() {
	connected := s.reachable()
	s.pmu.Lock()
	missing := neighbours - len(s.live)
	var found []netip.AddrPort
	for p := range s.found {
		if !connected[p] && p != s.n.tr.local {
			found = append(found, p)
		}
	}
	s.pmu.Unlock()
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	missing = min(missing, dialAtOnce)
	var offers []torrent.PeerInfo
	for _, p := range found {
		// The publisher has what nobody else has yet.
		if origin := s.n.tr.classes.dialled(p) == ClassOrigin; origin || missing > 0 {
			offers = append(offers, s.n.peerInfo(p, torrent.PeerSourceTracker))
			if !origin {
				missing--
			}
		}
	}
	s.lib.AddPeers(offers)
}

// offer gives the engine the addresses of known peers.
func (s *share) offer(known []string) {
	if len(known) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, resolveTimeout)
	defer cancel()
	connected := s.reachable()
	var offers []torrent.PeerInfo
	for _, name := range known {
		addrs, err := resolve(ctx, name)
		if err != nil {
			if s.ctx.Err() == nil {
				s.n.log.Debug("resolving a peer", "peer", name, "error", err)
			}
			continue
		}
		s.n.learn(name, addrs)
		for _, a := range addrs {
			if !connected[a] && a != s.n.tr.local {
				offers = append(offers, s.n.peerInfo(a, torrent.PeerSourceDirect))
			}
		}
	}
	s.lib.AddPeers(offers)
}

// peerInfo is a peer to be dialled, for the engine.
func (n *Node) peerInfo(a netip.AddrPort, source torrent.PeerSource) torrent.PeerInfo {
	return torrent.PeerInfo{Addr: peerAddr{shown: n.tr.bans.Alias(ban.Suspect{At: a}), real: a}, Source: source}
}
