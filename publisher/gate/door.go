package gate

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Door tells TLS from plain HTTP on one port.
type Door struct {
	// TLS answers those that speak it. It must be set.
	TLS *tls.Config
	// Plain says whether one from that address may speak plain HTTP. Who may not is taken to
	// speak TLS. If nil, nobody may.
	Plain func(from netip.Addr) bool
	// Patience is how long somebody may take to begin. It must be set.
	Patience time.Duration
}

// Listen returns a listener for what ln, a Gate, accepts: its connections are *tls.Conn or
// plain. Nobody who is slow to begin keeps others waiting.
func (d Door) Listen(ln *Gate) net.Listener {
	l := &door{Gate: ln, d: d, ready: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{})}
	go l.accept()
	return l
}

type door struct {
	*Gate
	d      Door
	ready  chan net.Conn
	failed chan error // why the gate accepts no more
	once   sync.Once
	closed chan struct{}
}

func (l *door) accept() {
	for {
		c, err := l.Gate.Accept()
		if err != nil {
			l.failed <- err
			return
		}
		from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		if l.d.Plain == nil || !l.d.Plain(from.Addr().Unmap()) {
			l.pass(tls.Server(c, l.d.TLS))
			continue
		}
		go l.look(c) // which ends with the connection, or its patience; the gate bounds how many there are
	}
}

// look reads the first byte: of TLS it is always the same (RFC 8446, 5.1).
func (l *door) look(c net.Conn) {
	const handshake = 22
	var first [1]byte
	c.SetReadDeadline(time.Now().Add(l.d.Patience))
	if _, err := c.Read(first[:]); err != nil {
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	b := &begun{Conn: c, first: *bytes.NewReader(first[:])}
	if first[0] == handshake {
		l.pass(tls.Server(b, l.d.TLS))
	} else {
		l.pass(b)
	}
}

func (l *door) pass(c net.Conn) {
	select {
	case l.ready <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (l *door) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		l.failed <- err
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *door) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Gate.Close()
}

// begun is a connection of which the first byte has been read.
type begun struct {
	net.Conn
	first bytes.Reader
}

// NetConn is the connection inside.
func (b *begun) NetConn() net.Conn { return b.Conn }

func (b *begun) Read(p []byte) (int, error) {
	if b.first.Len() > 0 {
		return b.first.Read(p)
	}
	return b.Conn.Read(p)
}
