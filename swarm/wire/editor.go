package wire

// An Editor passes on one direction of a connection and may change its messages. Greet
// and See must be set before it is used.
type Editor struct {
	p     Parser
	hello Greeting
	head  []byte // the beginning of a message that is not decided on yet
	drop  bool   // the rest of the current message is left out

	// Greet is called once, with the infohash of the handshake.
	Greet func(infohash [20]byte)
	// See is called for every message with its id (-1 for a keep-alive), its length in
	// bytes with the prefix, and its beginning, which is valid until See returns: all of a
	// bitfield of up to MaxPieces pieces, and of any other the first RequestLen bytes. It
	// returns what takes the place of the beginning, and whether the rest passes.
	See func(id, length int, head []byte) (instead []byte, pass bool)
}

// headLen is how much of a message an editor looks at: all of a bitfield of as many
// pieces as we handle, or as much as the longest message that is looked at whole has.
func headLen(id, length int) int {
	if id == Bitfield {
		return min(length, 5+(MaxPieces+7)/8)
	}
	return min(length, RequestLen)
}

// Edit appends to dst what becomes of b.
func (e *Editor) Edit(dst, b []byte) []byte {
	for len(b) > 0 {
		if !e.p.Between() {
			n, _ := e.p.Through(b)
			if !e.p.opaque && e.hello.Complete(b[:n]) {
				e.Greet(e.hello.Infohash())
			}
			if !e.drop {
				dst = append(dst, b[:n]...)
			}
			b = b[n:]
			continue
		}
		e.head, b = append(e.head, b[0]), b[1:]
		id, length, ok := e.p.Next(e.head)
		if e.p.opaque {
			dst, e.head, e.drop = append(dst, e.head...), nil, false
			continue
		}
		if !ok || len(e.head) < headLen(id, length) {
			continue
		}
		instead, pass := e.See(id, length, e.head)
		dst = append(dst, instead...)
		e.drop = !pass
		e.p.Skip(length - len(e.head))
		e.head = e.head[:0]
	}
	return dst
}

// Between reports whether something can be put in behind what has been passed on.
func (e *Editor) Between() bool { return e.p.Between() && len(e.head) == 0 }

// Opaque reports whether the connection is not understood (any more): what follows passes
// as it is, and nothing of it is seen.
func (e *Editor) Opaque() bool { return e.p.opaque }
