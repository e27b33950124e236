package publisher

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	resolveEvery   = time.Minute
	resolveTimeout = 10 * time.Second
	maxAddresses   = 8 // of the publisher's own name; more is a mistake
)

// addresses is where peers find the origin seed: at the publisher's public name if it
// has one, where its seed listens if that is one address, and otherwise where the peer
// has just reached it.
type addresses struct {
	host  string // of the public URL, or empty
	swarm netip.AddrPort

	mu    sync.Mutex // guards known
	known []netip.Addr
}

func newAddresses(publicURL string, swarm netip.AddrPort) *addresses {
	a := &addresses{swarm: swarm}
	if u, err := parsePublicURL(publicURL); err == nil {
		a.host = u.Hostname()
		if ip, err := netip.ParseAddr(a.host); err == nil {
			a.known = []netip.Addr{ip.Unmap()}
		}
	}
	return a
}

// from returns the origin's addresses for a peer that reached the tracker at local.
func (a *addresses) from(local netip.Addr) []netip.AddrPort {
	a.mu.Lock()
	known := a.known
	a.mu.Unlock()
	var out []netip.AddrPort
	// Who came over loopback is on this machine, where the public name may lead nowhere.
	if !local.IsLoopback() {
		for _, ip := range known {
			out = append(out, netip.AddrPortFrom(ip, a.swarm.Port()))
		}
	}
	if len(out) > 0 {
		return out
	}
	if ip := a.swarm.Addr(); ip.IsValid() && !ip.IsUnspecified() {
		return []netip.AddrPort{a.swarm}
	}
	if local.IsValid() && !local.IsUnspecified() {
		return []netip.AddrPort{netip.AddrPortFrom(local, a.swarm.Port())}
	}
	return nil
}

// follow keeps the addresses of the public name up to date until ctx is done. When the
// name cannot be resolved the last addresses stay.
func (a *addresses) follow(ctx context.Context) {
	if _, err := netip.ParseAddr(a.host); a.host == "" || err == nil {
		return
	}
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		a.resolve(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *addresses) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.host)
	if err != nil || len(found) == 0 {
		return
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = found[:min(len(found), maxAddresses)]
}
