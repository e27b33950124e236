// Package picker decides which pieces of a torrent are asked of which peer: the rarest that
// the peer has, whole, as much as it can be expected to send within [QueueTime], and each
// of one peer at a time. Who takes far longer than the others, because its link is thin, is
// asked only for what no other has. What does not come in time is asked of somebody else as
// well, so that a peer that claims and does not give costs what it was asked for a second
// or two, and no more.
//
// These are rules alone, like those of package superseed, which decides the other end. They
// have no clock, no lock and no connection: whoever has those tells a [Picker] what peers
// announce and send, and when.
package picker

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"shoal/swarm/pace"
)

const (
	// QueueTime is how long what a peer is asked for should take it, beside two round
	// trips. What waits for one peer cannot come from another, and what a peer has not been
	// asked for in time leaves its link idle. A peer is asked for a piece in any case, which
	// where many share a link takes longer than this.
	QueueTime = 80 * time.Millisecond

	// LateAfter is how long a peer has, at least, for what it is asked before another is
	// asked, too; where pieces take long, it is lateTimes what they take.
	LateAfter = 2 * time.Second
	lateTimes = 4
	mostLate  = 30 * time.Second

	// Who has let all of that time pass is asked for nothing before it has sent something,
	// or so long.
	idleTime = 5 * time.Second

	// A peer is slow if a piece takes it longer than leastSlow, and lateTimes what pieces take.
	leastSlow = 500 * time.Millisecond

	rateSpan     = 250 * time.Millisecond // how far back goes what a peer can be expected to send
	originPieces = 4                      // that an origin is asked for at a time, at least: it gives piece by piece
)

// A Picker decides for one torrent; [New] makes one. It and its peers must not be used by
// two goroutines at a time.
type Picker struct {
	pieces int
	usual  int64
	limit  int64
	length func(piece int) int64
	lacks  set   // pieces that are not here
	free   set   // of those, the ones that nobody is asked for
	copies []int // for each piece, the peers that have it
	peers  []*Peer
	takes  time.Duration // how long a piece takes, lately; 0 if none has come
}

// A Peer is a peer, as the picker knows it; [Picker.Join] makes one.
type Peer struct {
	// Choking says that it answers nothing for now (BEP 3), as peers begin.
	Choking bool
	// Origin says that it is where the torrent comes from, and gives piece by piece.
	Origin bool
	// RTT is a round trip to it, if that is known.
	RTT time.Duration

	gone  bool
	has   set
	told  set // pieces it was asked for, ever
	asks  []ask
	asked int64         // bytes of those that are on their way
	rate  pace.Pace     // of the bytes it sends
	takes time.Duration // how long it takes for a piece, lately; 0 if none has come
	moved time.Time     // when it sent something last, or came
	idle  time.Time     // when it had let all of its time pass; zero before that
}

// An ask is a piece that a peer is asked for and that is not here yet.
type ask struct {
	piece int
	left  int64 // bytes of it that have not come from the peer
	at    time.Time
	late  bool // others may be asked
}

// New returns the picker of a torrent of so many pieces. All have usual bytes but the last;
// length says how many one has, and have whether it is here already. No peer is asked for
// more than limit bytes at a time, or one piece.
func New(pieces int, usual, limit int64, length func(piece int) int64, have func(piece int) bool) *Picker {
	k := &Picker{pieces: pieces, usual: usual, limit: limit, length: length, lacks: newSet(pieces), free: newSet(pieces), copies: make([]int, pieces)}
	for i := range pieces {
		if !have(i) {
			k.lacks.add(i)
			k.free.add(i)
		}
	}
	return k
}

// Join adds a peer, which has nothing and is choking.
func (k *Picker) Join(now time.Time) *Peer {
	p := &Peer{Choking: true, has: newSet(k.pieces), told: newSet(k.pieces), moved: now, rate: pace.New(rateSpan, now)}
	k.peers = append(k.peers, p)
	return p
}

// Leave removes a peer. What it was asked for may be asked of others. A peer may leave
// twice.
func (k *Picker) Leave(p *Peer) {
	if p.gone {
		return
	}
	p.gone = true
	k.peers = slices.DeleteFunc(k.peers, func(o *Peer) bool { return o == p })
	for i := range k.pieces {
		if p.has.has(i) {
			k.copies[i]--
		}
	}
	asks := p.asks
	p.asks = nil
	for _, a := range asks {
		k.release(a.piece)
	}
}

// release frees a piece unless somebody is asked for it, and is not late.
func (k *Picker) release(piece int) {
	if !k.lacks.has(piece) {
		return
	}
	for _, p := range k.peers {
		if slices.ContainsFunc(p.asks, func(a ask) bool { return a.piece == piece && !a.late }) {
			return
		}
	}
	k.free.add(piece)
}

// Has notes that a peer has announced a piece.
func (k *Picker) Has(p *Peer, piece int) {
	if !p.gone && piece < k.pieces && !p.has.has(piece) {
		p.has.add(piece)
		k.copies[piece]++
	}
}

// Announced is how many pieces the peer has announced.
func (p *Peer) Announced() int { return p.has.size() }

// Came notes that n bytes of a piece come from a peer.
func (k *Picker) Came(p *Peer, piece int, n int64, now time.Time) {
	p.rate.Add(n, now)
	p.moved = now
	for i := range p.asks {
		if a := &p.asks[i]; a.piece == piece {
			n = min(n, a.left)
			a.left -= n
			p.asked -= n
			if n > 0 && a.left == 0 {
				k.takes = pace.Smooth(k.takes, now.Sub(a.at), 16)
				p.takes = pace.Smooth(p.takes, now.Sub(a.at), 4)
			}
			return
		}
	}
}

// Judged notes that a piece is whole, and whether it is right.
func (k *Picker) Judged(piece int, good bool) {
	if good {
		k.lacks.remove(piece)
		k.free.remove(piece)
	} else if k.lacks.has(piece) {
		k.free.add(piece)
	}
	for _, p := range k.peers {
		if i := slices.IndexFunc(p.asks, func(a ask) bool { return a.piece == piece }); i >= 0 {
			p.asked -= p.asks[i].left
			p.asks = slices.Delete(p.asks, i, i+1)
		}
	}
}

// most is how many bytes a peer is asked for at a time.
func (k *Picker) most(p *Peer, now time.Time) int64 {
	least := k.usual
	if p.Origin {
		least *= originPieces
	}
	return max(least, min(k.limit, k.usual+int64(p.rate.Rate(now)*(QueueTime+2*p.RTT).Seconds())))
}

// Pick returns what a peer is to be asked for now, rarest first. A peer that is choking is
// asked for one piece it could give: it has to know that something is wanted of it.
func (k *Picker) Pick(p *Peer, now time.Time) (pieces []int) {
	switch {
	case p.gone, p.idles(now):
		return nil
	case p.Choking:
		if p.told.meets(k.lacks) {
			return nil
		}
		piece := k.rarest(p, k.lacks)
		if piece < 0 {
			return nil
		}
		p.told.add(piece)
		return []int{piece}
	}
	// To be asked for a little at a time would cost more: the next is picked when half has
	// come.
	most := k.most(p, now)
	if 2*p.asked > most {
		return nil
	}
	free := k.free
	if k.slow(p, now) {
		free = k.scarce(now)
	}
	for p.asked == 0 || p.asked+k.usual <= most {
		piece := k.rarest(p, free)
		if piece < 0 {
			break
		}
		k.ask(p, piece, now)
		pieces = append(pieces, piece)
	}
	return pieces
}

// slow reports whether a piece takes p, or has been taking it, far longer than pieces take.
func (k *Picker) slow(p *Peer, now time.Time) bool {
	takes := p.takes
	if len(p.asks) > 0 {
		takes = max(takes, now.Sub(p.asks[0].at))
	}
	return k.takes > 0 && takes > max(leastSlow, lateTimes*k.takes)
}

// scarce are the free pieces that only slow peers have.
func (k *Picker) scarce(now time.Time) set {
	s := slices.Clone(k.free)
	for _, p := range k.peers {
		if p.Choking || p.idles(now) || k.slow(p, now) {
			continue
		}
		for w := range s {
			s[w] &^= p.has[w]
		}
	}
	return s
}

// idles reports whether p has let its time pass, and not sent anything since.
func (p *Peer) idles(now time.Time) bool { return p.idle.After(p.moved) && now.Sub(p.idle) < idleTime }

func (k *Picker) ask(p *Peer, piece int, now time.Time) {
	n := k.length(piece)
	p.told.add(piece)
	k.free.remove(piece)
	p.asks = append(p.asks, ask{piece: piece, left: n, at: now})
	p.asked += n
}

// rarest is a piece of those that p has and was never asked for, or -1.
func (k *Picker) rarest(p *Peer, of set) int {
	best, ties := -1, 0
	for w := range of {
		for m := of[w] & p.has[w] &^ p.told[w]; m != 0; m &= m - 1 {
			switch i := 64*w + bits.TrailingZeros64(m); {
			case best < 0 || k.copies[i] < k.copies[best]:
				best, ties = i, 1
			case k.copies[i] == k.copies[best]:
				if ties++; rand.IntN(ties) == 0 {
					best = i
				}
			}
		}
	}
	return best
}

// PickAll picks for all peers, in random order.
func (k *Picker) PickAll(now time.Time, each func(p *Peer, pieces []int)) {
	for _, i := range rand.Perm(len(k.peers)) {
		if pieces := k.Pick(k.peers[i], now); len(pieces) > 0 {
			each(k.peers[i], pieces)
		}
	}
}

// Late finds somebody else for each piece that has not come in time, if there is anybody
// who has it. What a slow peer has not begun to send goes to one that is not, as soon as
// one has it. again says that the peer was asked for it before, or has let it wait.
func (k *Picker) Late(now time.Time, each func(p *Peer, piece int, again bool)) {
	lateAfter := min(max(LateAfter, lateTimes*k.takes), mostLate)
	for _, p := range k.peers {
		for i := range p.asks {
			a := &p.asks[i]
			early := now.Sub(a.at) < lateAfter
			if a.late || early && (a.left < k.length(a.piece) || !k.slow(p, now)) || p.soon(now) {
				continue
			}
			if !p.moved.After(a.at) {
				p.idle = now
			}
			o := k.other(a.piece, now)
			if o == nil || early && k.slow(o, now) {
				continue
			}
			a.late = true // and stays in p.asked: p is asked for nothing more before it has sent this
			again := o.told.has(a.piece)
			k.ask(o, a.piece, now)
			each(o, a.piece, again)
		}
	}
}

// soon reports whether all that p is asked for is about to come.
func (p *Peer) soon(now time.Time) bool {
	return now.Sub(p.moved) < LateAfter/2 && float64(p.asked) < p.rate.Rate(now)*LateAfter.Seconds() && p.asked > 0
}

// other is whoever has a piece, is not asked for it, and for the least else.
func (k *Picker) other(piece int, now time.Time) (best *Peer) {
	for _, p := range k.peers {
		switch {
		case !p.has.has(piece), p.Choking, p.idles(now), p.asked > 0 && now.Sub(p.moved) >= LateAfter:
		case slices.ContainsFunc(p.asks, func(a ask) bool { return a.piece == piece }):
		case best == nil || p.asked < best.asked || p.asked == best.asked && p.moved.After(best.moved):
			best = p
		}
	}
	return best
}
