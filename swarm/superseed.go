package swarm

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Super seeding (after BEP 16): the publisher's seed claims to have nothing and offers
// its pieces by and by, to different peers, so that what it sends is what the others
// lack. One rule does most of it: no second copy of anything is offered as long as first
// copies are under way.
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
	// firstOffers is what a peer gets before it has taken anything; each offer it takes
	// allows one more.
	firstOffers = 4

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

	// offersEvery is how often offers are looked at if nothing happens.
	offersEvery = 100 * time.Millisecond

	maxOwed = maxHeld // requests of one peer that are kept in mind
)

// A superSeed decides which pieces of a torrent are offered to whom. It has no clock and
// no lock; what it offers is in [offeree.queue].
type superSeed struct {
	pieces int
	length func(piece int) int64
	order  []int       // of the pieces, at random: decides between equally rare ones
	copies []int       // for each piece, the peers that have it or are on their way to it
	fresh  int         // pieces without any
	failed []bool      // pieces whose first copy took too long
	spread []time.Time // for each piece, when somebody got it, or was offered it, last
	peers  []*offeree
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

// An offeree is a peer, as the super seed knows it.
type offeree struct {
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
	active    time.Time            // when it last got something from us
	dealt     time.Time            // when it was last offered something
	waits     time.Time            // since when for pieces to spread; zero if it does not
	owed      map[blockID]struct{} // requests that are not answered yet
	gained    pace                 // pieces that came from others
	brief     brief                // the time its offers take
}

type offer struct {
	piece int
	first bool
	at    time.Time
	sent  int64
}

type blockID struct{ piece, begin uint32 }

func newSuperSeed(pieces int, length func(piece int) int64) *superSeed {
	return &superSeed{
		pieces: pieces, length: length, order: rand.Perm(pieces),
		copies: make([]int, pieces), fresh: pieces, failed: make([]bool, pieces), spread: make([]time.Time, pieces),
	}
}

// join adds a peer. It is not offered anything before begin.
func (s *superSeed) join(now time.Time) *offeree {
	if !slices.ContainsFunc(s.peers, func(p *offeree) bool { return p.lacks > 0 && !p.idle }) {
		s.recount()
	}
	p := &offeree{
		wake: make(chan struct{}, 1), knows: make([]knowledge, s.pieces), untold: s.pieces, lacks: s.pieces,
		allowed: firstOffers, joined: now, active: now, owed: make(map[blockID]struct{}), gained: pace{since: now},
	}
	s.peers = append(s.peers, p)
	return p
}

// recount forgets the copies of peers that are gone. The pieces of those that leave with
// all of them count until then: they are likely to have gone on giving elsewhere.
func (s *superSeed) recount() {
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

func (s *superSeed) count(piece, by int) {
	if s.copies[piece] == 0 {
		s.fresh--
	}
	if s.copies[piece] += by; s.copies[piece] == 0 {
		s.fresh++
	}
}

// leave removes a peer.
func (s *superSeed) leave(p *offeree) {
	p.gone, p.queue = true, nil
	s.peers = slices.DeleteFunc(s.peers, func(o *offeree) bool { return o == p })
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
func (s *superSeed) closeOffer(p *offeree, i int) offer {
	o := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	if o.first {
		s.firsts--
	}
	return o
}

// begin says that p believes that we have nothing, and can be offered pieces.
func (s *superSeed) begin(p *offeree, now time.Time) {
	p.willing = true
	s.offer(p, now)
}

// brought notes what p says it has when it comes.
func (s *superSeed) brought(p *offeree, has func(piece int) bool, now time.Time) {
	for piece := range s.pieces {
		if has(piece) {
			s.got(p, piece, now)
			s.spread[piece] = time.Time{}
		}
	}
	p.gained = pace{since: now}
	s.offer(p, now)
}

// announced notes that p says it has got a piece.
func (s *superSeed) announced(p *offeree, piece int, now time.Time) {
	if piece < s.pieces {
		p.announces, p.quiet = true, false
		s.got(p, piece, now)
		s.deal(p, now)
	}
}

// got notes that p has a piece.
func (s *superSeed) got(p *offeree, piece int, now time.Time) {
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

// asked notes a request of p.
func (s *superSeed) asked(p *offeree, b blockID) {
	if len(p.owed) < maxOwed {
		p.owed[b] = struct{}{}
	}
}

// answered notes that a request of p is off the table: with n bytes of payload, or with
// none because it was cancelled or refused.
func (s *superSeed) answered(p *offeree, b blockID, n int64, now time.Time) {
	delete(p.owed, b)
	if n == 0 {
		return
	}
	p.active, p.idle = now, false
	s.moved = now
	for i := range p.open {
		if o := &p.open[i]; o.piece == int(b.piece) {
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

// tick does what time alone brings about. It reports whether there is anything to wait
// for.
func (s *superSeed) tick(now time.Time) (again bool) {
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
func (s *superSeed) overdue(p *offeree, o offer, now time.Time) bool {
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
func (s *superSeed) pass(p *offeree, i int, now time.Time) {
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

// A round is what an offer depends on besides the peer it is made to.
type round struct {
	wanting int // peers that take what they are offered, and lack something
	sending int // offers that are being sent, or may be asked for any moment
	most    int // of those in all
	each    int // and to each peer
	pace    float64
	still   bool // nothing has been sent for a while
}

func (s *superSeed) round(now time.Time) round {
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

func (p *offeree) wanting() bool { return p.willing && p.untold > 0 && !p.idle }

// sending is how many offers p is being sent, or may ask for any moment.
func (s *superSeed) sending(p *offeree, now time.Time) int {
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
func (s *superSeed) deal(p *offeree, now time.Time) {
	for s.fresh > 0 {
		r := s.round(now)
		if r.sending >= r.most {
			return
		}
		var next [2]*offeree
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
func (s *superSeed) offer(p *offeree, now time.Time) bool {
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
func (s *superSeed) pick(p *offeree, trusted bool, ours float64, now time.Time) int {
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
