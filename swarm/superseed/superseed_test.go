package superseed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A crowd is a publisher and its peers in a world of equal steps: everybody sends some
// blocks a step, and what is announced is known one step later.
type crowd struct {
	t      *testing.T
	s      *Seed
	now    time.Time
	up     float64 // blocks the publisher sends in a step
	credit float64
	peers  []*member
	rng    *rand.Rand

	sent     int                 // blocks, by the publisher
	given    []bool              // pieces that have been offered to anyone
	underWay map[int]*firstOffer // pieces offered to one peer, which has not announced them
}

type firstOffer struct {
	to *member
	at time.Time
}

// A member is one peer. Zero is one that does everything, but sends nothing to others.
type member struct {
	up         float64 // blocks it sends in a step
	reads      float64 // blocks it takes from the publisher in a step; 0 is any number
	from, till int     // steps it is there; till 0 is for ever
	has        int     // pieces it has already, from the front
	deaf       bool    // it does not fetch
	mute       bool    // it announces nothing
	stuck      bool    // it asks, and does not read what it gets
	refuses    int     // a piece it does not fetch, plus one

	p       *Peer
	pieces  []bool
	missing int
	told    []int
	asked   []Block
	got     map[int]int // blocks of pieces
	credit  float64
	reading float64
	news    []int // to be announced
	done    int   // the step it had everything
}

const (
	step           = 10 * time.Millisecond
	blocksPerPiece = 4
	maxAsked       = 16
)

func (c *crowd) run(pieces, steps int) {
	c.now = time.Unix(1e9, 0)
	c.s = New(pieces, func(int) int64 { return blocksPerPiece })
	c.s.order = c.rng.Perm(pieces)
	c.given, c.underWay = make([]bool, pieces), make(map[int]*firstOffer)
	for n := range steps {
		c.now = c.now.Add(step)
		left := 0
		for _, m := range c.peers {
			switch {
			case n == m.from:
				c.join(m, pieces)
			case m.till > 0 && n == m.till:
				c.s.Leave(m.p, c.now)
				for piece, f := range c.underWay {
					if f.to == m {
						delete(c.underWay, piece)
					}
				}
				m.p, m.asked = nil, nil
			}
			if m.missing > 0 || n < m.from {
				left++
			}
		}
		if left == 0 {
			return
		}
		c.serve()
		c.exchange()
		c.announce(n)
		if n%int(Every/step) == 0 {
			c.s.Tick(c.now)
			c.listen()
		}
	}
}

func (c *crowd) join(m *member, pieces int) {
	m.p = c.s.Join(c.now)
	m.pieces, m.missing, m.got = make([]bool, pieces), pieces-m.has, make(map[int]int)
	for i := range m.has {
		m.pieces[i], c.given[i] = true, true
	}
	c.s.Brought(m.p, func(piece int) bool { return piece < m.has }, c.now)
	c.s.Begin(m.p, c.now)
	c.listen()
}

// listen lets everyone hear what it is offered, and checks that it may be.
func (c *crowd) listen() {
	for _, m := range c.peers {
		if m.p == nil {
			continue
		}
		for _, piece := range m.p.queue {
			c.check(m, piece)
			if slices.Contains(m.told, piece) {
				c.t.Fatalf("piece %d is offered to one peer twice", piece)
			}
			m.told = append(m.told, piece)
			if !m.pieces[piece] && !m.deaf && m.refuses != piece+1 {
				for b := range blocksPerPiece {
					m.asked = append(m.asked, Block{uint32(piece), uint32(b)})
				}
			}
		}
		m.p.queue = nil
		for _, b := range m.asked[:min(len(m.asked), maxAsked)] {
			c.s.Asked(m.p, b, c.now)
		}
	}
}

// check is the rule: no second copy while a first one is under way, for as long as a
// peer may take.
func (c *crowd) check(m *member, piece int) {
	first := !c.given[piece]
	c.given[piece] = true
	if first {
		c.underWay[piece] = &firstOffer{m, c.now}
		return
	}
	for other, f := range c.underWay {
		if c.now.Sub(f.at) < offerPatience && f.to.p != nil && f.to != m {
			// A piece that went with a peer that left is given for the first time again.
			if c.held(piece) {
				c.t.Fatalf("a second copy of piece %d is offered while the first of %d is under way for %v", piece, other, c.now.Sub(f.at))
			}
		}
	}
}

// held reports whether a peer that is there has the piece, or is being sent it.
func (c *crowd) held(piece int) bool {
	for _, m := range c.peers {
		if m.p != nil && m.p.knows[piece] == owns {
			return true
		}
	}
	f := c.underWay[piece]
	return f != nil && f.to.p != nil && c.now.Sub(f.at) < offerPatience
}

// serve sends what the publisher can send in a step, a block to each in turn.
func (c *crowd) serve() {
	for _, m := range c.peers {
		m.reading = min(m.reading+m.reads, 4)
	}
	for c.credit = min(c.credit+c.up, c.up+1); c.credit >= 1; {
		busy := false
		for _, m := range c.peers {
			if m.p == nil || len(m.asked) == 0 || m.stuck || c.credit < 1 || m.reads > 0 && m.reading < 1 {
				continue
			}
			busy = true
			c.credit--
			m.reading--
			b := m.asked[0]
			m.asked = m.asked[1:]
			c.sent++
			c.s.Answered(m.p, b, 1, c.now)
			m.receive(int(b.Piece), 1)
			if len(m.asked) >= maxAsked {
				c.s.Asked(m.p, m.asked[maxAsked-1], c.now)
			}
		}
		if !busy {
			break
		}
	}
	c.listen()
}

func (m *member) receive(piece, blocks int) {
	if m.pieces[piece] {
		return
	}
	if m.got[piece] += blocks; m.got[piece] >= blocksPerPiece {
		m.pieces[piece] = true
		m.missing--
		m.asked = slices.DeleteFunc(m.asked, func(b Block) bool { return int(b.Piece) == piece })
		m.news = append(m.news, piece)
	}
}

// exchange lets the peers give each other pieces.
func (c *crowd) exchange() {
	for _, m := range c.peers {
		if m.p == nil {
			continue
		}
		for m.credit = min(m.credit+m.up, m.up+blocksPerPiece); m.credit >= blocksPerPiece; {
			to, piece := c.want(m)
			if to == nil {
				break
			}
			m.credit -= blocksPerPiece
			for _, b := range to.asked {
				if int(b.Piece) == piece {
					c.s.Answered(to.p, b, 0, c.now) // cancelled
				}
			}
			to.receive(piece, blocksPerPiece)
		}
	}
}

// want finds somebody who lacks something that m has and was not given just now.
func (c *crowd) want(m *member) (*member, int) {
	for _, i := range c.rng.Perm(len(c.peers)) {
		to := c.peers[i]
		if to == m || to.p == nil || to.deaf && to.up == 0 || to.missing == 0 {
			continue
		}
		start, stride := c.rng.IntN(len(m.pieces)), 2*c.rng.IntN(len(m.pieces))+1 // any order, of a power of two
		for i := range m.pieces {
			piece := (start + i*stride) % len(m.pieces)
			if m.pieces[piece] && !slices.Contains(m.news, piece) && !to.pieces[piece] && to.got[piece] == 0 {
				return to, piece
			}
		}
	}
	return nil, 0
}

func (c *crowd) announce(n int) {
	for _, m := range c.peers {
		if m.p == nil {
			continue
		}
		for _, piece := range m.news {
			if f := c.underWay[piece]; f != nil && f.to == m {
				delete(c.underWay, piece)
			}
			if !m.mute {
				c.s.Announced(m.p, piece, c.now)
			}
		}
		m.news = m.news[:0]
		if m.missing == 0 && m.done == 0 {
			m.done = n
		}
	}
	c.listen()
}

func TestSuperSeed(t *testing.T) {
	many := func(n int, m member) (all []*member) {
		for range n {
			all = append(all, new(m))
		}
		return all
	}
	const pieces = 128
	for _, test := range []struct {
		name   string
		pieces int     // 0 is 128
		up     float64 // of the publisher
		peers  []*member
		copies float64 // at most; 0 is any number
		within float64 // of the time for one copy, everybody is done
		undone int     // peers that never will be
	}{
		{"crowd", 0, 1, many(16, member{up: 1}), 1.1, 1.5, 0},
		{"three", 0, 1, many(3, member{up: 1}), 1.1, 1.5, 0},
		{"lone-peer", 0, 1, many(1, member{up: 1}), 1, 1.2, 0},
		{"more-peers-than-pieces", 8, 1, many(40, member{up: 1}), 2, 6, 0},
		{"one-piece", 1, 1, many(5, member{up: 1}), 5, 10, 0},
		{"peers-that-share-little", 0, 2, many(2, member{up: 0.05}), 2, 2.3, 0},
		{"peers-that-share-nothing", 0, 2, many(3, member{}), 3, 3.3, 0},
		{"lone-mute-peer", 0, 1, many(1, member{up: 1, mute: true}), 1, 2, 0},
		{"a-mute-peer-in-a-crowd", 0, 1, append(many(8, member{up: 1}), many(1, member{up: 1, mute: true})...), 1.3, 2.5, 0},
		{"all-mute", 0, 1, many(4, member{up: 1, mute: true}), 4, 6, 0},
		{"a-deaf-peer-in-a-crowd", 0, 1, append(many(8, member{up: 1}), many(1, member{deaf: true})...), 1.1, 2, 1},
		{"mostly-deaf", 0, 1, append(many(2, member{up: 1}), many(30, member{deaf: true})...), 1.1, 2.5, 30},
		{"stuck-peers-in-a-crowd", 0, 1, append(many(8, member{up: 1}), many(3, member{stuck: true})...), 1.6, 3, 0},
		{"only-stuck-peers-and-one", 0, 1, append(many(1, member{up: 1}), many(3, member{stuck: true})...), 1.2, 6, 0},
		{"a-leech-in-a-crowd", 0, 1, append(many(8, member{up: 1}), many(1, member{})...), 1.3, 2, 0},
		{"a-slow-peer-in-a-crowd", 0, 1, append(many(8, member{up: 1}), many(1, member{up: 1, reads: 0.02})...), 1.2, 2, 0},
		{"a-late-joiner", 0, 1, append(many(4, member{up: 1}), many(1, member{up: 1, from: 600})...), 1.5, 2.2, 0},
		{"a-late-joiner-nobody-helps", 0, 1, append(many(4, member{up: 1, till: 620}), many(1, member{from: 640})...), 2.1, 2.6, 0},
		{"others-help-little", 512, 1, append(many(1, member{}), many(1, member{up: 0.1, has: 512})...), 1, 1.1, 0},
		{"leavers", 0, 1, append(many(4, member{up: 1}), &member{up: 1, till: 100}, &member{up: 1, till: 200}, &member{till: 300}), 1.8, 2.5, 3},
		{"they-have-half", 0, 1, many(4, member{up: 1, has: 64}), 0.6, 1, 0},
		{"a-seed-among-them", 0, 1, append(many(4, member{up: 1}), many(1, member{up: 1, has: 128})...), 1.1, 1.2, 0},
		{"a-piece-nobody-takes", 0, 1, many(4, member{up: 1, refuses: 7}), 1.1, 3, 4},
		{"a-publisher-slower-than-patience", 0, 0.05, many(8, member{up: 1}), 1.1, 1.3, 0},
		{"large-crowd", 512, 1, many(40, member{up: 1}), 1.1, 1.3, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.pieces == 0 {
				test.pieces = pieces
			}
			bound := float64(test.pieces*blocksPerPiece) / test.up
			c := &crowd{t: t, up: test.up, peers: test.peers, rng: rand.New(rand.NewPCG(1, 2))}
			c.run(test.pieces, 40000)
			last, undone := 0, 0
			for _, m := range c.peers {
				if last = max(last, m.done); m.missing > 0 {
					undone++
				}
			}
			copies := float64(c.sent) / float64(test.pieces*blocksPerPiece)
			t.Logf("%.3f copies, %.2f of the bound", copies, float64(last)/bound)
			if undone != test.undone {
				for i, m := range c.peers {
					t.Logf("peer %d lacks %d, was told of %d", i, m.missing, len(m.told))
				}
				t.Errorf("%d peers did not get everything, want %d", undone, test.undone)
			}
			if copies > test.copies {
				t.Errorf("the publisher sent %.3f copies, want at most %.3f", copies, test.copies)
			}
			if float64(last) > test.within*bound {
				t.Errorf("done after %.2f of the time for one copy, want %.2f", float64(last)/bound, test.within)
			}
			// Whoever stays is told of everything, whether it takes it or not.
			for i, m := range c.peers {
				if m.p != nil && m.missing > 0 && m.p.untold > 0 {
					t.Errorf("peer %d lacks %d pieces and was not told of %d", i, m.missing, m.p.untold)
				}
			}
		})
	}
}

// Of a piece for each of a large crowd, side by side, none would be whole before all are.
func TestSuperSeedSendsFewAtATime(t *testing.T) {
	const peers, pieces, length = 64, 256, 4
	now := time.Unix(1e9, 0)
	s := New(pieces, func(int) int64 { return length })
	var crowd []*Peer
	for range peers {
		crowd = append(crowd, s.Join(now))
	}
	// Half of them take nothing.
	takes := func(i int) bool { return i%2 == 0 }
	open := func() (offers []int) {
		for i, p := range crowd {
			for _, o := range p.open {
				if o.sent < length && takes(i) {
					offers = append(offers, i)
					s.Asked(p, Block{uint32(o.piece), 0}, now)
				}
			}
		}
		return offers
	}
	for _, p := range crowd {
		s.Begin(p, now)
	}
	if n := len(open()); n < 1 || n > leastOffers {
		t.Fatalf("at first %d pieces are sent at a time, want 1 to %d", n, leastOffers)
	}
	served := make(map[int]int)
	for n := range 40 { // one piece every 50 ms, to one of those that were offered one
		now = now.Add(50 * time.Millisecond)
		offers := open()
		if len(offers) == 0 {
			s.Tick(now)
			continue
		}
		to := offers[n%len(offers)]
		p := crowd[to]
		i := slices.IndexFunc(p.open, func(o offer) bool { return o.sent < length })
		piece := p.open[i].piece
		s.Answered(p, Block{uint32(piece), 0}, length, now)
		s.Announced(p, piece, now)
		served[to]++
		if n := len(open()); n > 9 {
			t.Fatalf("%d pieces are sent at a time, want 9 at most", n)
		}
	}
	if len(served) < 10 {
		t.Errorf("only %d of those who take pieces were given any: %v", len(served), served)
	}
}

// On a path where an offer takes more than half a second although nothing waits, so many
// are on their way that it does not matter.
func TestSuperSeedFillsALongPath(t *testing.T) {
	const peers, pieces, length, path = 16, 1024, 4, 700 * time.Millisecond // at most
	now := time.Unix(1e9, 0)
	start := now
	s := New(pieces, func(int) int64 { return length })
	var crowd []*Peer
	for range peers {
		crowd = append(crowd, s.Join(now))
	}
	for _, p := range crowd {
		s.Begin(p, now)
	}
	taken := 0
	for now.Sub(start) < 10*time.Second {
		now = now.Add(20 * time.Millisecond)
		for n, p := range crowd {
			path := path - time.Duration(n)*15*time.Millisecond
			for i := 0; i < len(p.open); {
				o := p.open[i]
				if o.at == now.Add(-100*time.Millisecond) {
					s.Asked(p, Block{uint32(o.piece), 0}, now)
				}
				if now.Sub(o.at) >= path {
					s.Answered(p, Block{uint32(o.piece), 0}, length, now)
					s.Announced(p, o.piece, now)
					if now.Sub(start) >= 5*time.Second {
						taken++
					}
					i = 0 // others may have been offered meanwhile
				} else {
					i++
				}
			}
		}
		s.Tick(now)
	}
	if rate := float64(taken) / 5; rate < peers/path.Seconds() {
		t.Errorf("%.1f pieces a second were taken, want at least one by each of %d peers every %v", rate, peers, path)
	}
}
