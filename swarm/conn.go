package swarm

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"shoal/swarm/ban"
	"shoal/swarm/fleet"
	"shoal/swarm/socket"
	"shoal/swarm/wire"
)

const (
	maxHeld  = 2048      // requests of one peer; we tell peers to have no more than half of that
	maxBlock = 128 << 10 // bytes of a request or of a piece message; 16 KiB is usual
	slice    = 16 << 10  // a paced connection moves at most this much at a time
	headroom = 64 * wire.RequestLen
	askRoom  = 8 * wire.HaveLen // more is delivered before the next read
)

type requestMsg [wire.RequestLen]byte

func (r *requestMsg) length() int64 { return int64(binary.BigEndian.Uint32(r[13:])) }

// A conn is one peer connection as the torrent engine sees it. It counts, and it is where
// the limits of the peer's class act; below it is TCP, and may be more.
//
// Upload is limited by holding back the peer's requests: the engine answers what it is
// shown, so what it has to say besides never queues behind payload that may not be sent
// yet. Download is limited by reading slowly, but only on the connections that bring
// payload.
//
// That needs the connection's messages in the clear. A peer that insists on obfuscating
// everything (MSE with RC4) has whole connections slowed down instead, both ways.
type conn struct {
	net.Conn
	socket  net.Conn // the lowest layer
	from    *socket.Receiver
	tr      *transport
	remote  netip.AddrPort // without a zone
	shown   netip.AddrPort // what the engine is shown instead; set before it has the connection
	dialled bool
	member  fleet.Identity // who it is with, in a fleet with a key; guarded by tr.mu until the engine has it
	class   atomic.Int32
	port    atomic.Uint32 // where the peer says it listens
	greeted atomic.Bool   // the BitTorrent handshake is done

	timer *time.Timer // of the handshake, for those that dialled us; guarded by tr.mu

	closing sync.Once
	closed  chan struct{}

	out   wire.Sniffer          // what has been written; used by the writer only
	super *offerer              // if this node super seeds
	tell  *teller               // if it does not
	ask   atomic.Pointer[asker] // while its torrent is fetched

	// Used by the reader only.
	parse   wire.Parser
	hello   wire.Greeting
	bits    []byte // of the bitfield that is kept from the engine, as far as it has come; nil if none is
	tail    []byte // the beginning of a message that has not arrived as far as needed
	scratch []byte // read into when the engine offers little room
	pending []byte // of scratch; goes before anything else
	owes    bool   // payload was read, and may have to be waited for

	rmu      sync.Mutex   // guards what follows; may be taken with a bucket's lock held
	held     []requestMsg // not shown to the engine yet
	ready    []byte       // whole messages to show it next
	lined    bool         // in the queue of a bucket
	reading  bool         // the reader waits for the peer, between two messages
	poked    bool         // the read deadline is moved to wake the reader
	deadline time.Time    // the read deadline the engine set
}

// errPoked wakes the reader.
var errPoked = errors.New("something to deliver")

// RemoteAddr implements net.Conn. It has no zone: the engine panics when it bans a peer
// whose address has one.
func (c *conn) RemoteAddr() net.Addr { return peerAddr{shown: c.shown, real: c.remote} }

// suspect is who would be banned for what comes over the connection.
func (c *conn) suspect() ban.Suspect { return ban.Suspect{Identity: c.member, At: c.remote} }

// A peerAddr is the address of a peer as the engine has it. String is what the engine
// knows it by, dials and bans; AddrPort is what it tells other peers.
type peerAddr struct{ shown, real netip.AddrPort }

func (peerAddr) Network() string            { return "tcp" }
func (a peerAddr) String() string           { return a.shown.String() }
func (a peerAddr) AddrPort() netip.AddrPort { return a.real }

// rtt is the least time a round trip to the peer has taken; nil is a connection that is gone.
func (c *conn) rtt() time.Duration {
	if c == nil {
		return socket.RTT(nil)
	}
	return socket.RTT(c.socket)
}

func (c *conn) Class() Class { return Class(c.class.Load()) }

// Read delivers what the peer sent, without the requests that have to wait, and with
// those that need not wait any longer.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	up, down := c.tr.limits.of(c.Class())
	for {
		if len(c.pending) > 0 {
			n := copy(b, c.pending)
			c.pending = c.pending[n:]
			return n, nil
		}
		if n := c.deliver(b); n > 0 {
			return n, nil
		}
		if c.owes {
			c.owes = false
			down.wait(c.closed)
		}
		buf := b
		if c.parse.Between() && len(b) < 2*headroom {
			if c.scratch == nil {
				c.scratch = make([]byte, 4*headroom)
			}
			buf = c.scratch
		}
		// Released requests, and what the engine is to hear, are put between two messages,
		// in front of which there must be some room.
		start := len(c.tail)
		switch {
		case up.limited() || c.busy():
			start += headroom
		case c.ask.Load() != nil:
			start += askRoom
		}
		if down.limited() {
			buf = buf[:min(len(buf), start+slice)]
		}
		if start >= len(buf) {
			start = len(c.tail) // the engine is still at its handshake
		}
		n, err := c.fill(buf[start:])
		if err == errPoked {
			continue
		}
		c.tr.received(c.Class(), n)
		if c.super != nil {
			c.super.received(buf[start : start+n])
		}
		copy(buf[start-len(c.tail):], c.tail)
		n, payload := c.filter(buf, start-len(c.tail), start+n, up)
		if payload > 0 {
			down.spend(payload)
			c.owes = true
		}
		if err != nil {
			n += copy(buf[n:], c.tail)
			c.parse.GiveUp() // nothing can follow
			c.tail = nil
		}
		if n > 0 && &buf[0] != &b[0] {
			c.pending = buf[:n]
			n, err = copy(b, c.pending), nil // an error will come again
			c.pending = c.pending[n:]
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// deliver hands out what is ready, if the engine is between two messages.
func (c *conn) deliver(b []byte) int {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(c.ready) == 0 || !c.parse.Between() {
		return 0
	}
	n := c.shift(b)
	if n == 0 { // the first does not fit
		c.pending, c.ready = c.ready, nil
		n = copy(b, c.pending)
		c.pending = c.pending[n:]
	}
	return n
}

// shift moves ready messages into room, as many as there are and fit whole. Called with
// rmu held.
func (c *conn) shift(room []byte) int {
	end := 0
	for end < len(c.ready) {
		length := 4 + int(binary.BigEndian.Uint32(c.ready[end:]))
		if end+length > len(room) {
			break
		}
		end += length
	}
	copy(room, c.ready[:end])
	if c.ready = c.ready[end:]; len(c.ready) == 0 {
		c.ready = nil
	}
	return end
}

func (c *conn) busy() bool {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	return len(c.held)+len(c.ready) > 0
}

// fill reads from the peer once. errPoked says that there is something to deliver now.
func (c *conn) fill(b []byte) (int, error) {
	c.rmu.Lock()
	c.reading = c.parse.Between()
	if c.reading && len(c.ready) > 0 {
		c.reading = false
		c.rmu.Unlock()
		return 0, errPoked
	}
	c.rmu.Unlock()
	c.from.Left = c.parse.Left()
	n, err := c.Conn.Read(b)
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.reading = false
	if c.poked {
		c.poked = false
		c.Conn.SetReadDeadline(c.deadline)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err = nil; n == 0 {
				err = errPoked
			}
		}
	}
	return n, err
}

// filter moves the messages in buf[from:to] to the start of buf, leaves out the requests
// that have to wait, and puts in those that are ready. It returns how many bytes there
// are then, and how many of them are, or announce, payload.
//
// A limit is shared by everyone of a class, so nobody may spend of it what cannot be
// sent: a peer that asks for, or announces, more than anyone would, or that goes on
// asking when thousands of its requests wait, is a peer no longer.
func (c *conn) filter(buf []byte, from, to int, up *bucket) (n int, payload int64) {
	p := &c.parse
	c.tail = c.tail[:0]
	emit := func(length int) {
		n += copy(buf[n:], buf[from:from+length])
		from += length
	}
	for from < to {
		if !p.Between() {
			length, paid := p.Through(buf[from:to])
			payload += paid
			switch {
			case paid == 0 && c.hello.Complete(buf[from:from+length]):
				if c.tr.picking != nil {
					c.tr.picking(c.hello.Infohash()).join(c)
				}
			case c.bits != nil:
				c.keepBits(buf[from : from+length])
				from += length
				continue
			}
			emit(length)
			continue
		}
		n += c.insert(buf[n:from])
		id, length, ok := p.Next(buf[from:to])
		switch {
		case !ok:
			c.tail = append(c.tail, buf[from:to]...)
			return n, payload
		case id == wire.Request && length == wire.RequestLen:
			var r requestMsg
			copy(r[:], buf[from:])
			if size := r.length(); size < 1 || size > maxBlock {
				c.Conn.Close()
				return n, payload
			}
			switch held, ok := c.hold(r, up); {
			case !ok:
				c.Conn.Close()
				return n, payload
			case held:
				from += wire.RequestLen
			default:
				emit(wire.RequestLen)
			}
		case id == wire.Cancel && length == wire.RequestLen && c.cancel(buf[from:from+wire.RequestLen]):
			from += wire.RequestLen
		case id == wire.Piece && length > 4+wire.PieceHeaderLen+maxBlock:
			c.Conn.Close()
			return n, payload
		case id == wire.Piece && length >= 4+wire.PieceHeaderLen:
			size := int64(length - 4 - wire.PieceHeaderLen)
			payload += size
			if a := c.ask.Load(); a != nil {
				a.gives(binary.BigEndian.Uint32(buf[from+5:]), size)
				n += c.insert(buf[n:from])
			}
			p.Skip(length)
		case c.keep(id, length, buf[from:to]):
			from += min(length, to-from)
		default:
			if c.tell != nil && id >= 0 {
				c.tell.heard(id, buf[from+4:min(to, from+length)])
			}
			p.Skip(length)
		}
	}
	if p.Between() {
		n += c.insert(buf[n:from])
	}
	return n, payload
}

// keep notes what the peer says of its pieces, and keeps that from the engine, if there is
// an asker for it. b begins with the message.
func (c *conn) keep(id, length int, b []byte) bool {
	a := c.ask.Load()
	if a == nil {
		return false
	}
	switch {
	case id == wire.Have && length == wire.HaveLen,
		(id == wire.HaveAll || id == wire.Choke || id == wire.Unchoke) && length == 5:
		c.tell.heard(id, b[4:length])
		if a.said(id, b[5:length]) {
			return false
		}
	case id == wire.Bitfield && length <= 5+(maxPieces+7)/8:
		c.bits = make([]byte, 0, length-5)
		b = b[5:min(length, len(b))]
		c.parse.Skip(length - 5 - len(b))
		c.keepBits(b)
	default:
		return false
	}
	return true
}

// keepBits adds to the bitfield that is kept from the engine.
func (c *conn) keepBits(b []byte) {
	if c.bits = append(c.bits, b...); c.parse.Between() {
		c.ask.Load().said(wire.Bitfield, c.bits)
		c.bits = nil
	}
}

// insert puts ready messages into room.
func (c *conn) insert(room []byte) int {
	if len(room) < wire.HaveLen {
		return 0
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	return c.shift(room)
}

// hold keeps a request back if its answer may not be sent yet. It is not ok if there are
// too many of them already.
func (c *conn) hold(r requestMsg, up *bucket) (held, ok bool) {
	if !up.limited() && !c.busy() {
		return false, true
	}
	c.rmu.Lock()
	waiting := len(c.held)
	c.rmu.Unlock()
	switch {
	case waiting >= maxHeld:
		return false, false
	case waiting == 0 && up.take(r.length()):
		return false, true
	}
	c.rmu.Lock()
	c.held = append(c.held, r)
	line := !c.lined
	c.lined = true
	c.rmu.Unlock()
	if line {
		up.line(c)
	}
	return true, true
}

// cancel lets the engine see a request that is held back together with the message that
// cancels it, because the engine knows how to answer that.
func (c *conn) cancel(msg []byte) bool {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for i := range c.held {
		if string(c.held[i][5:]) == string(msg[5:]) {
			c.ready = append(append(c.ready, c.held[i][:]...), msg...)
			c.held = append(c.held[:i], c.held[i+1:]...)
			return true
		}
	}
	return false
}

// grant implements taker: the request that has waited longest may be answered.
func (c *conn) grant() (n int64, more bool) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(c.held) == 0 {
		c.held, c.lined = nil, false
		return 0, false
	}
	r := &c.held[0]
	n = r.length()
	c.ready = append(c.ready, r[:]...)
	c.held = c.held[1:]
	if c.lined = len(c.held) > 0; !c.lined {
		c.held = nil
	}
	c.poke()
	return n, c.lined
}

// push has the engine read messages before whatever the peer says next.
func (c *conn) push(messages []byte) {
	if len(messages) == 0 {
		return
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.ready = append(c.ready, messages...)
	c.poke()
}

// poke wakes the reader if it waits for the peer. Called with rmu held.
func (c *conn) poke() {
	if c.reading && !c.poked {
		c.poked = true
		c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Write sends what the engine has to say.
func (c *conn) Write(b []byte) (int, error) {
	if c.super != nil {
		return c.super.write(b)
	}
	return c.tell.write(b)
}

// send writes to the peer.
func (c *conn) send(b []byte) (n int, err error) {
	up, _ := c.tr.limits.of(c.Class())
	if c.out.Clear(b) || !up.limited() {
		n, err = c.Conn.Write(b)
		c.tr.sent(c.Class(), n)
		return n, err
	}
	for len(b) > 0 && err == nil {
		up.wait(c.closed)
		var w int
		w, err = c.Conn.Write(b[:min(len(b), slice)])
		up.spend(int64(w))
		c.tr.sent(c.Class(), w)
		n, b = n+w, b[w:]
	}
	return n, err
}

// SetReadDeadline implements net.Conn. Like its brothers it never fails: the engine
// panics if it does, and all that can be wrong is that the connection was closed, by a
// newcomer that needed its place or by [Node.Close], as the next Read or Write will tell.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.deadline = t
	if !c.poked { // else it is set once the reader is awake
		c.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.Conn.SetWriteDeadline(t)
	return nil
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.rmu.Lock()
		c.held = nil
		c.rmu.Unlock()
		c.tr.limits.up.leave(c)
		c.tr.limits.lanUp.leave(c)
		if c.super != nil {
			c.super.leave()
		} else {
			c.tell.end()
		}
		if a := c.ask.Load(); a != nil {
			a.leave()
		}
		c.tr.gone(c)
	})
	return err
}
