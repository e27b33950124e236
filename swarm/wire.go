package swarm

import "encoding/binary"

// What is understood of the peer wire protocol (BEP 3) here.
const (
	protocol     = "\x13BitTorrent protocol"
	handshakeLen = 68 // protocol, reserved bits, infohash, peer id
	maxMessage   = 1 << 20

	msgInterested = 2
	msgHave       = 4
	msgBitfield   = 5
	msgRequest    = 6
	msgPiece      = 7
	msgCancel     = 8

	// Of the fast extension (BEP 6).
	msgHaveAll     = 14
	msgHaveNone    = 15
	msgReject      = 16
	msgAllowedFast = 17

	haveLen        = 4 + 5  // of a have, with its length prefix
	requestLen     = 4 + 13 // of a request, a cancel or a reject
	pieceHeaderLen = 9      // of the body of a piece message, before the payload

	infohashAt, infohashEnd = 28, 48 // in the handshake
)

// A parser follows one direction of a peer connection from message to message. Anything
// that does not begin with a plain BitTorrent handshake passes through as payload.
type parser struct {
	opaque    bool
	handshake int    // bytes of the handshake that have passed
	skip      int    // bytes of the current message still to pass
	tail      []byte // the beginning of a message that has not arrived as far as needed
}

// between reports whether what comes next is the beginning of a message.
func (p *parser) between() bool {
	return !p.opaque && p.handshake == handshakeLen && p.skip == 0
}

// through says how many of the bytes b, which are not empty, pass before the next
// message begins, and how many of those have to be taken for payload. It must not be
// called between messages.
func (p *parser) through(b []byte) (n int, payload int64) {
	switch {
	case p.opaque:
		return len(b), int64(len(b))
	case p.skip > 0:
		n = min(p.skip, len(b))
		p.skip -= n
		return n, 0
	}
	n = min(handshakeLen-p.handshake, len(b))
	for _, x := range b[:n] {
		if p.handshake < len(protocol) && x != protocol[p.handshake] {
			p.opaque = true
			return len(b), int64(len(b))
		}
		p.handshake++
	}
	return n, 0
}

// next looks at the beginning of a message. It returns its id, -1 for a keep-alive, and
// its length with the prefix; ok is false if more bytes are needed to know, or to have
// the whole of a short message that may have to wait or is looked at.
func (p *parser) next(b []byte) (id, length int, ok bool) {
	if len(b) < 4 {
		return 0, 0, false
	}
	body := binary.BigEndian.Uint32(b)
	switch {
	case body == 0:
		return -1, 4, true
	case body > maxMessage:
		// Nothing the engine will accept; let it say so.
		p.opaque = true
		return -1, 0, true
	case len(b) < 5:
		return 0, 0, false
	}
	id, length = int(b[4]), 4+int(body)
	if len(b) < length && ((id == msgRequest || id == msgCancel) && length == requestLen || id == msgHave && length == haveLen) {
		return 0, 0, false
	}
	return id, length, true
}

// A sniffer says whether a direction of a connection began with a plain handshake.
type sniffer struct {
	seen   int
	opaque bool
}

// clear takes note of b and reports whether all so far is in the clear.
func (s *sniffer) clear(b []byte) bool {
	for i := 0; s.seen < len(protocol) && i < len(b) && !s.opaque; i++ {
		s.opaque = b[i] != protocol[s.seen]
		s.seen++
	}
	return !s.opaque
}

// An editor passes on one direction of a connection and may change its messages.
type editor struct {
	p     parser
	hello []byte // the handshake, as far as it has passed
	head  []byte // the beginning of a message that is not decided on yet
	drop  bool   // the rest of the current message is left out

	// greet is called once, with the infohash of the handshake.
	greet func(infohash [20]byte)
	// see is called for every message with its id, its length with the prefix, and its
	// beginning, see [headLen]. It returns what takes the place of the beginning, and
	// whether the rest passes.
	see func(id, length int, head []byte) (instead []byte, pass bool)
}

// headLen is how much of a message an editor looks at: all of a bitfield of as many
// pieces as we handle, or as much as the longest message that is looked at whole has.
func headLen(id, length int) int {
	if id == msgBitfield {
		return min(length, 5+(maxPieces+7)/8)
	}
	return min(length, requestLen)
}

// edit appends to dst what becomes of b.
func (e *editor) edit(dst, b []byte) []byte {
	for len(b) > 0 {
		if !e.p.between() {
			n, _ := e.p.through(b)
			if len(e.hello) < infohashEnd {
				e.greeting(b[:n])
			}
			if !e.drop {
				dst = append(dst, b[:n]...)
			}
			b = b[n:]
			continue
		}
		e.head, b = append(e.head, b[0]), b[1:]
		id, length, ok := e.p.next(e.head)
		if e.p.opaque {
			dst, e.head, e.drop = append(dst, e.head...), nil, false
			continue
		}
		if !ok || len(e.head) < headLen(id, length) {
			continue
		}
		instead, pass := e.see(id, length, e.head)
		dst = append(dst, instead...)
		e.drop, e.p.skip = !pass, length-len(e.head)
		e.head = e.head[:0]
	}
	return dst
}

// greeting looks for the infohash.
func (e *editor) greeting(b []byte) {
	if e.p.opaque {
		return
	}
	e.hello = append(e.hello, b[:min(len(b), infohashEnd-len(e.hello))]...)
	if len(e.hello) == infohashEnd {
		e.greet([20]byte(e.hello[infohashAt:]))
	}
}

// between reports whether something can be put in behind what has been passed on.
func (e *editor) between() bool { return e.p.between() && len(e.head) == 0 }
