// Package superseed decides which pieces a super seed (after BEP 16) offers to whom, so that
// what it sends is what the others lack: a swarm that shares what it gets has a whole copy
// among its peers when little more than one copy has been sent. One rule does most of it:
// no second copy of anything is offered as long as first copies are under way.
//
// The super seed claims to have nothing, and offers its pieces by and by, to different
// peers. Nobody is believed more than that: a peer that lets offers pass, asks and does not
// read, or announces nothing holds up the others for a while only; and whoever stays is
// offered every piece it lacks in the end.
//
// These are rules alone. They have no clock, no lock and no connection: whoever has those
// tells a [Seed] what peers say and are sent, and when, and tells each [Peer] of the pieces
// that are offered to it.
package superseed

import (
	"math/rand/v2"
	"slices"
	"time"

	"shoal/swarm/pace"
)

// Every is how often [Seed.Tick] is to be called if nothing happens.
const Every = 100 * time.Millisecond

// FirstOffers is how many pieces a peer is offered at most before it has taken anything;
// each offer it takes allows one more.
const FirstOffers = 4

const (
	// offerPatience is how long a peer may do nothing with an offer, and the least time
	// it has for all of it.
	offerPatience = 2500 * time.Millisecond
	// An offer has failed if it takes slowOffer times as long as usual, or slowestOffer
	// while nobody has taken any.
	slowOffer    = 4
	silentOffer  = 2 // times as long as usual, without a word after something was sent
	slowestOffer = 30 * time.Second
)

// A Seed decides which pieces of a torrent are offered to whom; [New] makes one. It and
// its peers, but for [Peer.Wake], must not be used by two goroutines at a time, and the
// times it is told must not go back.
type Seed struct {
	pieces int
	length func(piece int) int64
	order  []int       // of the pieces: decides between equally rare ones
	mixed  bool        // it is drawn at random
	copies []int       // for each piece, the peers that have it or are on their way to it
	fresh  int         // pieces without any
	had    []bool      // pieces that somebody has had
	failed []bool      // pieces whose first copy took too long
	bearer []*Peer     // of each piece, see spreadPart; nil if it has none
	spread []time.Time // for each piece, when somebody got it, or was offered it, last
	peers  []*Peer
	turn   int  // whose turn it is to be offered something
	firsts int  // offers under way that are the first of their piece
	proven bool // whether who was dealt something last had announced a piece before

	taken pace.Pace     // offers
	usual time.Duration // that an offer takes; 0 if none has been taken
	asks  time.Duration // how long it takes until an offer is asked for; 0 if none has been
	moved time.Time     // when something was sent last, or could be again
}

// New returns the super seed of a torrent of so many pieces, of which nobody has any. It
// offers them from first to last, so that the others can look at what they get while it
// comes; or in random order, once somebody has got a piece elsewhere: two super seeds that
// both begin with the first would give the same.
// length says how many bytes a piece has.
func New(pieces int, length func(piece int) int64) *Seed {
	s := &Seed{
		pieces: pieces, length: length, order: make([]int, pieces), had: make([]bool, pieces), bearer: make([]*Peer, pieces),
		copies: make([]int, pieces), taken: pace.New(paceSpan, time.Time{}), fresh: pieces, failed: make([]bool, pieces), spread: make([]time.Time, pieces),
	}
	for piece := range s.order {
		s.order[piece] = piece
	}
	return s
}

// mix draws the order of the pieces at random.
func (s *Seed) mix() {
	s.mixed = true
	rand.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
}

// Pieces is how many pieces the torrent has.
func (s *Seed) Pieces() int { return s.pieces }

// Peers is how many peers have joined and not left.
func (s *Seed) Peers() int { return len(s.peers) }

// Copies returns for each piece how many peers have it or are on their way to it.
func (s *Seed) Copies() []int { return slices.Clone(s.copies) }

// Join adds a peer, which lacks everything. It is not offered anything before Begin.
func (s *Seed) Join(now time.Time) *Peer {
	if !slices.ContainsFunc(s.peers, func(p *Peer) bool { return p.lacks > 0 && !p.idle }) {
		s.recount()
	}
	p := &Peer{
		wake: make(chan struct{}, 1), knows: make([]knowledge, s.pieces), untold: s.pieces, lacks: s.pieces,
		allowed: FirstOffers, joined: now, active: now, owed: make(map[Block]struct{}), gained: pace.New(paceSpan, now),
	}
	s.peers = append(s.peers, p)
	return p
}

// recount forgets the copies of peers that are gone. The pieces of those that leave with
// all of them count until then: they are likely to have gone on giving elsewhere.
func (s *Seed) recount() {
	clear(s.copies)
	clear(s.failed)
	s.fresh = s.pieces
	for _, p := range s.peers {
		for piece, k := range p.knows {
			if k == owns || k == offered {
				s.count(piece, 1)
			}
		}
	}
}

func (s *Seed) count(piece, by int) {
	if s.copies[piece] == 0 {
		s.fresh--
	}
	if s.copies[piece] += by; s.copies[piece] == 0 {
		s.fresh++
	}
}

// Leave removes a peer, and offers the others what it was offered. The seed must not be told
// of it any more.
func (s *Seed) Leave(p *Peer, now time.Time) {
	p.gone, p.queue = true, nil
	s.peers = slices.DeleteFunc(s.peers, func(o *Peer) bool { return o == p })
	for len(p.open) > 0 {
		s.closeOffer(p, 0)
	}
	for piece, k := range p.knows {
		if s.bearer[piece] == p {
			s.relieve(piece)
		}
		if p.lacks > 0 && (k == owns || k == offered) {
			s.count(piece, -1)
		}
	}
	s.dealAll(now)
}

// bear notes that p is given the first copy of a piece.
func (s *Seed) bear(p *Peer, piece int) {
	s.relieve(piece)
	s.bearer[piece] = p
	p.bears++
}

// relieve notes that there are others to ask for a piece.
func (s *Seed) relieve(piece int) {
	if p := s.bearer[piece]; p != nil {
		p.bears--
		s.bearer[piece] = nil
	}
}

// closeOffer takes offer i of p off the books.
func (s *Seed) closeOffer(p *Peer, i int) offer {
	o := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	if o.first {
		s.firsts--
	}
	return o
}

// Begin says that p believes that we have nothing, and can be offered pieces.
func (s *Seed) Begin(p *Peer, now time.Time) {
	p.willing = true
	s.offer(p, now)
}

// Brought notes what p says it has when it comes (BEP 3: bitfield; BEP 6: have all). It
// does so once at most.
func (s *Seed) Brought(p *Peer, has func(piece int) bool, now time.Time) {
	for piece := range s.pieces {
		if has(piece) {
			s.got(p, piece, now)
			s.spread[piece] = time.Time{}
		}
	}
	p.gained = pace.New(paceSpan, now)
	s.offer(p, now)
}

// Announced notes that p says it has got a piece (BEP 3: have). It is not negative;
// one that the torrent does not have is ignored.
func (s *Seed) Announced(p *Peer, piece int, now time.Time) {
	if piece < s.pieces {
		p.announces, p.quiet = true, false
		s.got(p, piece, now)
		s.deal(p, now)
	}
}

// got notes that p has a piece.
func (s *Seed) got(p *Peer, piece int, now time.Time) {
	ours := false
	switch p.knows[piece] {
	case owns:
		return
	case offered:
		i := slices.IndexFunc(p.open, func(o offer) bool { return o.piece == piece })
		o := s.closeOffer(p, i)
		if ours = o.sent > 0; ours {
			s.usual = pace.Smooth(s.usual, now.Sub(o.at), 8)
			s.taken.Add(1, now)
			p.allowed++
			p.active, p.idle = now, false
		}
	case unaware:
		if !s.had[piece] && !s.mixed {
			s.mix()
		}
		p.untold--
		s.count(piece, 1)
	case passed:
		s.count(piece, 1)
	}
	p.knows[piece], s.had[piece] = owns, true
	if s.copies[piece] >= (len(s.peers)+1)/spreadPart {
		s.relieve(piece)
	}
	p.lacks--
	p.waits, s.spread[piece] = time.Time{}, now
	if !ours {
		p.gained.Add(1, now)
	}
}

// Asked notes a request of p, for anything.
func (s *Seed) Asked(p *Peer, b Block, now time.Time) {
	if len(p.owed) < maxOwed {
		p.owed[b] = struct{}{}
	}
	for i := range p.open {
		if o := &p.open[i]; o.piece == int(b.Piece) && !o.asked {
			o.asked = true
			// Who asks late on purpose makes us no more patient than that.
			s.asks = pace.Smooth(s.asks, min(now.Sub(o.at), offerPatience), 16)
			return
		}
	}
}

// askTime is how long an offer may take to be asked for: it may have to wait behind what is
// sent before it.
func (s *Seed) askTime() time.Duration {
	if s.asks == 0 {
		return firstAsk
	}
	return min(max(leastAsk, 2*s.asks), offerPatience)
}

// Answered notes that a request of p is off the table: with n bytes of payload, or with
// none because it was cancelled or refused.
func (s *Seed) Answered(p *Peer, b Block, n int64, now time.Time) {
	delete(p.owed, b)
	if n == 0 {
		return
	}
	p.active, p.idle = now, false
	s.moved = now
	for i := range p.open {
		if o := &p.open[i]; o.piece == int(b.Piece) {
			o.sent += n
			if o.sent >= s.length(o.piece) {
				p.brief.add(now.Sub(o.at), now)
				if p.quiet {
					s.got(p, o.piece, now)
				}
				s.deal(p, now)
			}
			return
		}
	}
}

// Tick does what time alone brings about. It reports whether there is anything to wait
// for.
func (s *Seed) Tick(now time.Time) (again bool) {
	for _, p := range s.peers {
		for i := 0; i < len(p.open); {
			if s.overdue(p, p.open[i], now) {
				s.pass(p, i, now)
			} else {
				i++
			}
		}
	}
	for i := range s.peers {
		p := s.peers[(s.turn+i)%len(s.peers)]
		s.offer(p, now)
		again = again || p.willing && p.untold > 0 || len(p.open) > 0
	}
	s.turn++
	return again
}

// overdue reports whether an offer has failed.
func (s *Seed) overdue(p *Peer, o offer, now time.Time) bool {
	age, still := now.Sub(o.at), now.Sub(p.active)
	silent := max(offerPatience, slowOffer*s.asks)
	if o.sent > 0 {
		silent = max(silent, silentOffer*s.usual) // what was sent may be on its way for long
	}
	switch {
	case age < offerPatience:
		return false
	case still >= silent && len(p.owed) == 0:
		return true // it does not ask, or has all of it and does not say so
	case len(p.owed) > 0 && still >= offerPatience && now.Sub(s.moved) >= offerPatience:
		return true // it asks and does not read
	case s.usual > 0:
		return age >= slowOffer*s.usual
	}
	return age >= slowestOffer
}

// pass gives up on offer i of p.
func (s *Seed) pass(p *Peer, i int, now time.Time) {
	if o := p.open[i]; o.sent >= s.length(o.piece) && !p.announces {
		p.quiet = true
		s.got(p, o.piece, now)
		return
	}
	o := s.closeOffer(p, i)
	p.knows[o.piece], p.idle = passed, true
	s.failed[o.piece] = true
	s.relieve(o.piece)
	s.count(o.piece, -1)
}
