package lsd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	sendTimeout = time.Second
	maxUDP      = 64 << 10 // bytes; Windows takes one that is longer than there is room for as an error
)

// Interfaces are patterns for names of interfaces (path.Match): "eth*" chooses some,
// "!docker*" leaves some out. Without one that chooses, all are chosen.
type Interfaces []string

// Validate reports the first pattern that is none.
func (p Interfaces) Validate() error {
	for _, pattern := range p {
		if _, err := path.Match(strings.TrimPrefix(pattern, "!"), ""); err != nil || strings.TrimPrefix(pattern, "!") == "" {
			return fmt.Errorf("interface %q is not a pattern such as eth* or !docker*", pattern)
		}
	}
	return nil
}

func (p Interfaces) match(name string) bool {
	chosen, choosing := false, false
	for _, pattern := range p {
		pattern, out := strings.CutPrefix(pattern, "!")
		ok, _ := path.Match(pattern, name)
		if out && ok {
			return false
		}
		choosing = choosing || !out
		chosen = chosen || ok && !out
	}
	return chosen || !choosing
}

// A link is an interface as IPv4 or IPv6 has it.
type link struct {
	index  int
	name   string
	source netip.Addr // what is announced
	addrs  string     // its prefixes, as they are, separated by spaces; a string, to be compared
}

func (l link) prefixes() (all []netip.Prefix) {
	for _, s := range strings.Fields(l.addrs) {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// contains reports whether an address is on the link's network.
func (l link) contains(a netip.Addr) bool {
	return slices.ContainsFunc(l.prefixes(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// has reports whether an address is this machine's own.
func (l link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.prefixes(), func(p netip.Prefix) bool { return p.Addr() == a })
}

// findLinks lists what there is to announce on, for a node that listens at addr.
func findLinks(chosen Interfaces, addr netip.Addr) ([]link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var links []link
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagLoopback != 0 || !chosen.match(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away
		}
		for _, is4 := range []bool{true, false} {
			if addr.Is4() && !is4 {
				continue
			}
			l := link{index: i.Index, name: i.Name}
			var prefixes []string
			for _, n := range addrs {
				p, ok := usable(n)
				if !ok || p.Addr().Is4() != is4 {
					continue
				}
				prefixes = append(prefixes, p.String())
				if !l.source.IsValid() && addr.IsUnspecified() || p.Addr() == addr {
					l.source = p.Addr()
				}
			}
			if l.source.IsValid() {
				l.addrs = strings.Join(prefixes, " ")
				links = append(links, l)
			}
		}
	}
	return links, nil
}

// usable is an address that peers can dial, with its network.
func usable(n net.Addr) (netip.Prefix, bool) {
	ipnet, ok := n.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ipnet.IP)
	ones, bits := ipnet.Mask.Size()
	a = a.Unmap()
	if !ok || bits != a.BitLen() || a.IsUnspecified() || a.IsLoopback() || a.Is6() && a.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// send sends datagrams over the link to the group, from its own address and no farther
// than its network.
func (l link) send(datagrams [][]byte) (sent int, err error) {
	// Bound to the address, so that it is the one that others see.
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.source, 0)))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ifi := &net.Interface{Index: l.index, Name: l.name}
	if l.source.Is4() {
		p := ipv4.NewPacketConn(c)
		err = errors.Join(p.SetMulticastInterface(ifi), p.SetMulticastTTL(1), p.SetMulticastLoopback(true))
	} else {
		p := ipv6.NewPacketConn(c)
		err = errors.Join(p.SetMulticastInterface(ifi), p.SetMulticastHopLimit(1), p.SetMulticastLoopback(true))
	}
	if err != nil {
		return 0, err
	}
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return 0, err
	}
	for _, d := range datagrams {
		if _, err := c.WriteToUDPAddrPort(d, group(l.source)); err != nil {
			return sent, err
		}
		sent++
	}
	return sent, nil
}

// look finds out on which links to announce and to hear.
func (a *Announcer) look() {
	links, err := findLinks(a.c.Interfaces, a.c.Addr.Addr())
	if err != nil {
		a.log.Debug("listing interfaces", "error", err)
		return // as they were
	}
	a.mu.Lock()
	a.links = links
	a.mu.Unlock()
	for l := range a.told {
		if !slices.Contains(links, l) {
			delete(a.told, l)
		}
	}
	for i, g := range []netip.AddrPort{group4, group6} {
		theirs := slices.DeleteFunc(slices.Clone(links), func(l link) bool { return group(l.source) != g })
		a.listen(&a.groups[i], g, theirs)
	}
}

// untold are the links on which nothing has been announced yet.
func (a *Announcer) untold() (links []link) {
	for _, l := range a.links {
		if !a.told[l] {
			links = append(links, l)
		}
	}
	return links
}

// A listener hears one group.
type listener struct {
	close  func() error
	join   func(*net.Interface) error
	read   func([]byte) (n, index int, dst net.IP, from net.Addr, err error)
	joined map[int]bool // indexes of interfaces
}

// listen opens the listener of a group if it is not there, and joins the group on links.
func (a *Announcer) listen(l **listener, g netip.AddrPort, links []link) {
	if *l == nil && len(links) > 0 {
		opened, err := open(g)
		if err != nil {
			a.log.Debug("listening for neighbours", "group", g.String(), "error", err)
			return // until the next look
		}
		*l = opened
		a.running.Go(func() { a.listenTo(opened, g) })
	}
	if *l == nil {
		return
	}
	there := make(map[int]bool, len(links))
	for _, to := range links {
		there[to.index] = true
		if (*l).joined[to.index] {
			continue
		}
		err := (*l).join(&net.Interface{Index: to.index, Name: to.name})
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // which says that it has been joined
			a.log.Debug("listening for neighbours", "interface", to.name, "group", g.String(), "error", err)
			continue
		}
		(*l).joined[to.index] = true
	}
	// Should it come back, it has to be joined again.
	for index := range (*l).joined {
		if !there[index] {
			delete((*l).joined, index)
		}
	}
}

// open opens the socket of a group. Others on this machine may have one too.
func open(g netip.AddrPort) (*listener, error) {
	network := "udp4"
	if g.Addr().Is6() {
		network = "udp6"
	}
	// Given a group, it listens on all addresses, and shares the port.
	c, err := net.ListenPacket(network, g.String())
	if err != nil {
		return nil, err
	}
	l := &listener{close: c.Close, joined: make(map[int]bool)}
	// Windows does not say where a datagram was going, and by which interface it came.
	if g.Addr().Is4() {
		p := ipv4.NewPacketConn(c)
		_ = p.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		l.join = func(i *net.Interface) error { return p.JoinGroup(i, &net.UDPAddr{IP: g.Addr().AsSlice()}) }
		l.read = func(b []byte) (n, index int, dst net.IP, from net.Addr, err error) {
			n, cm, from, err := p.ReadFrom(b)
			if cm != nil {
				index, dst = cm.IfIndex, cm.Dst
			}
			return n, index, dst, from, err
		}
		return l, nil
	}
	p := ipv6.NewPacketConn(c)
	_ = p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	l.join = func(i *net.Interface) error { return p.JoinGroup(i, &net.UDPAddr{IP: g.Addr().AsSlice()}) }
	l.read = func(b []byte) (n, index int, dst net.IP, from net.Addr, err error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm != nil {
			index, dst = cm.IfIndex, cm.Dst
		}
		return n, index, dst, from, err
	}
	return l, nil
}

// listenTo hears what comes until the listener is closed.
func (a *Announcer) listenTo(l *listener, g netip.AddrPort) {
	b := make([]byte, maxUDP)
	for {
		n, index, dst, from, err := l.read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.log.Debug("hearing neighbours", "group", g.String(), "error", err)
			select {
			case <-time.After(time.Second): // it may be an error that stays
			case <-a.ctx.Done():
				return
			}
			continue
		}
		u, ok := from.(*net.UDPAddr)
		if !ok || dst != nil && !dst.Equal(g.Addr().AsSlice()) {
			continue
		}
		a.hear(b[:n], u.AddrPort().Addr(), index, time.Now())
	}
}

func (a *Announcer) closeListeners() {
	for _, l := range a.groups {
		if l != nil {
			l.close()
		}
	}
}
