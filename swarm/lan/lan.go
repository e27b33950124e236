// Package lan says which networks this machine is on directly, with a wire or an antenna
// of its own: the ones on which a peer is near.
//
// A tunnel, a VPN, a bridge, a container network or a mobile modem also has a private
// address range, but what is behind it may be on the other side of the world, or a
// metered link away; none of those count.
package lan

import (
	"net"
	"net/netip"
)

// Network is one network this machine is directly attached to.
type Network struct {
	Interface string       // its name here, for people
	Prefix    netip.Prefix // private, or link-local
}

// Networks lists the private and link-local networks of the physical interfaces that are
// up, in the order the system lists the interfaces. The list can change at any time.
func Networks() ([]Network, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var networks []Network
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || !physical(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if p, ok := private(n); ok {
					networks = append(networks, Network{i.Name, p})
				}
			}
		}
	}
	return networks, nil
}

// private returns the network of n if all of it is private or link-local.
func private(n *net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	addr = addr.Unmap()
	if !addr.IsPrivate() && !addr.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(addr, ones).Masked()
	return p, p.IsValid()
}
