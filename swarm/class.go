package swarm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"shoal/swarm/lan"
)

// Class says how near a peer is, which decides its limits and where its bytes are
// counted.
//
// It follows from addresses. A peer that was dialled is the origin if its address and
// port are one of Config.Origins. A peer that dialled us comes from a port that says
// nothing, so it is the origin if it comes from the address of one and says, in its
// extension handshake (BEP 10), that it listens on that origin's port; other programs on
// the publisher's machine are not the origin. Everyone else is on the LAN if the address
// is a loopback address, or a private one on a network of a physical interface of this
// machine (package lan), and on the WAN if not. A peer can lie its way to the class of a
// neighbour; all it gains is to be counted and limited with it.
type Class int

// The classes, in the order of [ByClass].
const (
	ClassLAN     Class = iota // a neighbour
	ClassWAN                  // anyone else
	ClassOrigin               // the publisher
	ClassWebseed              // payload fetched over HTTP
	numClasses
)

func (c Class) String() string {
	switch c {
	case ClassLAN:
		return "lan"
	case ClassWAN:
		return "wan"
	case ClassOrigin:
		return "origin"
	case ClassWebseed:
		return "webseed"
	}
	return "Class(" + strconv.Itoa(int(c)) + ")"
}

// ByClass counts bytes, one count for each class: b[ClassLAN].
type ByClass [numClasses]int64

// Sum returns the bytes of all classes.
func (b ByClass) Sum() (n int64) {
	for _, v := range b {
		n += v
	}
	return n
}

func (b *ByClass) add(o ByClass) {
	for c := range b {
		b[c] += o[c]
	}
}

// A classifier knows the addresses that classes depend on.
type classifier struct {
	names []string // "host:port" of origins, as configured

	mu       sync.RWMutex // guards what follows
	origins  map[netip.AddrPort]struct{}
	networks []lan.Network
}

// newClassifier knows the origins that are given as addresses; [classifier.resolve]
// finds the named ones.
func newClassifier(origins []string) (*classifier, error) {
	c := &classifier{names: origins, origins: make(map[netip.AddrPort]struct{})}
	for _, o := range origins {
		if _, err := splitHostPort(o); err != nil {
			return nil, fmt.Errorf("origin %q: %w", o, err)
		}
		if a, err := netip.ParseAddrPort(o); err == nil {
			c.learn(o, a)
		}
	}
	c.refresh()
	return c, nil
}

// splitHostPort checks "host:port" and returns the port, which must be a number above 0.
func splitHostPort(s string) (port uint16, err error) {
	_, p, err := net.SplitHostPort(s)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	return uint16(n), nil
}

// learn notes that name has the address a, if name is an origin. It reports whether that
// changed anything.
func (c *classifier) learn(name string, a netip.AddrPort) bool {
	a = unmap(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.names {
		if _, known := c.origins[a]; o == name && !known {
			c.origins[a] = struct{}{}
			return true
		}
	}
	return false
}

// refresh looks at the interfaces of this machine again.
func (c *classifier) refresh() {
	networks, err := lan.Networks()
	if err != nil {
		return // as they were
	}
	c.mu.Lock()
	c.networks = networks
	c.mu.Unlock()
}

// dialled is the class of a peer at the address we dial.
func (c *classifier) dialled(a netip.AddrPort) Class {
	a = unmap(a)
	c.mu.RLock()
	defer c.mu.RUnlock()
	if _, ok := c.origins[a]; ok {
		return ClassOrigin
	}
	return c.byAddr(a.Addr())
}

// accepted is the class of a peer that dialled us from addr and says that it listens on
// port, which is 0 until it has said so.
func (c *classifier) accepted(addr netip.Addr, port uint16) Class {
	return c.dialled(netip.AddrPortFrom(addr, port))
}

// byAddr is called with c.mu held.
func (c *classifier) byAddr(a netip.Addr) Class {
	if a.IsLoopback() {
		return ClassLAN
	}
	a = a.WithZone("")
	if a.IsPrivate() || a.IsLinkLocalUnicast() {
		for _, n := range c.networks {
			if n.Prefix.Contains(a) {
				return ClassLAN
			}
		}
	}
	return ClassWAN
}

// unmap writes an IPv4 address in one way only.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// resolve finds the addresses of "host:port".
func resolve(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(hostport); err == nil {
		return []netip.AddrPort{unmap(a)}, nil
	}
	port, err := splitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(hostport)
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	found := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		found = append(found, netip.AddrPortFrom(a.Unmap(), port))
	}
	return found, nil
}
