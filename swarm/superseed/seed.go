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
)

// Every is how often [Seed.Tick] is to be called if nothing happens.
const Every = 100 * time.Millisecond

// FirstOffers is how many pieces a peer is offered at most before it has taken anything;
// each offer it takes allows one more.
const FirstOffers = 4

const (
	// Offers that are being sent at a time, over all peers: spareOffers times as many as
	// are on their way when nothing waits for anything else, and leastOffers. Pieces that
	// are sent side by side are whole, and can be passed on, that much later: one to each
	// of 64 peers at a time, they would take as long as 64 pieces do. How long an offer
	// takes if it need not wait, from when it is made until the last of it is sent, is
	// the least that one of the peer took within briefSpan. (As TCP Vegas goes by the
	// shortest round trip.)
	leastOffers = 4
	spareOffers = 1.5
	briefSpan   = 5 * time.Second
	// An offer that nobody asks for makes room for another after askTime; and if nothing
	// at all is sent for so long, whoever has no offer gets one.
	askTime = 250 * time.Millisecond
	// offerPatience is how long a peer may do nothing with an offer, and the least time
	// it has for all of it.
	offerPatience = 2500 * time.Millisecond
	// An offer has failed if it takes slowOffer times as long as usual, or slowestOffer
	// while nobody has taken any.
	slowOffer    = 4
	slowestOffer = 30 * time.Second

	// A peer gets no second copies if the others will have brought it all it lacks within
	// soonDone, or one part in soonPart of the time it has been here, up to soonMost; going
	// by what they brought in the last paceSpan, and unless muchHelp times that is less
	// than what we could.
	soonDone = time.Second
	soonPart = 2
	soonMost = 10 * time.Second
	muchHelp = 4
	paceSpan = 500 * time.Millisecond
	// A piece is left to the peers while it spreads: for so long after somebody got it, or
	// was offered it. A peer that gets nothing else waits for that for soonDone at most.
	spreadTime = 500 * time.Millisecond

	maxOwed = 2048 // requests of one peer that are kept in mind
)

// A Seed decides which pieces of a torrent are offered to whom; [New] makes one. It and
// its peers, but for [Peer.Wake], must not be used by two goroutines at a time, and the
// times it is told must not go back.
type Seed struct {
	pieces int
	length func(piece int) int64
	order  []int       // of the pieces, at random: decides between equally rare ones
	copies []int       // for each piece, the peers that have it or are on their way to it
	fresh  int         // pieces without any
	failed []bool      // pieces whose first copy took too long
	spread []time.Time // for each piece, when somebody got it, or was offered it, last
	peers  []*Peer
	turn   int  // whose turn it is to be offered something
	firsts int  // offers under way that are the first of their piece
	proven bool // whether who was dealt something last had announced a piece before

	taken pace          // offers
	usual time.Duration // that an offer takes; 0 if none has been taken
	moved time.Time     // when something was sent last
}

// What a peer knows of a piece.
type knowledge uint8

const (
	unaware knowledge = iota // it has not been told
	offered                  // it was told, and should be fetching
	passed                   // it was told, and did not fetch it in time
	owns                     // it has it
)

// A Peer is a peer, as the super seed knows it; [Seed.Join] makes one.
type Peer struct {
	queue []int         // pieces to tell it of
	wake  chan struct{} // has one element when there is something in queue

	willing bool // it can be told
	gone    bool
	knows   []knowledge
	untold  int     // pieces it is unaware of
	lacks   int     // pieces it does not have
	open    []offer // oldest first
	allowed int     // offers, if nobody else wants any

	announces bool // it has announced a piece since it came
	quiet     bool // it takes what it is offered and announces nothing
	idle      bool // it lets offers pass
	joined    time.Time
	active    time.Time          // when it last got something from us
	dealt     time.Time          // when it was last offered something
	waits     time.Time          // since when for pieces to spread; zero if it does not
	owed      map[Block]struct{} // requests that are not answered yet
	gained    pace               // pieces that came from others
	brief     brief              // the time its offers take
}

type offer struct {
	piece int
	first bool
	at    time.Time
	sent  int64
}

// A Block is what a peer asks for at a time: of a piece, from byte Begin on.
type Block struct{ Piece, Begin uint32 }

// New returns the super seed of a torrent of so many pieces, of which nobody has any.
// length says how many bytes a piece has.
func New(pieces int, length func(piece int) int64) *Seed {
	return &Seed{
		pieces: pieces, length: length, order: rand.Perm(pieces),
		copies: make([]int, pieces), fresh: pieces, failed: make([]bool, pieces), spread: make([]time.Time, pieces),
	}
}

// Join adds a peer, which lacks everything. It is not offered anything before Begin.
func (s *Seed) Join(now time.Time) *Peer {
	if !slices.ContainsFunc(s.peers, func(p *Peer) bool { return p.lacks > 0 && !p.idle }) {
		s.recount()
	}
	p := &Peer{
		wake: make(chan struct{}, 1), knows: make([]knowledge, s.pieces), untold: s.pieces, lacks: s.pieces,
		allowed: FirstOffers, joined: now, active: now, owed: make(map[Block]struct{}), gained: pace{since: now},
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

// Leave removes a peer. The seed must not be told of it any more.
func (s *Seed) Leave(p *Peer) {
	p.gone, p.queue = true, nil
	s.peers = slices.DeleteFunc(s.peers, func(o *Peer) bool { return o == p })
	for len(p.open) > 0 {
		s.closeOffer(p, 0)
	}
	if p.lacks == 0 {
		return
	}
	for piece, k := range p.knows {
		if k == owns || k == offered {
			s.count(piece, -1)
		}
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
	p.gained = pace{since: now}
	s.offer(p, now)
}

// Announced notes that p says it has got a piece (BEP 3: have). One that the torrent does
// not have is ignored.
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
			if took := now.Sub(o.at); s.usual == 0 {
				s.usual = took
			} else {
				s.usual += (took - s.usual) / 8
			}
			s.taken.add(now)
			p.allowed++
			p.active, p.idle = now, false
		}
	case unaware:
		p.untold--
		s.count(piece, 1)
	case passed:
		s.count(piece, 1)
	}
	p.knows[piece] = owns
	p.lacks--
	p.waits, s.spread[piece] = time.Time{}, now
	if !ours {
		p.gained.add(now)
	}
}

// Asked notes a request of p, for anything.
func (s *Seed) Asked(p *Peer, b Block) {
	if len(p.owed) < maxOwed {
		p.owed[b] = struct{}{}
	}
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
	switch {
	case age < offerPatience:
		return false
	case still >= offerPatience && len(p.owed) == 0:
		return true // it does not ask, or has all of it and does not say so
	case still >= offerPatience && now.Sub(s.moved) >= offerPatience:
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
	s.count(o.piece, -1)
}

// Pieces is how many pieces the torrent has.
func (s *Seed) Pieces() int { return s.pieces }

// Peers is how many peers have joined and not left.
func (s *Seed) Peers() int { return len(s.peers) }

// Copies returns for each piece how many peers have it or are on their way to it.
func (s *Seed) Copies() []int { return slices.Clone(s.copies) }

// Take returns the pieces that the peer is to be told of, in order, and were not returned
// before.
func (p *Peer) Take() []int {
	queue := p.queue
	p.queue = nil
	return queue
}

// Wake has an element when there may be something to take. It is always the same channel,
// and is never closed.
func (p *Peer) Wake() <-chan struct{} { return p.wake }

// Gone reports whether the peer has left.
func (p *Peer) Gone() bool { return p.gone }

// Lacks is how many pieces the peer does not have.
func (p *Peer) Lacks() int { return p.lacks }

// Offers is how many offers to the peer are under way.
func (p *Peer) Offers() int { return len(p.open) }

// A round is what an offer depends on besides the peer it is made to.
type round struct {
	wanting int // peers that take what they are offered, and lack something
	sending int // offers that are being sent, or may be asked for any moment
	most    int // of those in all
	each    int // and to each peer
	pace    float64
	still   bool // nothing has been sent for a while
}

func (s *Seed) round(now time.Time) round {
	r := round{pace: s.taken.rate(now), still: now.Sub(s.moved) >= askTime}
	var brief time.Duration
	known := 0
	for _, p := range s.peers {
		r.sending += s.sending(p, now)
		if p.wanting() {
			r.wanting++
		}
		if least := p.brief.least(); least > 0 {
			brief += least
			known++
		}
	}
	r.most = leastOffers + int(spareOffers*r.pace*brief.Seconds()/float64(max(1, known)))
	r.each = max(1, r.most/max(1, r.wanting))
	return r
}

func (p *Peer) wanting() bool { return p.willing && p.untold > 0 && !p.idle }

// sending is how many offers p is being sent, or may ask for any moment.
func (s *Seed) sending(p *Peer, now time.Time) int {
	n := 0
	for _, o := range p.open {
		if o.sent < s.length(o.piece) && (o.sent > 0 || len(p.owed) > 0 || now.Sub(o.at) < askTime) {
			n++
		}
	}
	return n
}

// deal offers something to whoever has waited longest for it, after p has got what it was
// offered, or says so. Peers that have announced a piece before, and those that have not,
// take turns: the first cannot be kept waiting by a crowd of the others.
func (s *Seed) deal(p *Peer, now time.Time) {
	for s.fresh > 0 {
		r := s.round(now)
		if r.sending >= r.most {
			return
		}
		var next [2]*Peer
		for _, o := range s.peers {
			if !o.wanting() || len(o.open) >= o.allowed || s.sending(o, now) >= r.each {
				continue
			}
			n := &next[0]
			if o.announces {
				n = &next[1]
			}
			if *n == nil || o.dealt.Before((*n).dealt) {
				*n = o
			}
		}
		one := next[0]
		if one == nil || next[1] != nil && !s.proven {
			one = next[1]
		}
		if one == nil || !s.offer(one, now) {
			break
		}
		s.proven = one.announces
	}
	s.offer(p, now)
}

// offer tells p of as many pieces as is right now, and reports whether there are any.
func (s *Seed) offer(p *Peer, now time.Time) bool {
	if !p.willing || p.untold == 0 || len(p.open) >= p.allowed {
		return false
	}
	r := s.round(now)
	others := r.wanting
	if p.wanting() {
		others--
	}
	told := len(p.queue)
	for len(p.open) < p.allowed && s.sending(p, now) < r.each && (r.sending < r.most || len(p.open) == 0 && r.still) {
		piece := s.pick(p, !p.idle || others == 0, r.pace/float64(max(1, r.wanting)), now)
		if piece < 0 {
			break
		}
		// A piece somebody has let pass already is not waited for again.
		first := s.copies[piece] == 0 && !s.failed[piece]
		if first {
			s.firsts++
		}
		if s.moved.IsZero() {
			s.moved = now
		}
		r.sending++
		s.count(piece, 1)
		s.spread[piece], p.dealt = now, now
		p.open = append(p.open, offer{piece: piece, first: first, at: now})
		p.knows[piece] = offered
		p.untold--
		p.queue = append(p.queue, piece)
	}
	if len(p.queue) > 0 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return len(p.queue) > told
}

// pick chooses a piece for p, or -1 if it should be offered none now: one that nobody
// has, if p can be trusted with that; or else the rarest. We bring each peer ours pieces
// per second.
func (s *Seed) pick(p *Peer, trusted bool, ours float64, now time.Time) int {
	if s.fresh > 0 && trusted {
		for _, piece := range s.order {
			if s.copies[piece] == 0 && p.knows[piece] == unaware {
				return piece
			}
		}
	}
	soon := min(max(soonDone, now.Sub(p.joined)/soonPart), soonMost)
	theirs := p.gained.rate(now)
	if s.firsts > 0 || muchHelp*theirs > ours && theirs*soon.Seconds() >= float64(p.lacks) {
		return -1
	}
	patient := p.waits.IsZero() || now.Sub(p.waits) < soonDone
	best := -1
	for _, piece := range s.order {
		switch {
		case p.knows[piece] != unaware, s.copies[piece] == 0 && !trusted:
		case best >= 0 && s.copies[piece] >= s.copies[best]:
		case patient && now.Sub(s.spread[piece]) < spreadTime:
			if p.waits.IsZero() {
				p.waits = now
			}
		default:
			best = piece
		}
	}
	return best
}

// A pace is how often something happened lately.
type pace struct {
	since time.Time
	n     int     // since then
	last  float64 // per second, in the time before
}

func (p *pace) add(now time.Time) {
	p.roll(now)
	p.n++
}

// rate is per second.
func (p *pace) rate(now time.Time) float64 {
	p.roll(now)
	return max(p.last, float64(p.n)/paceSpan.Seconds())
}

func (p *pace) roll(now time.Time) {
	if over := now.Sub(p.since); over >= paceSpan {
		p.last = float64(p.n) / over.Seconds()
		p.n, p.since = 0, now
	}
}

// A brief is the least of the durations of late: of a span of [briefSpan] and the one
// before.
type brief struct {
	since     time.Time
	now, last time.Duration // 0 if there were none
}

func (b *brief) add(d time.Duration, now time.Time) {
	if now.Sub(b.since) >= briefSpan {
		b.last, b.now, b.since = b.now, 0, now
	}
	if b.now == 0 || d < b.now {
		b.now = max(d, 1)
	}
}

// least is 0 if there is none.
func (b *brief) least() time.Duration {
	if b.now == 0 || b.last > 0 && b.last < b.now {
		return b.last
	}
	return b.now
}
