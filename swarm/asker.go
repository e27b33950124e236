package swarm

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"shoal/swarm/picker"
	"shoal/swarm/wire"
)

// The engine goes through all it lacks whenever a peer announces something, and asks a peer
// at first for one block at a time. So it is not told what peers announce, but only what
// they are to be asked for: one announcement for each piece, instead of one from each
// neighbour, and never more to do than it can do at once. Who is to be asked for what is
// decided by package picker.
//
// A peer that obfuscates all it says (MSE with RC4) is not understood; the engine hears
// all of that itself, and asks as it likes.

// ours marks, in its piece, an announcement that the engine is to hear.
const ours = 1 << 31

const rttEvery = 250 * time.Millisecond // how often the round trip is looked at

// A picking is what one fetch asks of whom; nil is that of a torrent that is not fetched.
type picking struct {
	s     *share
	fresh chan struct{} // has an element when there may be something to pick

	mu     sync.Mutex // guards what follows; never held while the engine is called
	picker *picker.Picker
	askers map[*picker.Peer]*asker
	over   bool // nothing is missing any more
}

// An asker is what is asked of one peer.
type asker struct {
	of   *picking
	c    *conn
	peer *picker.Peer // guarded by of.mu

	whole   bool      // the engine has been told that the peer has everything; guarded by of.mu
	looked  time.Time // at the round trip; used by the reader only
	latency time.Duration
}

func newPicking(s *share) *picking {
	length := func(piece int) int64 {
		_, n, _ := s.info.piece(piece)
		return n
	}
	have := func(piece int) bool { return s.store.Has(piece) }
	return &picking{
		s: s, fresh: make(chan struct{}, 1), askers: make(map[*picker.Peer]*asker),
		picker: picker.New(s.info.Pieces(), s.info.pieceLength, mostRequests*s.block, length, have),
	}
}

// join begins to ask over a connection, unless everything is here.
func (g *picking) join(c *conn) {
	if g == nil || c.tell == nil {
		return
	}
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		return
	}
	a := &asker{of: g, c: c, peer: g.picker.Join(time.Now())}
	g.askers[a.peer] = a
	g.mu.Unlock()
	c.ask.Store(a)
	select {
	case <-c.closed:
		a.leave() // Close may not have seen it
	default:
	}
}

// leave is called when the connection is closed, perhaps twice.
func (a *asker) leave() {
	g := a.of
	g.mu.Lock()
	g.picker.Leave(a.peer)
	delete(g.askers, a.peer)
	g.mu.Unlock()
	g.look()
}

// look has the fetch pick for everybody.
func (g *picking) look() {
	select {
	case g.fresh <- struct{}{}:
	default:
	}
}

// An order is what somebody is to be asked for.
type order struct {
	a      *asker
	pieces []int
	again  bool
}

// give has the engine ask.
func (g *picking) give(orders []order) {
	if len(orders) == 0 {
		return
	}
	<-g.s.opened
	for _, o := range orders {
		var b []byte
		for _, piece := range o.pieces {
			if g.s.wish.note(piece) || o.again {
				g.s.want(piece, o.again)
			}
			b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, wire.HaveLen-4, wire.Have), ours|uint32(piece))
		}
		if !o.again { // or the engine knows
			o.a.c.push(b)
		}
	}
}

// heard notes something of a peer, and picks for it. It is called by the reader.
func (a *asker) heard(f func(k *picker.Picker, now time.Time)) {
	g := a.of
	now := time.Now()
	if now.Sub(a.looked) >= rttEvery {
		a.looked, a.latency = now, a.c.rtt()
	}
	var orders []order
	g.mu.Lock()
	a.peer.Origin, a.peer.RTT = a.c.Class() == ClassOrigin, a.latency
	f(g.picker, now)
	if !g.over {
		if pieces := g.picker.Pick(a.peer, now); len(pieces) > 0 {
			orders = append(orders, order{a: a, pieces: pieces})
		}
	}
	whole := a.tellWhole()
	g.mu.Unlock()
	g.give(orders)
	a.c.push(whole)
}

// gives notes that the peer sends a part of a piece. What is asked for next can be on its
// way while that arrives.
func (a *asker) gives(piece uint32, n int64) {
	if piece < maxPieces {
		a.heard(func(k *picker.Picker, now time.Time) { k.Came(a.peer, int(piece), n, now) })
	}
}

// judged is told what became of a piece.
func (g *picking) judged(piece int, good bool) {
	g.mu.Lock()
	g.picker.Judged(piece, good)
	g.mu.Unlock()
	if !good {
		g.look()
	}
}

// pick picks for everybody, and finds others for what is late.
func (g *picking) pick() {
	var orders []order
	now := time.Now()
	g.mu.Lock()
	g.picker.Late(now, func(p *picker.Peer, piece int, again bool) {
		orders = append(orders, order{a: g.askers[p], pieces: []int{piece}, again: again})
	})
	g.picker.PickAll(now, func(p *picker.Peer, pieces []int) {
		orders = append(orders, order{a: g.askers[p], pieces: pieces})
	})
	g.mu.Unlock()
	g.give(orders)
}

// end is called when everything is here. From now on the engine hears who has everything:
// two who have need no connection.
func (g *picking) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for _, a := range g.askers {
		a.c.push(a.tellWhole())
	}
}

// tellWhole returns what tells the engine that the peer has everything, once, if it has and
// the engine is to know. Called with the lock of the picking held.
func (a *asker) tellWhole() []byte {
	pieces := a.of.s.info.Pieces()
	if a.whole || !a.of.over || a.peer.Announced() < pieces {
		return nil
	}
	a.whole = true
	b := binary.BigEndian.AppendUint32(nil, uint32(1+(pieces+7)/8))
	b = append(b, wire.Bitfield)
	b = append(b, bytes.Repeat([]byte{0xff}, pieces/8)...)
	if rest := pieces % 8; rest > 0 {
		b = append(b, 0xff<<(8-rest))
	}
	return b
}

// said notes what a peer says of its pieces and of its willingness, whole or, of a
// bitfield, when all of it has come. It reports whether the engine is to hear it, too.
func (a *asker) said(id int, body []byte) bool {
	pass := false
	a.heard(func(k *picker.Picker, _ time.Time) {
		switch id {
		case wire.Choke, wire.Unchoke:
			a.peer.Choking = id == wire.Choke
			pass = true
		case wire.Have:
			k.Has(a.peer, int(min(binary.BigEndian.Uint32(body), maxPieces)))
		case wire.HaveAll:
			for piece := range a.of.s.info.Pieces() {
				k.Has(a.peer, piece)
			}
		case wire.Bitfield:
			for piece := range a.of.s.info.Pieces() {
				if hasBit(body, piece) {
					k.Has(a.peer, piece)
				}
			}
		}
	})
	return pass
}
