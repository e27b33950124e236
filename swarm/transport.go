package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds on peers that have dialled us and not finished the BitTorrent handshake.
const (
	handshakeTimeout   = 5 * time.Second
	maxWaiting         = 256
	maxWaitingFromAddr = 32

	maxAcceptPause = time.Second
)

// A transport makes all peer connections of a node: it is the engine's only listener and
// only dialer. Layers that a connection needs below the limits, such as TLS, belong in
// [transport.wrap].
type transport struct {
	ln      net.Listener
	local   netip.AddrPort
	log     *slog.Logger
	limits  limiter
	classes *classifier
	super   func(infohash [20]byte) *superShare // what is super seeded; nil if nothing ever is

	down, up [numClasses]atomic.Int64 // bytes on the wire

	ctx  context.Context // ends dials
	stop context.CancelFunc
	done chan struct{} // closed when the engine is closed: Accept may return

	mu       sync.Mutex // guards what follows
	shut     bool
	conns    map[*conn]struct{}
	accepted map[netip.AddrPort]*conn // those of conns that dialled us
	waiting  []*conn                  // those of accepted that have not greeted, oldest first
}

func newTransport(listen string, classes *classifier, log *slog.Logger) (*transport, error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, &PortError{Addr: listen, Err: err}
	}
	ctx, stop := context.WithCancel(context.Background())
	return &transport{
		ln: ln, local: addrPort(ln.Addr()), log: log, classes: classes,
		ctx: ctx, stop: stop, done: make(chan struct{}),
		conns: make(map[*conn]struct{}), accepted: make(map[netip.AddrPort]*conn),
	}, nil
}

// addrPort is the address of a TCP socket.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return unmap(t.AddrPort())
	}
	p, _ := netip.ParseAddrPort(a.String())
	return unmap(p)
}

// Addr implements torrent.Listener.
func (t *transport) Addr() net.Addr { return t.ln.Addr() }

// Accept implements torrent.Listener. The engine calls it again at once after any error,
// so it returns one only when the engine is closed.
func (t *transport) Accept() (net.Conn, error) {
	pause := 5 * time.Millisecond
	for {
		nc, err := t.ln.Accept()
		switch {
		case err == nil:
			if c := t.wrap(nc, addrPort(nc.RemoteAddr()), false); t.admit(c) {
				return c, nil
			}
			continue
		case errors.Is(err, net.ErrClosed):
			<-t.done
			return nil, err
		}
		// Out of descriptors, or the like.
		t.log.Warn("accepting a peer connection", "error", err, "pause", pause)
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxAcceptPause)
		case <-t.done:
			return nil, err
		}
	}
}

// admit makes room for a new connection by ending the one that has said nothing for the
// longest time, of those from the same address first. A peer that means it greets within
// a round trip; a flood only shortens how long it may take.
func (t *transport) admit(c *conn) bool {
	source := from(c.remote.Addr())
	t.mu.Lock()
	if t.shut {
		t.mu.Unlock()
		c.Conn.Close()
		return false
	}
	t.conns[c] = struct{}{}
	t.accepted[c.remote] = c
	t.waiting = append(t.waiting, c)
	c.timer = time.AfterFunc(handshakeTimeout, func() {
		if !c.greeted.Load() {
			c.Close()
		}
	})
	same := 0
	for _, w := range t.waiting {
		if from(w.remote.Addr()) == source {
			same++
		}
	}
	var victim *conn
	for _, w := range t.waiting {
		if same > maxWaitingFromAddr && from(w.remote.Addr()) == source ||
			same <= maxWaitingFromAddr && len(t.waiting) > maxWaiting {
			victim = w
			break
		}
	}
	t.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	return true
}

// from is what counts as one source of connections: an IPv4 address, or the network
// (/64) an IPv6 host can choose addresses in.
func from(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64)
		return p.Addr()
	}
	return a
}

// greet notes that the peer that dialled us from remote has finished its handshake.
func (t *transport) greet(remote netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.accepted[remote]; c != nil {
		c.greeted.Store(true)
		t.waiting = slices.DeleteFunc(t.waiting, func(w *conn) bool { return w == c })
	}
}

// listens notes that the peer that dialled us from remote says it listens on port.
func (t *transport) listens(remote netip.AddrPort, port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.accepted[remote]; c != nil {
		c.port.Store(uint32(port))
		c.classify()
	}
}

// DialerNetwork implements torrent.Dialer.
func (t *transport) DialerNetwork() string { return "tcp" }

// Dial implements torrent.Dialer. Addresses come from trackers and other peers.
func (t *transport) Dial(ctx context.Context, addr string) (net.Conn, error) {
	remote, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	remote = unmap(remote)
	if a := remote.Addr(); a.IsUnspecified() || a.IsMulticast() || remote.Port() == 0 || remote == t.local {
		return nil, fmt.Errorf("dialling %q: not the address of a peer", addr)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	nc, err := t.dialer(remote.Addr()).DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return nil, err
	}
	c := t.wrap(nc, remote, true)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		nc.Close()
		return nil, net.ErrClosed
	}
	t.conns[c] = struct{}{}
	return c, nil
}

// dialer dials from the address the node listens on, if it listens on a certain one:
// whoever chose it wants to be reached, and known, by it.
func (t *transport) dialer(to netip.Addr) *net.Dialer {
	d := new(net.Dialer)
	local := t.local.Addr()
	if !local.IsUnspecified() && local.Is4() == to.Is4() && (!local.IsLoopback() || to.IsLoopback()) {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d
}

// wrap puts the layers of a peer connection over nc.
func (t *transport) wrap(nc net.Conn, remote netip.AddrPort, dialled bool) *conn {
	remote = netip.AddrPortFrom(remote.Addr().WithZone(""), remote.Port())
	tuneSocket(nc)
	c := &conn{Conn: nc, tr: t, remote: remote, dialled: dialled, closed: make(chan struct{})}
	c.classify()
	if t.super != nil {
		c.super = newOfferer(c, t.super)
	}
	return c
}

// classify gives c the class it has by what is known now.
func (c *conn) classify() {
	class := c.tr.classes.dialled
	if !c.dialled {
		class = func(a netip.AddrPort) Class { return c.tr.classes.accepted(a.Addr(), uint16(c.port.Load())) }
	}
	c.class.Store(int32(class(c.remote)))
}

// reclassify does so for every connection, after the classifier has learnt something.
func (t *transport) reclassify() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		c.classify()
	}
}

func (t *transport) received(class Class, n int) { t.down[class].Add(int64(n)) }
func (t *transport) sent(class Class, n int)     { t.up[class].Add(int64(n)) }

// gone forgets a connection that is closed.
func (t *transport) gone(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if t.accepted[c.remote] == c {
		delete(t.accepted, c.remote)
	}
	if !c.greeted.Load() {
		t.waiting = slices.DeleteFunc(t.waiting, func(w *conn) bool { return w == c })
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// close ends every connection and every dial, and lets no new one begin.
func (t *transport) close() {
	t.stop()
	t.ln.Close()
	t.mu.Lock()
	t.shut = true
	conns := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
