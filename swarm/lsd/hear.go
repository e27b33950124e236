package lsd

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// What is heard is bounded, before anything is read, and so are the peers that the node is
// told of: from each address, and from all of IPv4 and all of IPv6. What one address says
// beyond its own bounds takes nothing from the others.
const (
	sourceRate, sourceBurst           = 2, 60      // datagrams a second, of an address
	sourceOfferRate, sourceOfferBurst = 4, 100     // peers a second, of an address
	allRate, allBurst                 = 1000, 1000 // datagrams a second
	offerRate, offerBurst             = 20, 200    // peers a second
	maxSources                        = 1024       // of each family
	maxNeighbours                     = 256        // remembered for each torrent

	// Who announces a torrent again so soon is looking for peers.
	eager = 2 * time.Minute
	// What is said under each of two keys is said once.
	sameTime = firstWant / 2
	// Who has not announced for so long is gone.
	stale = 2*idleEvery + time.Minute
	// Those who look for peers are dialled by about so many of all that hear them.
	answers = 8
)

// A torrent is one of ours as the LAN has it.
type torrent struct {
	complete   bool
	neighbours map[netip.AddrPort]time.Time // when each was heard last
}

func (t *torrent) forget(now time.Time) {
	for p, heard := range t.neighbours {
		if now.Sub(heard) > stale {
			delete(t.neighbours, p)
		}
	}
}

// A family is what is heard over IPv4, or over IPv6, in which one host can have more
// addresses than anybody can remember.
type family struct {
	sources map[netip.Addr]*budget
	all     budget
}

// A budget is how much more may come now.
type budget struct{ datagrams, offers *rate.Limiter }

func newFamily() *family {
	return &family{
		sources: make(map[netip.Addr]*budget),
		all:     budget{rate.NewLimiter(allRate, allBurst), rate.NewLimiter(offerRate, offerBurst)},
	}
}

// source is the budget of an address. Of too many, any is forgotten.
func (f *family) source(from netip.Addr) *budget {
	s := f.sources[from]
	if s == nil {
		for other := range f.sources {
			if len(f.sources) < maxSources {
				break
			}
			delete(f.sources, other)
		}
		s = &budget{rate.NewLimiter(sourceRate, sourceBurst), rate.NewLimiter(sourceOfferRate, sourceOfferBurst)}
		f.sources[from] = s
	}
	return s
}

func (a *Announcer) family(of netip.Addr) *family {
	if of.Is4() {
		return a.ipv4
	}
	return a.ipv6
}

// hear takes a datagram that came from an address, by the interface with an index, which
// is 0 if the system does not say.
func (a *Announcer) hear(b []byte, from netip.Addr, index int, now time.Time) {
	a.mu.Lock()
	found := a.accept(b, from.WithZone("").Unmap(), index, now)
	a.stats.Found += int64(len(found))
	a.mu.Unlock()
	for _, f := range found {
		a.c.Found(f.infohash, f.peer, f.calls)
	}
}

type find struct {
	infohash [20]byte
	peer     netip.AddrPort
	calls    bool
}

// accept is called with a.mu held.
func (a *Announcer) accept(b []byte, from netip.Addr, index int, now time.Time) []find {
	drop := &a.stats.Dropped
	a.stats.Heard++
	if !a.near(from, index) {
		drop.Elsewhere++
		return nil
	}
	family := a.family(from)
	source := family.source(from)
	if !source.datagrams.AllowN(now, 1) || !family.all.datagrams.AllowN(now, 1) {
		drop.Flood++
		return nil
	}
	d, err := parse(b)
	if err != nil {
		drop.Malformed++
		return nil
	}
	peer := netip.AddrPortFrom(from, d.port)
	own := d.port == a.c.Addr.Port() && slices.ContainsFunc(a.links, func(l link) bool { return l.has(from) })
	if d.cookie == a.cookie || own {
		drop.Own++
		return nil
	}
	key := 0
	if len(a.keys) > 0 {
		key = slices.IndexFunc(a.keys, func(s secret) bool { return s.sealed(d, from) })
		if key < 0 {
			drop.Strangers++
			return nil
		}
	}
	if len(a.names) == 0 {
		return nil // nothing is ours yet
	}
	var found []find
	for _, name := range d.list {
		infohash, ours := a.names[key][name]
		if !ours {
			continue
		}
		tell, calls := a.torrents[infohash].heard(peer, now)
		if !tell {
			continue
		}
		if !source.offers.AllowN(now, 1) || !family.all.offers.AllowN(now, 1) {
			drop.Flood++
			return found
		}
		found = append(found, find{infohash, peer, calls})
	}
	return found
}

// near reports whether a peer can be at an address that was heard by an interface. Who
// can show to be of the fleet need not be on its network.
func (a *Announcer) near(from netip.Addr, index int) bool {
	if !from.IsValid() || from.IsUnspecified() || from.IsLoopback() || from.IsMulticast() || from.Is6() && from.IsLinkLocalUnicast() {
		return false
	}
	return slices.ContainsFunc(a.links, func(l link) bool {
		return (index == 0 || l.index == index) && l.source.Is4() == from.Is4() && (len(a.keys) > 0 || l.contains(from))
	})
}

// heard notes a neighbour. tell reports whether the node should know of it: always, if
// something is missing here. If nothing is, it is for the other one to ask, and for some
// of those who have it all to dial. calls reports whether it has called for peers before
// and found too few, and is for this node to dial: everybody else may have enough already.
func (t *torrent) heard(p netip.AddrPort, now time.Time) (tell, calls bool) {
	last, known := t.neighbours[p]
	if !known {
		for other := range t.neighbours {
			if len(t.neighbours) < maxNeighbours {
				break
			}
			delete(t.neighbours, other)
		}
	}
	t.neighbours[p] = now
	again := known && now.Sub(last) < eager
	chosen := rand.N(max(answers, len(t.neighbours))) < answers
	return !t.complete || (again || !known) && chosen, again && chosen && now.Sub(last) > sameTime
}
