// Package gate bounds the connections of an HTTP server, so that no client can take the
// places of all others: in all, and from one address.
//
// When there are too many, the one that has waited longest for a request of its client to
// be complete has to go, of those from the same address first. While a request is being
// answered its connection stays; what that may take has bounds of its own.
package gate

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"shoal/swarm/ban"
)

// Gate is a listener for one http.Server, whose ConnContext and Handler must go through
// it.
type Gate struct {
	net.Listener
	most, mostFrom int

	mu    sync.Mutex // guards what follows
	conns map[*conn]struct{}
	from  map[netip.Addr]int
	clock uint64 // counts what happens
}

// A conn is one connection, from when it is accepted.
type conn struct {
	net.Conn
	g      *Gate
	source netip.Addr

	// Guarded by g.mu.
	busy  bool
	since uint64 // g.clock when it began to wait
}

// New returns a gate that accepts from ln: at most so many connections at a time, and
// mostFrom of them from one address.
func New(ln net.Listener, most, mostFrom int) *Gate {
	return &Gate{Listener: ln, most: most, mostFrom: mostFrom, conns: map[*conn]struct{}{}, from: map[netip.Addr]int{}}
}

// Source is what counts as one address, for "host:port": an IPv4 address, or the network
// (/64) in which a host can choose IPv6 addresses. It is zero for anything else.
func Source(addr string) netip.Addr {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Addr{}
	}
	return ban.Source(a.Addr())
}

// Accept implements net.Listener.
func (g *Gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := (&conn{Conn: nc, g: g, source: Source(nc.RemoteAddr().String())}); g.admit(c) {
			return c, nil
		}
		nc.Close()
	}
}

// admit makes room for c, if there is some to be made.
func (g *Gate) admit(c *conn) bool {
	g.mu.Lock()
	crowded := g.from[c.source] >= g.mostFrom
	full := crowded || len(g.conns) >= g.most
	var victim *conn
	if full {
		for o := range g.conns {
			if !o.busy && (!crowded || o.source == c.source) && (victim == nil || o.since < victim.since) {
				victim = o
			}
		}
		if victim == nil {
			g.mu.Unlock()
			return false
		}
		g.forget(victim)
	}
	g.clock++
	c.since = g.clock
	g.conns[c] = struct{}{}
	g.from[c.source]++
	g.mu.Unlock()
	if victim != nil {
		victim.Conn.Close()
	}
	return true
}

// forget is called with g.mu held.
func (g *Gate) forget(c *conn) {
	if _, ok := g.conns[c]; !ok {
		return
	}
	delete(g.conns, c)
	if g.from[c.source]--; g.from[c.source] == 0 {
		delete(g.from, c.source)
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.g.mu.Lock()
	c.g.forget(c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

type contextKey struct{}

// ConnContext is for the field of http.Server with that name.
func (g *Gate) ConnContext(ctx context.Context, nc net.Conn) context.Context {
	for {
		inside, ok := nc.(interface{ NetConn() net.Conn }) // what is around it: TLS, or a door's
		if !ok {
			break
		}
		nc = inside.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		ctx = context.WithValue(ctx, contextKey{}, c)
	}
	return ctx
}

// Handler returns h as the gate wants it.
func (g *Gate) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(contextKey{}).(*conn); ok {
			c.set(true)
			defer c.set(false)
		}
		h.ServeHTTP(w, r)
	})
}

func (c *conn) set(busy bool) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.busy = busy
	c.g.clock++
	c.since = c.g.clock
}
