// Package wire follows what two peers say to each other (the peer wire protocol, BEP 3
// and BEP 6) and loses nothing of it: however a connection's bytes are cut, a [Parser]
// knows where each message begins and ends, and an [Editor] passes on every byte that it
// is not told to change or leave out.
//
// It understands only what the node has to: what asks for payload, what is payload, and
// what is said of pieces. All else passes as it is, and so does all of a connection that
// does not begin with a plain handshake or is out of step. Nothing here reads a
// connection or keeps payload.
package wire

import "encoding/binary"

// The handshake, which comes before any message (BEP 3).
const (
	Protocol     = "\x13BitTorrent protocol" // what it begins with
	HandshakeLen = 68                        // bytes: Protocol, reserved bits, infohash, peer id

	infohashAt, infohashEnd = 28, 48 // in the handshake
)

// Ids of messages (BEP 3): the byte behind the length prefix.
const (
	Choke      = 0
	Unchoke    = 1
	Interested = 2
	Have       = 4
	Bitfield   = 5
	Request    = 6
	Piece      = 7
	Cancel     = 8
)

// Ids of messages of the fast extension (BEP 6).
const (
	HaveAll     = 14
	HaveNone    = 15
	Reject      = 16
	AllowedFast = 17
)

// Lengths, in bytes, and limits.
const (
	HaveLen        = 4 + 5  // of a have, with its length prefix
	RequestLen     = 4 + 13 // of a request, a cancel or a reject, with its length prefix
	PieceHeaderLen = 9      // of the body of a piece message, before the payload

	MaxMessage = 1 << 20 // bytes of a message without its length prefix; a longer one is none
	MaxPieces  = 8192    // of a torrent; an Editor looks at all of a bitfield of so many
)

// A Parser follows one direction of a peer connection from message to message. Anything
// that does not begin with a plain BitTorrent handshake passes through as payload. The
// zero Parser is at the beginning of a connection.
type Parser struct {
	opaque    bool
	handshake int // bytes of the handshake that have passed
	skip      int // bytes of the current message still to pass
}

// Between reports whether what comes next is the beginning of a message.
func (p *Parser) Between() bool {
	return !p.opaque && p.handshake == HandshakeLen && p.skip == 0
}

// Through says how many of the bytes b, which are not empty, pass before the next
// message begins, and how many of those have to be taken for payload. It must not be
// called between messages.
func (p *Parser) Through(b []byte) (n int, payload int64) {
	switch {
	case p.opaque:
		return len(b), int64(len(b))
	case p.skip > 0:
		n = min(p.skip, len(b))
		p.skip -= n
		return n, 0
	}
	n = min(HandshakeLen-p.handshake, len(b))
	for _, x := range b[:n] {
		if p.handshake < len(Protocol) && x != Protocol[p.handshake] {
			p.opaque = true
			return len(b), int64(len(b))
		}
		p.handshake++
	}
	return n, 0
}

// Next looks at the beginning of a message; it is called between messages. It returns the
// message's id, -1 for a keep-alive, and its length in bytes with the prefix; ok is false
// if more bytes are needed to know, or to have the header of a piece message, or the whole
// of a short message that may have to wait or is looked at. Of what is not a message the length is 0, and all that follows
// is payload.
func (p *Parser) Next(b []byte) (id, length int, ok bool) {
	if len(b) < 4 {
		return 0, 0, false
	}
	body := binary.BigEndian.Uint32(b)
	switch {
	case body == 0:
		return -1, 4, true
	case body > MaxMessage:
		// Nothing the engine will accept; let it say so.
		p.opaque = true
		return -1, 0, true
	case len(b) < 5:
		return 0, 0, false
	}
	id, length = int(b[4]), 4+int(body)
	if len(b) < length && ((id == Request || id == Cancel) && length == RequestLen || id == Have && length == HaveLen) ||
		len(b) < min(length, 4+PieceHeaderLen) && id == Piece {
		return 0, 0, false
	}
	return id, length, true
}

// Skip says that the next n bytes are the rest of the message that begins here.
func (p *Parser) Skip(n int) { p.skip = n }

// Left is how many bytes of the current message have still to pass, where that is known.
func (p *Parser) Left() int {
	if p.opaque {
		return 0
	}
	return p.skip
}

// GiveUp takes all that follows for payload.
func (p *Parser) GiveUp() { p.opaque = true }

// A Greeting is the handshake of one direction, as far as it has passed.
type Greeting struct{ seen []byte }

// Complete adds what passes next, and reports whether that completed the infohash.
func (g *Greeting) Complete(b []byte) bool {
	if len(g.seen) == infohashEnd {
		return false
	}
	g.seen = append(g.seen, b[:min(len(b), infohashEnd-len(g.seen))]...)
	return len(g.seen) == infohashEnd
}

// Infohash returns the infohash of a complete greeting.
func (g *Greeting) Infohash() [20]byte { return [20]byte(g.seen[infohashAt:infohashEnd]) }

// A Sniffer says whether a direction of a connection began with a plain handshake.
type Sniffer struct {
	seen   int
	opaque bool
}

// Clear takes note of b and reports whether all so far is in the clear.
func (s *Sniffer) Clear(b []byte) bool {
	for i := 0; s.seen < len(Protocol) && i < len(b) && !s.opaque; i++ {
		s.opaque = b[i] != Protocol[s.seen]
		s.seen++
	}
	return !s.opaque
}
