package swarm

import (
	"encoding/binary"
	"sync"
	"time"

	"shoal/swarm/wire"
)

const (
	// haveDelay is how long a HAVE may wait that tells a peer of a piece it has itself.
	haveDelay = time.Second
	// originDelay is how long one may wait that tells a super seeding origin of a piece that
	// came from others.
	originDelay = 250 * time.Millisecond
)

// A teller decides when a peer is told which pieces we have got.
//
// Of a small file most of what members say to each other is HAVE: each tells each of its
// neighbours of every piece, a packet each time. Whoever lacks the piece is told at once.
// Whoever has announced it needs to know only for its count of copies, so that waits for
// something else to go the same way, or for haveDelay.
//
// A super seed (BEP 16) is an exception, because it is told of a piece by those to whom it
// has announced that piece itself, and goes by that. It is never interested in what we
// have; so nothing waits for a peer that has not been. But of the publisher's it is known
// that it goes by what it has announced alone, before all is given away; of all others it
// need only know about how many have them. Told of each at once by everybody, it would
// send a good part of its link in acknowledgements.
type teller struct {
	send   func([]byte) (int, error)
	origin func() bool // whether the peer is the publisher's

	kmu        sync.Mutex // guards what follows
	interested bool
	all        bool
	has        []uint64 // a bit for each piece the peer has announced

	wmu     sync.Mutex // held while sending; guards what follows
	out     wire.Parser
	waiting []byte // HAVE messages
	timer   *time.Timer
	due     bool // it will call flush
	ended   bool
}

// heard notes what the peer says of itself: a message with its id first, whole if it is
// one of those that matter.
func (t *teller) heard(id int, body []byte) {
	if id != wire.Interested && id != wire.HaveAll && (id != wire.Have || len(body) != wire.HaveLen-4) {
		return
	}
	t.kmu.Lock()
	defer t.kmu.Unlock()
	switch id {
	case wire.Interested:
		t.interested = true
	case wire.HaveAll:
		t.all = true
	case wire.Have:
		piece := binary.BigEndian.Uint32(body[1:])
		if piece >= maxPieces {
			return
		}
		word := int(piece / 64)
		for len(t.has) <= word {
			t.has = append(t.has, 0)
		}
		t.has[word] |= 1 << (piece % 64)
	}
}

// patience is how long the peer need not know that we have the piece; 0 if it should know
// at once.
func (t *teller) patience(piece uint32) time.Duration {
	t.kmu.Lock()
	defer t.kmu.Unlock()
	word := int(piece / 64)
	has := t.all || word < len(t.has) && t.has[word]&(1<<(piece%64)) != 0
	switch {
	case t.interested && has:
		return haveDelay
	case !t.interested && !has && t.origin():
		return originDelay
	}
	return 0
}

// write sends what the engine has to say, which is whole messages, but for HAVE messages
// that can wait, and with those that have waited.
func (t *teller) write(b []byte) (int, error) {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	between := t.out.Between()
	if between && onlyHaves(b) {
		if t.postpone(b) {
			return len(b), nil
		}
	} else {
		t.follow(b)
	}
	if !between || len(t.waiting) == 0 {
		return t.send(b)
	}
	late := len(t.waiting)
	buf := batches.Get().(*[]byte)
	*buf = append(append(*buf, t.waiting...), b...)
	n, err := t.send(*buf)
	*buf = (*buf)[:0]
	batches.Put(buf)
	t.waiting = t.waiting[:0]
	return max(0, n-late), err
}

// postpone lets HAVE messages wait, if all of them can.
func (t *teller) postpone(haves []byte) bool {
	delay := haveDelay
	for m := haves; len(m) > 0; m = m[wire.HaveLen:] {
		if delay = min(delay, t.patience(binary.BigEndian.Uint32(m[5:]))); delay == 0 {
			return false
		}
	}
	t.waiting = append(t.waiting, haves...)
	switch {
	case t.ended || t.due:
	case t.timer == nil:
		t.timer = time.AfterFunc(delay, t.flush)
	default:
		t.timer.Reset(delay)
	}
	t.due = true
	return true
}

// onlyHaves reports whether b is one HAVE message after the other.
func onlyHaves(b []byte) bool {
	if len(b)%wire.HaveLen != 0 {
		return false
	}
	for ; len(b) > 0; b = b[wire.HaveLen:] {
		if b[4] != wire.Have || binary.BigEndian.Uint32(b) != wire.HaveLen-4 {
			return false
		}
	}
	return true
}

// follow keeps account of where messages begin and end.
func (t *teller) follow(b []byte) {
	for len(b) > 0 {
		if !t.out.Between() {
			n, _ := t.out.Through(b)
			b = b[n:]
			continue
		}
		_, length, ok := t.out.Next(b)
		if !ok {
			t.out.GiveUp() // the engine writes whole messages
			return
		}
		t.out.Skip(length)
	}
}

func (t *teller) flush() {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	t.due = false
	if len(t.waiting) > 0 && !t.ended {
		t.send(t.waiting) // the engine will see for itself if this fails
		t.waiting = t.waiting[:0]
	}
}

// end is called when the connection is closed.
func (t *teller) end() {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if t.ended = true; t.timer != nil {
		t.timer.Stop()
	}
}
