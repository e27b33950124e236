// Package sim plays flash crowds on simulated links: the rules of packages picker and
// superseed, as they are, between machines whose links, queues and congestion windows are
// computed packet by packet. A crowd of 16 takes half a second, whatever its links are, so a
// rule can be tried in many crowds before it is measured in one.
//
// Times come out one or two percent of the bound above those of real links, and differences
// between two rules about as there. What it leaves out: loss (a full queue only makes the
// sender slower), CPU time, and encryption but for its bytes.
package sim

import (
	"math/rand/v2"
	"time"

	"shoal/swarm/picker"
	"shoal/swarm/superseed"
)

// A Crowd is a publisher and agents that all want one file at once.
type Crowd struct {
	Agents      int
	Rate        float64       // of each link and direction, bits per second
	Delay       time.Duration // of a packet from one machine to another, beside what its links take
	Size        int64         // bytes of the file; whole pieces
	PieceLength int64         // bytes
	Block       int64         // bytes that one request asks for
	Unsent      int64         // bytes of a connection that may wait in the kernel before the next block is given to it
	Seed        uint64        // of who knows whom; the rules draw at random besides
}

// A Result is what became of a crowd.
type Result struct {
	Time   time.Duration // until the last agent had everything, or an hour
	Bound  time.Duration // that no way of sending can beat: the file once over one link, with headers
	Copies float64       // that the publisher sent, headers and all else included
}

// Ratio is the time over the bound.
func (r Result) Ratio() float64 { return r.Time.Seconds() / r.Bound.Seconds() }

// What agents do before they ask for pieces, and how often rules are looked at.
const (
	firstStart = 100 * time.Millisecond // until the first agent asks for documents
	nextStart  = 15 * time.Millisecond  // until the next does
	documents  = 30 << 10               // bytes of documents that each gets first
	connecting = 20 * time.Millisecond  // until it is connected after that
	neighbours = 15                     // that an agent has, about
	originWait = 250 * time.Millisecond // until a publisher hears of what it has not offered
	every      = 100 * time.Millisecond
	working    = 2 * time.Millisecond // until a message is understood
	giveUp     = time.Hour
)

// A run is one crowd under way.
type run struct {
	Crowd
	events
	rng       *rand.Rand
	pieces    int
	publisher *host
	seed      *superseed.Seed
	agents    []*agent
	missing   int // agents that lack something
}

type agent struct {
	*host
	r      *run
	picker *picker.Picker
	blocks []int // of each piece, that are here
	have   int   // pieces
	ready  bool
	peers  []*peer
}

// A peer is one end of a connection: how an agent, or the publisher, sees the other end.
type peer struct {
	r       *run
	of      *agent // nil at the publisher
	out     *flow
	back    *peer // the other end
	asked   *picker.Peer
	offered *superseed.Peer // at the publisher
	tells   map[int]bool    // what this end has announced
	late    []int           // pieces the publisher is to hear of
}

// Run plays the crowd until all have everything.
func (c Crowd) Run() Result {
	r := &run{Crowd: c, rng: rand.New(rand.NewPCG(c.Seed, 0)), pieces: int(c.Size / c.PieceLength), missing: c.Agents}
	length := func(int) int64 { return c.PieceLength }
	r.publisher = newHost(&r.events, c.Rate, c.Delay)
	r.seed = superseed.New(r.pieces, length)
	for i := range c.Agents {
		a := &agent{
			host: newHost(&r.events, c.Rate, c.Delay), r: r, blocks: make([]int, r.pieces),
			picker: picker.New(r.pieces, c.PieceLength, 4<<20, length, func(int) bool { return false }),
		}
		r.agents = append(r.agents, a)
		r.after(firstStart+time.Duration(i)*nextStart, a.start)
	}
	r.tick()
	for r.missing > 0 && r.now < giveUp && r.step() {
	}
	return Result{
		Time:   r.now,
		Bound:  time.Duration(float64(c.Size) / mss * packet / r.publisher.rate * float64(time.Second)),
		Copies: float64(r.publisher.sent) / float64(c.Size),
	}
}

// tick does what time alone brings about.
func (r *run) tick() {
	r.seed.Tick(r.clock())
	r.tell()
	for _, a := range r.agents {
		by := make(map[*picker.Peer]*peer)
		for _, p := range a.peers {
			by[p.asked] = p
		}
		a.picker.Late(r.clock(), func(p *picker.Peer, piece int, _ bool) { by[p].ask([]int{piece}) })
		a.picker.PickAll(r.clock(), func(p *picker.Peer, pieces []int) { by[p].ask(pieces) })
	}
	r.after(every, r.tick)
}

// start gets an agent its documents.
func (a *agent) start() {
	out, _ := connect(a.r.publisher, a.host)
	out.write(&message{size: documents, done: func() { a.r.after(connecting, a.join) }})
}

// join connects an agent to the publisher and to some of those that are there.
func (a *agent) join() {
	r := a.r
	out, in := connect(a.host, r.publisher)
	mine := &peer{r: r, of: a, out: out, asked: a.picker.Join(r.clock()), tells: make(map[int]bool)}
	its := &peer{r: r, out: in, back: mine, offered: r.seed.Join(r.clock()), tells: make(map[int]bool)}
	mine.back = its
	mine.asked.Origin = true
	a.meet(mine)
	r.seed.Begin(its.offered, r.clock())
	r.tell()
	for _, b := range r.agents {
		if b == a || !b.ready || r.rng.IntN(max(1, r.Agents-1)) >= neighbours {
			continue
		}
		out, in := connect(a.host, b.host)
		p := &peer{r: r, of: a, out: out, asked: a.picker.Join(r.clock()), tells: make(map[int]bool)}
		q := &peer{r: r, of: b, out: in, asked: b.picker.Join(r.clock()), tells: make(map[int]bool), back: p}
		p.back = q
		a.meet(p)
		b.meet(q)
		for piece := range r.pieces {
			if b.whole(piece) {
				q.tell(piece)
			}
		}
	}
	a.ready = true
}

func (a *agent) meet(p *peer) {
	p.asked.Choking, p.asked.RTT = false, 2*a.r.Delay+time.Millisecond
	a.peers = append(a.peers, p)
}

func (a *agent) whole(piece int) bool { return int64(a.blocks[piece])*a.r.Block >= a.r.PieceLength }

// tell announces a piece to the other end.
func (p *peer) tell(pieces ...int) {
	p.out.write(&message{size: record + haveSize*len(pieces), done: func() {
		for _, piece := range pieces {
			p.tells[piece] = true
			p.back.heard(piece)
		}
	}})
}

// heard is told what the other end has announced.
func (p *peer) heard(piece int) {
	if p.of == nil {
		p.r.seed.Announced(p.offered, piece, p.r.clock())
		p.r.tell()
		return
	}
	p.of.picker.Has(p.asked, piece)
	p.ask(p.of.picker.Pick(p.asked, p.r.clock()))
}

// tell announces what the publisher offers.
func (r *run) tell() {
	for _, a := range r.agents {
		for _, p := range a.peers[:min(1, len(a.peers))] {
			for _, piece := range p.back.offered.Take() {
				p.back.tell(piece)
			}
		}
	}
}

// ask asks the other end for pieces.
func (p *peer) ask(pieces []int) {
	for _, piece := range pieces {
		for begin := int64(0); begin < p.r.PieceLength; begin += p.r.Block {
			b := superseed.Block{Piece: uint32(piece), Begin: uint32(begin)}
			p.out.write(&message{size: record + requestSize, done: func() { p.back.give(b) }})
		}
	}
}

// give answers a request when what was to be sent before it is out.
func (p *peer) give(b superseed.Block) {
	if p.offered != nil {
		p.r.seed.Asked(p.offered, b, p.r.clock())
	}
	p.out.block(p.r.Unsent, &message{
		size: int(p.r.Block) + blockExtra,
		given: func() {
			if p.offered != nil {
				p.r.seed.Answered(p.offered, b, p.r.Block, p.r.clock())
				p.r.tell()
			}
		},
		begun: func() {
			p.back.of.picker.Came(p.back.asked, int(b.Piece), p.r.Block, p.r.clock())
			p.back.ask(p.back.of.picker.Pick(p.back.asked, p.r.clock()))
		},
		done: func() { p.back.of.got(int(b.Piece)) },
	})
}

// got notes a block, and tells the others of a piece that is whole.
func (a *agent) got(piece int) {
	if a.whole(piece) {
		return
	}
	if a.blocks[piece]++; !a.whole(piece) {
		return
	}
	a.picker.Judged(piece, true)
	for _, p := range a.peers {
		switch {
		case p.back.of == nil && !p.back.tells[piece]:
			if p.late = append(p.late, piece); len(p.late) == 1 {
				a.r.after(originWait, func() { p.tell(p.late...); p.late = nil })
			}
		case p.back.of == nil || !p.back.tells[piece]:
			p.tell(piece)
		}
	}
	if a.have++; a.have == a.r.pieces {
		a.r.missing--
	}
}
