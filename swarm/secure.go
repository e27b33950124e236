package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"shoal/swarm/fleet"
)

// record is how much one TLS record holds at most. What is written is sent in batches of
// several.
const (
	record = 16 << 10
	batch  = 4 * record
)

// Refused counts connections of a node in a fleet with a key that did not become a
// peer's, because the other end did not show in time that it is a member.
type Refused struct {
	Plain      int64 // began with something else than TLS
	Strangers  int64 // spoke TLS without a certificate of the fleet
	Unfinished int64 // said too little, too late, or went away
	Banned     int64 // is banned for what it sent before; in an open fleet too
}

// refusals is Refused while it is counted.
type refusals struct{ plain, strangers, unfinished, banned atomic.Int64 }

func (r *refusals) stats() Refused {
	return Refused{Plain: r.plain.Load(), Strangers: r.strangers.Load(), Unfinished: r.unfinished.Load(), Banned: r.banned.Load()}
}

// unfinished reports whether a connection ended before it came to a decision.
func unfinished(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.Canceled, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// countMembers is how many identities the connections are with.
func (t *transport) countMembers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[fleet.Identity]struct{})
	for c := range t.conns {
		if c.member != (fleet.Identity{}) {
			seen[c.member] = struct{}{}
		}
	}
	return len(seen)
}

// count notes why a handshake failed. An ordinary client's first bytes are a length and
// a name, which crypto/tls drops without an answer.
func (r *refusals) count(err error) {
	var plain tls.RecordHeaderError
	var network net.Error
	switch {
	case errors.As(err, &plain):
		r.plain.Add(1)
	case errors.As(err, &network) && network.Timeout(), unfinished(err):
		r.unfinished.Add(1)
	default:
		r.strangers.Add(1)
	}
}

// A secured is a connection inside fleet TLS.
type secured struct {
	*tls.Conn
	wire *batcher
}

// seal puts fleet TLS over a connection. Nothing passes before the handshake.
func (t *transport) seal(nc net.Conn, dialled bool) net.Conn {
	wire := &batcher{Conn: nc}
	if dialled {
		return &secured{tls.Client(wire, t.dialling), wire}
	}
	return &secured{tls.Server(wire, t.accepting), wire}
}

// secure does the handshake of a connection in a fleet with a key, and learns who is at
// its other end. If it fails the connection is closed, and counted.
func (t *transport) secure(ctx context.Context, c *conn) error {
	s, ok := c.Conn.(*secured)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := s.HandshakeContext(ctx)
	if err == nil {
		state := s.ConnectionState()
		id, _ := fleet.Peer(&state) // which the handshake has asked for
		t.mu.Lock()
		c.member = id
		t.mu.Unlock()
		return nil
	}
	t.refused.count(err)
	t.log.Debug("not a member of the fleet", "peer", c.remote.String(), "dialled", c.dialled, "error", err)
	c.Close()
	return err
}

// Write encrypts b and sends it, several records at a time: a block with its header is
// just more than one, and would else be two system calls and two segments.
func (s *secured) Write(b []byte) (n int, err error) {
	if len(b) <= record {
		return s.Conn.Write(b)
	}
	for len(b) > 0 && err == nil {
		var w int
		part := b[:min(len(b), batch)]
		s.wire.hold()
		w, err = s.Conn.Write(part)
		if ferr := s.wire.release(); err == nil {
			err = ferr
		}
		n, b = n+w, b[w:]
	}
	return n, err
}

// Close closes the connection at once. TLS's own farewell would wait for a peer that
// reads nothing, and messages say their length: nobody can cut one short unnoticed.
func (s *secured) Close() error { return s.wire.Close() }

// A batcher can hold back what is written, to send it as one.
type batcher struct {
	net.Conn

	mu      sync.Mutex // guards what follows; held while writing, so that records stay in order
	holding bool
	held    *[]byte
}

// batches are buffers of what is sent at a time; empty, but for their room.
var batches = sync.Pool{New: func() any { return new([]byte) }}

func (b *batcher) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = true
	b.held = batches.Get().(*[]byte)
}

func (b *batcher) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holding {
		*b.held = append(*b.held, p...)
		return len(p), nil
	}
	return b.Conn.Write(p)
}

func (b *batcher) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = false
	_, err := b.Conn.Write(*b.held)
	*b.held = (*b.held)[:0]
	batches.Put(b.held)
	b.held = nil
	return err
}
