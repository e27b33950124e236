package socket

import (
	"encoding/binary"
	"net"
)

const (
	recordHeader = 5      // of a TLS record (RFC 8446, section 5.1)
	recordExtra  = 1 + 16 // what it has besides plaintext, at least: its type and a tag
)

// A Receiver reads from a socket. While the rest of a message, or of a TLS record, is all
// that can come, it has the kernel wait until as much of it is there as makes sense to
// read, instead of having it wake the reader for every packet: nothing can be done with
// less. Reads are never held back when the peer closes, or a deadline passes, or the
// receive buffer is full.
type Receiver struct {
	net.Conn
	// Left is how many bytes of the current message the reader still needs, as far as it
	// knows; zero wakes it for anything. It is set before each Read, by who reads.
	Left int

	await  func(n int) error // sets how many bytes wake the reader; nil where that cannot be
	least  int               // how many those are
	sealed bool              // what passes is TLS records

	header [recordHeader]byte // of the next record
	have   int                // bytes of it
	rest   int                // bytes of the current record that have not passed
	plain  int                // bytes of plaintext in it, at most
}

// NewReceiver returns a Receiver of a connection on which, if it is sealed, TLS records pass.
func NewReceiver(nc net.Conn, sealed bool) *Receiver {
	r := &Receiver{Conn: nc, least: 1, sealed: sealed}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			r.await = awaiter(raw)
		}
	}
	return r
}

// Read implements net.Conn.
func (r *Receiver) Read(b []byte) (int, error) {
	if r.await != nil {
		r.prepare()
	}
	n, err := r.Conn.Read(b)
	if r.sealed {
		r.follow(b[:n])
	}
	return n, err
}

// prepare sets what is awaited, if that is too much, or far too little.
func (r *Receiver) prepare() {
	want := min(r.coming(), MostAwaited)
	if want < leastAwaited {
		want = 1
	}
	if want >= r.least && want < 2*r.least {
		return
	}
	if r.await(want) != nil {
		r.await = nil // it was closed
		return
	}
	r.least = want
}

// coming is how many bytes have to come before anything can be done, or less.
func (r *Receiver) coming() int {
	if r.rest == 0 {
		return r.Left
	}
	return r.rest + max(0, r.Left-r.plain)
}

// follow keeps account of where records begin and end.
func (r *Receiver) follow(b []byte) {
	for len(b) > 0 {
		if r.rest > 0 {
			n := min(r.rest, len(b))
			r.rest -= n
			b = b[n:]
			continue
		}
		n := copy(r.header[r.have:], b)
		b = b[n:]
		if r.have += n; r.have < recordHeader {
			return
		}
		r.have = 0
		r.rest = int(binary.BigEndian.Uint16(r.header[3:]))
		r.plain = max(0, r.rest-recordExtra)
	}
}
