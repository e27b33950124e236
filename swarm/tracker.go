package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// farewell is how long Close waits for trackers to be told that we leave.
const farewell = time.Second

// checkTracker returns the form of a tracker's URL that the engine can be given. What it
// cannot be given makes it panic, and trackers come from links people pass on.
func checkTracker(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "udp":
		return "", fmt.Errorf("tracker %q: only http, https and udp are supported", raw)
	case u.User != nil:
		return "", fmt.Errorf("tracker %q: user and password are not supported", u.Redacted())
	case u.Host == "" || u.Opaque != "":
		return "", fmt.Errorf("tracker %q: there is no host", raw)
	}
	u.Fragment, u.RawFragment = "", ""
	s := u.String()
	for _, scheme := range []string{u.Scheme, "udp4", "udp6"} {
		u.Scheme = scheme
		if again, err := url.Parse(u.String()); err != nil || again.String() != u.String() {
			return "", fmt.Errorf("tracker %q: not a clean URL", raw)
		}
	}
	return s, nil
}

// A trackerNet makes the engine's connections to trackers, so that Close can wait for the
// last announces and end what is left. (The engine does not keep HTTP connections for
// later, so an open one is an announce under way.)
type trackerNet struct {
	ctx  context.Context
	stop context.CancelFunc

	mu    sync.Mutex // guards what follows
	used  bool
	quiet bool // nothing new begins
	open  map[*trackerConn]struct{}
	udp   map[net.PacketConn]struct{}
}

func newTrackerNet() *trackerNet {
	t := &trackerNet{open: make(map[*trackerConn]struct{}), udp: make(map[net.PacketConn]struct{})}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// A trackerConn is an announce under way, from before it is dialled.
type trackerConn struct {
	net.Conn
	t      *trackerNet
	forget func() bool
}

func (c *trackerConn) Close() error {
	c.forget()
	c.t.mu.Lock()
	delete(c.t.open, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

func (t *trackerNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c := &trackerConn{t: t}
	t.mu.Lock()
	if t.quiet {
		t.mu.Unlock()
		return nil, net.ErrClosed
	}
	t.used = true
	t.open[c] = struct{}{}
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		delete(t.open, c)
		return nil, err
	}
	c.Conn = nc
	c.forget = context.AfterFunc(t.ctx, func() { nc.Close() })
	return c, nil
}

// listenPacket opens a socket for UDP trackers (BEP 15). The engine panics on an error,
// and a machine without one of the two families has one, so that is a socket on which
// every announce fails instead.
func (t *trackerNet) listenPacket(network, addr string) (net.PacketConn, error) {
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		return deadSocket{err}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiet {
		pc.Close()
		return deadSocket{net.ErrClosed}, nil
	}
	t.used = true
	t.udp[pc] = struct{}{}
	return pc, nil
}

type deadSocket struct{ err error }

func (d deadSocket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, d.err }
func (d deadSocket) WriteTo([]byte, net.Addr) (int, error)  { return 0, d.err }
func (d deadSocket) Close() error                           { return nil }
func (d deadSocket) LocalAddr() net.Addr                    { return &net.UDPAddr{} }
func (d deadSocket) SetDeadline(time.Time) error            { return errors.ErrUnsupported }
func (d deadSocket) SetReadDeadline(time.Time) error        { return errors.ErrUnsupported }
func (d deadSocket) SetWriteDeadline(time.Time) error       { return errors.ErrUnsupported }

// close waits until no announce has been under way for a moment, at most for patience,
// and ends those that are left.
func (t *trackerNet) close(patience time.Duration) {
	const step, calm = 10 * time.Millisecond, 5
	idle := 0
	for waited := time.Duration(0); waited < patience && idle < calm; waited += step {
		t.mu.Lock()
		idle++
		if len(t.open) > 0 {
			idle = 0
		}
		if !t.used {
			idle = calm
		}
		t.mu.Unlock()
		if idle < calm {
			time.Sleep(step)
		}
	}
	t.mu.Lock()
	t.quiet = true
	sockets := t.udp
	t.udp = nil
	t.mu.Unlock()
	t.stop()
	for pc := range sockets {
		pc.Close()
	}
}
