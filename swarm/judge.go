package swarm

import (
	"math/rand/v2"
	"slices"
	"time"

	"shoal/swarm/ban"
)

// asideTime is how long those who may have spoilt a piece are left out, and up to twice
// that.
const asideTime = 2 * time.Second

// A piece comes in blocks from several peers. If it is not right, the engine bans the one
// peer that all of it came from, or finds the liar by comparing blocks once the piece is
// right. But among many liars it may never be: then those that took part are left out for
// a moment, half of them at a time and the least proven first, until the honest are among
// themselves.

// touch notes that p brought a part of a piece. Called with s.pmu held.
func (s *share) touch(piece int, p *peer) {
	if s.touched == nil {
		s.touched = make(map[int][]*peer)
	}
	if by := s.touched[piece]; !slices.Contains(by, p) {
		s.touched[piece] = append(by, p)
	}
}

// judged is told by the store what became of a piece.
func (s *share) judged(piece int, good bool) {
	s.picking.judged(piece, good)
	s.pmu.Lock()
	by := s.touched[piece]
	delete(s.touched, piece)
	for _, p := range by {
		if good {
			p.good++
		} else {
			p.bad++
		}
	}
	var aside []*peer
	if !good && len(by) > 1 {
		aside = s.doubtful(by)
	}
	s.pmu.Unlock()
	if !good && len(by) == 1 {
		s.n.tr.bans.Prove(by[0].suspect())
	}
	for _, p := range aside {
		who := p.suspect()
		s.n.log.Debug("leaving out a peer that took part in a bad piece", "peer", p.remote.String())
		s.n.tr.bans.Aside(who, asideTime+rand.N(asideTime))
		s.n.tr.expel(who)
	}
}

// suspect is who would be banned for what p sends.
func (p *peer) suspect() ban.Suspect { return ban.Suspect{Identity: p.member, At: p.remote} }

// doubtful chooses whom to leave out of those who took part in a bad piece: not the origin,
// nor a configured peer as long as there is anyone else. Called with s.pmu held.
func (s *share) doubtful(by []*peer) []*peer {
	others := slices.DeleteFunc(slices.Clone(by), s.chosen)
	if len(others) == 0 {
		others = slices.Clone(by)
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	slices.SortStableFunc(others, func(a, b *peer) int { return b.doubt() - a.doubt() })
	return others[:(len(others)+1)/2]
}

// chosen reports whether p is the origin or a configured peer. Called with s.pmu held.
func (s *share) chosen(p *peer) bool {
	_, known := s.known[p.reached()]
	return known || p.class(s.n.tr.classes) == ClassOrigin
}

// doubt is the share of bad pieces among those p took part in, per cent.
func (p *peer) doubt() int { return 100 * p.bad / max(1, p.good+p.bad) }
