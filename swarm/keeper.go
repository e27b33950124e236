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
)

// keep starts the peer keeper of a share: as long as something is missing, it offers the
// engine the known peers it is not connected to. (The engine forgets an address as soon
// as it has dialled it once.) At first it does so every second or two: what starts
// together finds each other together.
func (s *share) keep(known []string) {
	s.keeper.Go(func() {
		for round := 0; ; round++ {
			if len(known) > 0 && !s.store.complete() {
				s.offer(known)
			}
			pause := keepEvery + rand.N(keepEvery)
			if len(known) > 0 {
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

// offer gives the engine the addresses of known peers.
func (s *share) offer(known []string) {
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
