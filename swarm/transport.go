package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shoal/swarm/ban"
	"shoal/swarm/fleet"
	"shoal/swarm/socket"
)

// Bounds on peers that have dialled us and not finished the handshake that is next: fleet
// TLS, in a fleet with a key, and then BitTorrent's. Each has the whole of them, so that
// strangers are not in the way of members.
const (
	handshakeTimeout   = 5 * time.Second
	maxWaiting         = 256
	maxWaitingFromAddr = 32

	maxAcceptPause = time.Second
)

// A transport makes all peer connections of a node: it is the engine's only listener and
// only dialer.
type transport struct {
	ln      net.Listener
	local   netip.AddrPort
	log     *slog.Logger
	limits  limiter
	classes *classifier
	super   func(infohash [20]byte) *superShare // what is super seeded; nil if nothing ever is
	picking func(infohash [20]byte) *picking    // what is fetched

	dialling, accepting *tls.Config // of a fleet with a key, else nil
	refused             refusals
	bans                *ban.List

	down, up [numClasses]atomic.Int64 // bytes on the wire

	ctx  context.Context // ends dials
	stop context.CancelFunc
	done chan struct{} // closed when the engine is closed: Accept may return

	securing sync.Once      // starts what accepts in a fleet with a key
	secured  chan *conn     // members that dialled us, on their way to the engine
	running  sync.WaitGroup // that, and its handshakes; they end with done

	mu       sync.Mutex // guards what follows
	shut     bool
	conns    map[*conn]struct{}
	accepted map[netip.AddrPort]*conn // those of conns that dialled us
	waiting  queue                    // those of accepted that have not shown anything
	members  queue                    // those that are of the fleet, and have not greeted
}

func newTransport(listen string, member *fleet.Member, classes *classifier, log *slog.Logger) (*transport, error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, &PortError{Addr: listen, Err: err}
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &transport{
		ln: ln, local: addrPort(ln.Addr()), log: log, classes: classes, bans: ban.New(time.Now, member != nil),
		ctx: ctx, stop: stop, done: make(chan struct{}), secured: make(chan *conn),
		conns: make(map[*conn]struct{}), accepted: make(map[netip.AddrPort]*conn),
	}
	if member != nil {
		t.dialling, t.accepting = member.Dialling(), member.Accepting()
	}
	return t, nil
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
// so it returns one only when the engine is closed. In a fleet with a key it returns only
// members.
func (t *transport) Accept() (net.Conn, error) {
	if t.accepting == nil {
		c, err := t.accept()
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	t.securing.Do(func() { t.running.Go(t.acceptMembers) })
	select {
	case c := <-t.secured:
		return c, nil
	case <-t.done:
		return nil, net.ErrClosed
	}
}

// acceptMembers takes connections for Accept, many at a time.
func (t *transport) acceptMembers() {
	for {
		c, err := t.accept()
		if err != nil {
			return
		}
		t.running.Go(func() {
			if t.secure(t.ctx, c) != nil || !t.pass(c) || !t.welcome(c) {
				return
			}
			c.shown = t.bans.Alias(c.suspect())
			select {
			case t.secured <- c:
			case <-t.done:
				c.Close()
			}
		})
	}
}

// accept returns the next connection there is room for.
func (t *transport) accept() (*conn, error) {
	pause := 5 * time.Millisecond
	for {
		nc, err := t.ln.Accept()
		switch {
		case err == nil:
			c := t.wrap(nc, addrPort(nc.RemoteAddr()), false)
			if t.accepting == nil {
				if !t.pass(c) {
					continue
				}
				c.shown = t.bans.Alias(c.suspect())
			}
			if t.admit(c) {
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

// A queue holds connections that have to show something soon, oldest first. A newcomer
// takes the place of the one that has not done so for the longest time, of those from the
// same address first. A peer that means it needs a round trip or two; a flood only
// shortens how long it may take.
type queue []*conn

// push adds c. If the queue is over its bounds it returns who has to go.
func (q *queue) push(c *conn) (victim *conn) {
	*q = append(*q, c)
	source := ban.Source(c.remote.Addr())
	same := 0
	for _, w := range *q {
		if ban.Source(w.remote.Addr()) == source {
			same++
		}
	}
	for _, w := range *q {
		if same > maxWaitingFromAddr && ban.Source(w.remote.Addr()) == source ||
			same <= maxWaitingFromAddr && len(*q) > maxWaiting {
			return w
		}
	}
	return nil
}

// remove takes c out, and reports whether it was there.
func (q *queue) remove(c *conn) bool {
	n := len(*q)
	*q = slices.DeleteFunc(*q, func(w *conn) bool { return w == c })
	return len(*q) < n
}

// admit makes room for a new connection.
func (t *transport) admit(c *conn) bool {
	t.mu.Lock()
	if t.shut {
		t.mu.Unlock()
		c.Conn.Close()
		return false
	}
	t.conns[c] = struct{}{}
	t.accepted[c.remote] = c
	victim := t.waiting.push(c)
	c.timer = time.AfterFunc(handshakeTimeout, func() {
		if !c.greeted.Load() {
			c.Close()
		}
	})
	t.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	return true
}

// welcome lets a member that dialled us go on to the BitTorrent handshake. It reports
// false if the connection has been closed meanwhile.
func (t *transport) welcome(c *conn) bool {
	t.mu.Lock()
	if !t.waiting.remove(c) {
		t.mu.Unlock()
		return false
	}
	victim := t.members.push(c)
	c.timer.Reset(handshakeTimeout)
	t.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	return true
}

// pass reports whether whoever is at the other end of c may be a peer now, and closes c
// if not.
func (t *transport) pass(c *conn) bool {
	if t.bans.Welcome(c.suspect()) {
		return true
	}
	t.refused.banned.Add(1)
	c.Close()
	return false
}

// expel closes the connections with somebody who has been banned.
func (t *transport) expel(who ban.Suspect) {
	t.mu.Lock()
	var theirs []*conn
	for c := range t.conns {
		if t.bans.Same(c.suspect(), who) {
			theirs = append(theirs, c)
		}
	}
	t.mu.Unlock()
	for _, c := range theirs {
		c.Close()
	}
}

// greet notes that the peer that dialled us from remote has finished its handshake.
func (t *transport) greet(remote netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.accepted[remote]; c != nil {
		c.greeted.Store(true)
		t.waiting.remove(c)
		t.members.remove(c)
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
	shown := unmap(remote)
	remote = t.bans.Real(shown)
	if a := remote.Addr(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || remote.Port() == 0 || remote == t.local {
		return nil, fmt.Errorf("dialling %q: not the address of a peer", addr)
	}
	if t.dialling == nil && !t.bans.Welcome(ban.Suspect{At: remote}) {
		return nil, fmt.Errorf("dialling %q: %w", remote, errBanned)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	nc, err := t.dialer(remote.Addr()).DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return nil, err
	}
	c := t.wrap(nc, remote, true)
	c.shown = shown
	t.mu.Lock()
	shut := t.shut
	if !shut {
		t.conns[c] = struct{}{}
	}
	t.mu.Unlock()
	if shut {
		nc.Close()
		return nil, net.ErrClosed
	}
	if err := t.secure(ctx, c); err != nil {
		return nil, err
	}
	if t.dialling != nil {
		if !t.pass(c) {
			return nil, fmt.Errorf("dialling %q: %w", remote, errBanned)
		}
		t.bans.Turned(shown, c.suspect())
	}
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
	socket.Tune(nc)
	from := socket.NewReceiver(nc, t.accepting != nil)
	c := &conn{Conn: from, socket: nc, from: from, tr: t, remote: remote, shown: remote, dialled: dialled, closed: make(chan struct{})}
	if t.accepting != nil {
		c.Conn = t.seal(from, dialled)
	}
	c.classify()
	if t.super != nil {
		c.super = newOfferer(c, t.super)
	} else {
		c.tell = &teller{send: c.send, origin: func() bool { return c.Class() == ClassOrigin }}
	}
	return c
}

// hangUp closes the connections with a peer.
func (t *transport) hangUp(remote netip.AddrPort) {
	t.mu.Lock()
	var theirs []*conn
	for c := range t.conns {
		if c.remote == remote {
			theirs = append(theirs, c)
		}
	}
	t.mu.Unlock()
	for _, c := range theirs {
		c.Close()
	}
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

// find returns the connection with remote that the engine has, or nil. Of several that
// were dialled to one address it is any; one process listens there.
func (t *transport) find(remote netip.AddrPort, dialled bool) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !dialled {
		return t.accepted[remote]
	}
	for c := range t.conns {
		if c.dialled && c.remote == remote && (t.dialling == nil || c.member != fleet.Identity{}) {
			return c
		}
	}
	return nil
}

// gone forgets a connection that is closed.
func (t *transport) gone(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if t.accepted[c.remote] == c {
		delete(t.accepted, c.remote)
	}
	if !c.greeted.Load() {
		t.waiting.remove(c)
		t.members.remove(c)
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
