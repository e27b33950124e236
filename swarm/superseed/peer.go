package superseed

import (
	"time"

	"shoal/swarm/pace"
)

const maxOwed = 2048 // requests of one peer that are kept in mind

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
	bears     int  // pieces of which it is the bearer
	idle      bool // it lets offers pass
	joined    time.Time
	active    time.Time          // when it last got something from us
	dealt     time.Time          // when it was last offered something
	waits     time.Time          // since when for pieces to spread; zero if it does not
	owed      map[Block]struct{} // requests that are not answered yet
	gained    pace.Pace          // pieces that came from others
	brief     brief              // the time its offers take
}

type offer struct {
	piece int
	first bool
	asked bool // something of it was asked for
	at    time.Time
	sent  int64
}

// A Block is what a peer asks for at a time: of a piece, from byte Begin on.
type Block struct{ Piece, Begin uint32 }

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

// wanting reports whether the peer takes what it is offered, and could be offered more.
func (p *Peer) wanting() bool { return p.willing && p.untold > 0 && !p.idle }
