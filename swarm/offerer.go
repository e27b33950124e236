package swarm

import (
	"encoding/binary"
	"sync"
	"time"

	"shoal/swarm/superseed"
	"shoal/swarm/wire"
)

// A superShare is the super seeding of one torrent.
type superShare struct {
	mu      sync.Mutex // guards what follows
	s       *superseed.Seed
	timer   *time.Timer
	ticking bool
}

func newSuperShare(i *Info) *superShare {
	return &superShare{s: superseed.New(i.Pieces(), func(piece int) int64 {
		_, length, _ := i.piece(piece)
		return length
	})}
}

// do calls f, and looks after what it began. The timer runs only while there is a peer to
// offer something to.
func (t *superShare) do(f func(s *superseed.Seed, now time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t.s, time.Now())
	if t.ticking {
		return
	}
	t.ticking = true
	if t.timer == nil {
		t.timer = time.AfterFunc(superseed.Every, t.tick)
	} else {
		t.timer.Reset(superseed.Every)
	}
}

func (t *superShare) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ticking = t.s.Tick(time.Now()); t.ticking {
		t.timer.Reset(superseed.Every)
	}
}

// An offerer is the super seeding of one connection: it turns the claim to have
// everything into one to have nothing, announces what the peer is offered, and notes
// what goes over the connection. A peer that obfuscates all it says is not understood,
// and is served as by any seed.
type offerer struct {
	c    *conn
	find func(infohash [20]byte) *superShare

	amu   sync.Mutex // guards what follows; the lock of share may be taken inside it
	ended bool
	share *superShare     // set once, when the infohash is known and something we seed
	peer  *superseed.Peer // likewise; what it points to belongs to share

	in      wire.Editor // used by the reader only
	discard []byte
	told    bool // the peer has said what it brings, which it does once

	wmu      sync.Mutex // held while writing; guards what follows
	out      wire.Editor
	buf      []byte
	offering bool
}

func newOfferer(c *conn, find func([20]byte) *superShare) *offerer {
	o := &offerer{c: c, find: find}
	o.in.Greet, o.in.See = o.attach, o.seeIncoming
	o.out.Greet, o.out.See = o.attach, o.seeOutgoing
	return o
}

// attach joins the torrent. A peer that dialled us may send its handshake with more
// behind it before we answer, and one we dialled is told of the torrent first: what comes
// first counts.
func (o *offerer) attach(infohash [20]byte) {
	o.amu.Lock()
	defer o.amu.Unlock()
	if o.ended || o.share != nil {
		return
	}
	if o.share = o.find(infohash); o.share != nil {
		o.share.do(func(s *superseed.Seed, now time.Time) { o.peer = s.Join(now) })
	}
}

// attached returns the torrent and the peer, or nil.
func (o *offerer) attached() (*superShare, *superseed.Peer) {
	o.amu.Lock()
	defer o.amu.Unlock()
	return o.share, o.peer
}

// leave is called when the connection is closed.
func (o *offerer) leave() {
	o.amu.Lock()
	defer o.amu.Unlock()
	o.ended = true
	if o.share != nil {
		o.share.do(func(s *superseed.Seed, now time.Time) { s.Leave(o.peer, now) })
		o.share = nil
	}
}

// received notes what the peer says. Called by the reader.
func (o *offerer) received(b []byte) {
	if !o.in.Opaque() {
		o.discard = o.in.Edit(o.discard[:0], b)
	}
}

// note tells the torrent's super seed of something, unless the peer has left.
func (t *superShare) note(p *superseed.Peer, f func(s *superseed.Seed, now time.Time)) {
	t.do(func(s *superseed.Seed, now time.Time) {
		if !p.Gone() {
			f(s, now)
		}
	})
}

// seeIncoming lets nothing pass: nobody needs it.
func (o *offerer) seeIncoming(id, length int, head []byte) ([]byte, bool) {
	share, peer := o.attached()
	if share == nil {
		return nil, false
	}
	switch body := head[min(5, len(head)):]; {
	case id == wire.Have && length == wire.HaveLen:
		piece := int(min(binary.BigEndian.Uint32(body), maxPieces))
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Announced(peer, piece, now) })
	case id == wire.Bitfield && !o.told:
		o.told = true
		has := func(piece int) bool { return hasBit(body, piece) }
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Brought(peer, has, now) })
	case id == wire.HaveAll && !o.told:
		o.told = true
		all := func(int) bool { return true }
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Brought(peer, all, now) })
	case id == wire.Request && length == wire.RequestLen:
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Asked(peer, blockOf(body), now) })
	case id == wire.Cancel && length == wire.RequestLen:
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Answered(peer, blockOf(body), 0, now) })
	}
	return nil, false
}

// seeOutgoing changes what the engine says of its pieces.
func (o *offerer) seeOutgoing(id, length int, head []byte) ([]byte, bool) {
	share, peer := o.attached()
	if share == nil {
		return head, true
	}
	switch body := head[min(5, len(head)):]; {
	case id == wire.HaveAll && !o.offering:
		o.begin(share, peer)
		return []byte{0, 0, 0, 1, wire.HaveNone}, true
	case id == wire.Bitfield && !o.offering:
		// A peer without the fast extension: to say nothing is to have nothing. If a
		// piece cannot be read any more, others have to be told what is left.
		for piece := range share.s.Pieces() {
			if !hasBit(body, piece) {
				return head, true
			}
		}
		o.begin(share, peer)
		return nil, true
	case id == wire.AllowedFast && o.offering:
		return nil, true // it would tell of pieces, and nobody is choked
	case id == wire.Piece && length >= 4+wire.PieceHeaderLen:
		payload := int64(length - 4 - wire.PieceHeaderLen)
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Answered(peer, blockOf(body), payload, now) })
	case id == wire.Reject && length == wire.RequestLen:
		share.note(peer, func(s *superseed.Seed, now time.Time) { s.Answered(peer, blockOf(body), 0, now) })
	}
	return head, true
}

func (o *offerer) begin(share *superShare, peer *superseed.Peer) {
	o.offering = true
	share.note(peer, func(s *superseed.Seed, now time.Time) { s.Begin(peer, now) })
	go o.run(share, peer) // until the connection is closed
}

func blockOf(body []byte) superseed.Block {
	return superseed.Block{Piece: binary.BigEndian.Uint32(body), Begin: binary.BigEndian.Uint32(body[4:])}
}

func hasBit(bits []byte, i int) bool {
	return i/8 < len(bits) && bits[i/8]&(128>>(i%8)) != 0
}

// write sends what the engine has to say, and what there is to offer before it.
func (o *offerer) write(b []byte) (int, error) {
	o.wmu.Lock()
	defer o.wmu.Unlock()
	if o.out.Opaque() {
		return o.c.send(b)
	}
	o.buf = o.buf[:0]
	if share, peer := o.attached(); o.offering && share != nil {
		o.appendOffers(share, peer)
	}
	o.buf = o.out.Edit(o.buf, b)
	if _, err := o.c.send(o.buf); err != nil {
		return 0, err
	}
	return len(b), nil
}

// run announces what the peer is offered while the engine has nothing to say to it.
func (o *offerer) run(share *superShare, peer *superseed.Peer) {
	for {
		select {
		case <-peer.Wake():
		case <-o.c.closed:
			return
		}
		o.wmu.Lock()
		o.buf = o.buf[:0]
		o.appendOffers(share, peer)
		if len(o.buf) > 0 {
			o.c.send(o.buf) // the engine will see for itself if this fails
		}
		o.wmu.Unlock()
	}
}

// appendOffers puts what the peer is offered into buf, if it may stand there.
func (o *offerer) appendOffers(share *superShare, peer *superseed.Peer) {
	if !o.out.Between() {
		return
	}
	share.mu.Lock()
	pieces := peer.Take()
	share.mu.Unlock()
	for _, piece := range pieces {
		o.buf = binary.BigEndian.AppendUint32(append(o.buf, 0, 0, 0, 5, wire.Have), uint32(piece))
	}
}
