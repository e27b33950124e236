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

	// With fewer connections than this, those are dialled that find nobody.
	mostAnswering = 2 * neighbours

	// A neighbour that has brought nothing for so long makes room for others, if there are
	// others.
	neighbourPatience = 20 * time.Second

	lonelyEvery = time.Second // how often peers are looked for where there are few

	// Who hangs up so soon, and has brought nothing, may have peers enough: after
	// chanceRefused times in a row it is dialled again after firstRefused, and twice as long
	// each time, up to lastRefused. A handshake costs it more than it costs us. Two that
	// dial each other at once hang up, too, and should find each other soon.
	hangUpWithin  = 5 * time.Second
	chanceRefused = 2
	firstRefused  = 2 * time.Second
	lastRefused   = time.Minute

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
			if !s.store.Complete() {
				s.offer(known)
				s.meet()
				s.part()
				s.seek()
				pause = min(pause, time.Second<<min(round, 10))
				if s.lonely() {
					pause = min(pause, lonelyEvery)
				}
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

// lonely reports whether there are few peers.
func (s *share) lonely() bool {
	s.pmu.Lock()
	defer s.pmu.Unlock()
	return len(s.live) < fewPeers
}

// heard notes the addresses of peers that a tracker told of, or that announced themselves
// on the LAN.
func (s *share) heard(peers []netip.AddrPort, near bool) {
	s.pmu.Lock()
	if s.found == nil || len(s.found)+len(peers) > maxFound {
		s.found = make(map[netip.AddrPort]bool)
	}
	for _, p := range peers {
		s.found[p] = s.found[p] || near
	}
	s.pmu.Unlock()
	s.seek()
}

// part ends connections with neighbours that bring nothing, a quarter of all at a time,
// where there are others to try. Who gives slowly, or not yet, may well be all there is.
func (s *share) part() {
	if len(s.strangers()) == 0 {
		return
	}
	s.pmu.Lock()
	var useless []netip.AddrPort
	for _, p := range s.live {
		if time.Since(p.helped) > neighbourPatience && !s.chosen(p) {
			useless = append(useless, p.remote)
		}
	}
	if len(s.live) < neighbours {
		useless = nil
	}
	most := len(s.live) / 4
	s.pmu.Unlock()
	for _, p := range useless[:min(len(useless), most)] {
		s.n.log.Debug("leaving a peer that brings nothing", "peer", p.String())
		s.pmu.Lock()
		delete(s.found, p)
		s.pmu.Unlock()
		s.n.tr.hangUp(p)
	}
}

// A refusal is how often in a row an address has hung up, and how long it is left alone.
type refusal struct {
	times int
	until time.Time
}

// hungUp notes that a connection has ended. Called with s.pmu held.
func (s *share) hungUp(p *peer, now time.Time) {
	switch {
	case !p.dialled:
	case p.brought || now.Sub(p.helped) >= hangUpWithin:
		delete(s.refused, p.remote)
	default:
		if s.refused == nil || len(s.refused) >= maxFound {
			s.refused = make(map[netip.AddrPort]refusal)
		}
		r := s.refused[p.remote]
		r.times++
		if r.times > chanceRefused {
			pause := min(firstRefused<<min(r.times-chanceRefused-1, 10), lastRefused)
			r.until = now.Add(pause*3/4 + rand.N(pause/2))
		}
		s.refused[p.remote] = r
	}
}

// refuses reports whether an address is to be left alone. Called with s.pmu held.
func (s *share) refuses(a netip.AddrPort, now time.Time) bool { return now.Before(s.refused[a].until) }

// strangers are the peers heard of that we are not connected to, and that are not left
// alone, in random order, but every other one, the first included, is on the LAN, as long
// as there are such: they are preferred, and cannot keep the others out.
func (s *share) strangers() []netip.AddrPort {
	connected, now := s.reachable(), time.Now()
	s.pmu.Lock()
	defer s.pmu.Unlock()
	var lan, far []netip.AddrPort
	for p, near := range s.found {
		switch {
		case connected[p] || p == s.n.tr.local || s.refuses(p, now):
		case near:
			lan = append(lan, p)
		default:
			far = append(far, p)
		}
	}
	found := make([]netip.AddrPort, 0, len(lan)+len(far))
	for _, list := range [][]netip.AddrPort{lan, far} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	for i := range max(len(lan), len(far)) {
		if i < len(lan) {
			found = append(found, lan[i])
		}
		if i < len(far) {
			found = append(found, far[i])
		}
	}
	return found
}

// answer dials a peer that finds too few others, though nobody may be missing here: who
// comes late would find that all have neighbours enough.
func (s *share) answer(p netip.AddrPort) {
	if connected := s.reachable(); len(connected) < mostAnswering && !connected[p] {
		s.lib.AddPeers([]torrent.PeerInfo{s.n.peerInfo(p, torrent.PeerSourceTracker)})
	}
}

// seek has the engine dial some of the peers heard of, if neighbours are missing.
func (s *share) seek() {
	found := s.strangers()
	s.pmu.Lock()
	missing := neighbours - len(s.live)
	s.pmu.Unlock()
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
		s.pmu.Lock()
		if s.known == nil {
			s.known = make(map[netip.AddrPort]struct{})
		}
		for _, a := range addrs {
			s.known[a] = struct{}{}
			if !connected[a] && a != s.n.tr.local && !s.refuses(a, time.Now()) {
				offers = append(offers, s.n.peerInfo(a, torrent.PeerSourceDirect))
			}
		}
		s.pmu.Unlock()
	}
	s.lib.AddPeers(offers)
}

// peerInfo is a peer to be dialled, for the engine.
func (n *Node) peerInfo(a netip.AddrPort, source torrent.PeerSource) torrent.PeerInfo {
	return torrent.PeerInfo{Addr: peerAddr{shown: n.tr.bans.Alias(ban.Suspect{At: a}), real: a}, Source: source}
}
