package superseed

import "time"

const (
	// Offers that are being sent at a time, over all peers: spareOffers times as many as
	// are on their way when nothing waits for anything else, and leastOffers. Pieces that
	// are sent side by side are whole, and can be passed on, that much later: one to each
	// of 64 peers at a time, they would take as long as 64 pieces do. How long an offer
	// takes if it need not wait, from when it is made until the last of it is sent, is
	// the least that one of the peer took within briefSpan. (As TCP Vegas goes by the
	// shortest round trip.) Where many are sent side by side for longer than that, all of
	// them wait, and that must not allow for more of them: no offer is taken to need more
	// than mostBrief, or leastOffers pieces.
	leastOffers = 4
	spareOffers = 1.5
	mostBrief   = time.Second
	// An offer that nobody asks for makes room for another after leastAsk, or twice as long
	// as it takes the others to ask, and after firstAsk as long as nobody has. If nothing at
	// all is sent for so long, there is room for leastOffers more, one to each peer that has
	// none, and for twice as many each time again: those that were offered something may all
	// be silent, or all be slow.
	leastAsk    = 250 * time.Millisecond
	firstAsk    = 500 * time.Millisecond
	mostDoubled = 8

	// Who was given the first copy of a piece bears it until one peer in spreadPart has it, or
	// is about to: until then the others ask for it there, and whoever bears most is given
	// the next piece last. Where links differ, those with thin ones are given less.
	spreadPart = 2

	// A peer gets no second copies if the others will have brought it all it lacks within
	// soonDone, or one part in soonPart of the time it has been here, up to soonMost; going
	// by what they brought in the last paceSpan, and unless muchHelp times that is less
	// than what we could.
	soonDone = time.Second
	soonPart = 2
	soonMost = 10 * time.Second
	muchHelp = 4
	// A piece is left to the peers while it spreads: for so long after somebody got it, or
	// was offered it. A peer that gets nothing else waits for that for soonDone at most.
	spreadTime = 500 * time.Millisecond
)

// A round is what an offer depends on besides the peer it is made to.
type round struct {
	wanting int // peers that take what they are offered, and lack something
	open    int // offers that are under way
	sending int // of those, the ones that are being sent, or may be asked for any moment
	most    int // of the latter in all
	each    int // and to each peer
	pace    float64
	more    int // than most, to peers that have none, because nothing has been sent for a while
}

func (s *Seed) round(now time.Time) round {
	r := round{pace: s.taken.Rate(now)}
	var brief time.Duration
	known := 0
	for _, p := range s.peers {
		r.open += len(p.open)
		r.sending += s.sending(p, now)
		if p.wanting() {
			r.wanting++
		}
		if least := p.brief.least(); least > 0 {
			brief += least
			known++
		}
	}
	alone := r.pace * brief.Seconds() / float64(max(1, known))
	alone = min(alone, max(r.pace*mostBrief.Seconds(), leastOffers))
	r.most = leastOffers + int(spareOffers*alone)
	if silent := int(now.Sub(s.moved) / s.askTime()); silent > 0 && r.open > 0 {
		r.more = leastOffers << min(silent-1, mostDoubled)
	}
	r.each = max(1, r.most/max(1, r.wanting))
	return r
}

// sending is how many offers p is being sent, or may ask for any moment.
func (s *Seed) sending(p *Peer, now time.Time) int {
	n := 0
	for _, o := range p.open {
		if o.sent < s.length(o.piece) && (o.sent > 0 || len(p.owed) > 0 || now.Sub(o.at) < s.askTime()) {
			n++
		}
	}
	return n
}

// deal offers something after p has got what it was offered, or says so.
func (s *Seed) deal(p *Peer, now time.Time) {
	if !s.dealAll(now) {
		s.offer(p, now)
	}
}

// dealAll offers pieces that nobody has as long as more can be sent, each to who bears
// least, or has waited longest; it reports whether no more can. Peers that have announced a
// piece before, and those that have not, take turns: the first cannot be kept waiting by a
// crowd of the others.
func (s *Seed) dealAll(now time.Time) (full bool) {
	for s.fresh > 0 {
		r := s.round(now)
		if r.sending >= r.most {
			return true
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
			if *n == nil || o.bears < (*n).bears || o.bears == (*n).bears && o.dealt.Before((*n).dealt) {
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
	return false
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
	for len(p.open) < p.allowed && s.sending(p, now) < r.each && (r.sending < r.most || len(p.open) == 0 && r.sending < r.most+r.more) {
		piece := s.pick(p, !p.idle || others == 0, r.pace/float64(max(1, r.wanting)), now)
		if piece < 0 {
			break
		}
		// A piece somebody has let pass already is not waited for again.
		first := s.copies[piece] == 0 && !s.failed[piece]
		if first {
			s.firsts++
			s.bear(p, piece)
		}
		if r.open == 0 {
			s.moved = now // who has nothing to send is not silent
		}
		r.open++
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
	theirs := p.gained.Rate(now)
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
