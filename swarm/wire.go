package swarm

import "encoding/binary"

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
// the whole of a short message that may have to wait.
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
	if (id == msgRequest || id == msgCancel) && length == requestLen && len(b) < length {
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
