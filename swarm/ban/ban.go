// Package ban keeps those out of a swarm, for a while, who sent what is not as signed.
//
// A ban is about a member of the fleet, known by the key of its connections, or in a fleet
// without a key about an address; it never outlasts an hour, and strikes nobody else who is
// behind the same address.
//
// The torrent engine finds out who sent bad pieces, but bans IP addresses, and until the
// process ends. So it is shown aliases: addresses that stand for the suspect alone, and
// are others once a ban is over.
package ban

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

const (
	// Time is how long a ban lasts.
	Time = time.Hour

	// The engine may be wrong about who spoilt a piece that came from several. Without
	// proof of our own a first ban is so long, and each one after it twice as long.
	unproven = 20 * time.Second

	// New identities that one address may bring in an hour. Behind an address there may be
	// a whole site; but where somebody was banned, a fresh key must not undo it.
	newIdentities = 256
	newAfterBan   = 4
	perTime       = time.Hour

	maxBans    = 1024 // the one that ends first is forgotten first
	maxSources = 1024 // whose identities are counted; the oldest is forgotten first
	maxAliases = 4096 // that the engine may still speak of; the oldest is forgotten first
)

// network is that of aliases: 100::/64, where nobody is (RFC 6666).
var network = [8]byte{1}

// Suspect is whom a ban is about.
type Suspect struct {
	Identity [32]byte       // of a member of the fleet; zero if there is none, or it is not known yet
	At       netip.AddrPort // where it is
}

// key is what tells suspects apart.
type key string

func (s Suspect) member() bool { return s.Identity != [32]byte{} }

func (l *List) key(s Suspect) key {
	switch {
	case s.member():
		return key("member " + string(s.Identity[:]))
	case l.keyed, s.At.Addr().IsLoopback():
		// The nodes of one machine, or behind one address, are told apart.
		return key("at " + s.At.String())
	}
	return key("at " + Source(s.At.Addr()).String())
}

// Source is what counts as one source of connections: an IPv4 address, or the network
// (/64) an IPv6 host can choose addresses in.
func Source(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is6() {
		p, _ := a.WithZone("").Prefix(64)
		return p.Addr()
	}
	return a
}

// List holds the bans of a node. Its methods may be called concurrently.
type List struct {
	clock func() time.Time
	keyed bool

	mu      sync.Mutex // guards what follows
	until   map[key]time.Time
	lives   map[key]uint32 // how often each was banned
	proven  map[key]struct{}
	aliases map[netip.Addr]*alias
	order   []netip.Addr // of aliases, oldest first
	sources map[netip.Addr]*source
}

type alias struct {
	who  Suspect
	made key // what it was made of
}

type source struct {
	since  time.Time // of what is counted
	left   int
	seen   map[key]struct{}
	strict time.Time // until then, because somebody there was banned
}

// New returns a list without bans, for a fleet with a key or without.
func New(clock func() time.Time, keyed bool) *List {
	return &List{
		clock: clock, keyed: keyed, until: make(map[key]time.Time), lives: make(map[key]uint32), proven: make(map[key]struct{}),
		aliases: make(map[netip.Addr]*alias), sources: make(map[netip.Addr]*source),
	}
}

// Welcome reports whether s may be a peer now.
func (l *List) Welcome(s Suspect) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := l.key(s)
	return !l.banned(who) && (!s.member() || s.At.Addr().IsLoopback() || l.counted(who, Source(s.At.Addr())))
}

// banned is called with l.mu held.
func (l *List) banned(who key) bool {
	until, ok := l.until[who]
	if ok && !l.clock().Before(until) {
		delete(l.until, who)
		return false
	}
	return ok
}

// counted reports whether an identity from a source is known, or can be one of the new
// ones. Called with l.mu held.
func (l *List) counted(who key, at netip.Addr) bool {
	now := l.clock()
	s := l.sources[at]
	if s == nil {
		if len(l.sources) >= maxSources {
			forget(l.sources, func(s *source) time.Time { return s.since })
		}
		s = &source{since: now, left: newIdentities, seen: make(map[key]struct{})}
		l.sources[at] = s
	}
	if now.Sub(s.since) >= perTime {
		s.since, s.left = now, newAfterBan
		if !now.Before(s.strict) {
			s.left = newIdentities
			clear(s.seen)
		}
	}
	if _, ok := s.seen[who]; ok {
		return true
	}
	if s.left == 0 {
		return false
	}
	s.left--
	s.seen[who] = struct{}{}
	return true
}

// Alias returns the address by which the engine is to know s. In a fleet without a key it
// is the real one until that has been banned once, because the engine tells the peer; but
// on this machine, where it would be the same for all.
func (l *List) Alias(s Suspect) netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := l.key(s)
	shown, lives := s.At.Addr(), l.lives[who]
	if l.keyed || lives > 0 || shown.IsLoopback() {
		sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, lives), who...))
		shown = netip.AddrFrom16([16]byte(append(network[:], sum[:8]...)))
	}
	if l.aliases[shown] == nil {
		if len(l.order) >= maxAliases {
			delete(l.aliases, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, shown)
		l.aliases[shown] = &alias{who: s, made: who}
	}
	return netip.AddrPortFrom(shown, s.At.Port())
}

// Real returns the address that an alias was made of.
func (l *List) Real(shown netip.AddrPort) netip.AddrPort {
	if b := shown.Addr().As16(); [8]byte(b[:8]) != network {
		return shown
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.aliases[shown.Addr()]; a != nil {
		return a.who.At
	}
	return netip.AddrPort{}
}

// Turned notes who is where an alias was dialled.
func (l *List) Turned(shown netip.AddrPort, out Suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.aliases[shown.Addr()]; a != nil {
		a.who = out
	}
}

// Prove notes that all of a bad piece came from s: the next ban is a whole one.
func (l *List) Prove(s Suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.proven) >= maxBans {
		clear(l.proven)
	}
	l.proven[l.key(s)] = struct{}{}
}

// Found notes that the engine has banned an alias. It returns whom that is about and for
// how long it is, unless it was known already.
func (l *List) Found(shown netip.Addr) (s Suspect, d time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.aliases[shown]
	if a == nil {
		return Suspect{}, 0, false
	}
	delete(l.aliases, shown)
	if len(l.until) >= maxBans {
		forget(l.until, func(t time.Time) time.Time { return t })
	}
	if len(l.lives) >= 2*maxBans {
		clear(l.lives)
	}
	now, who := l.clock(), l.key(a.who)
	if _, ok := l.proven[who]; ok {
		delete(l.proven, who)
		d = Time
	} else {
		d = min(Time, unproven<<min(l.lives[who], 16))
	}
	l.until[who] = now.Add(d)
	l.lives[who]++
	if a.made != who {
		l.lives[a.made]++
	}
	if at := l.sources[Source(a.who.At.Addr())]; at != nil {
		at.left, at.strict = min(at.left, newAfterBan), now.Add(d)
	}
	return a.who, d, true
}

// Pardon ends a ban.
func (l *List) Pardon(s Suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.until, l.key(s))
}

// Aside keeps somebody out who may have done nothing wrong, for a short while.
func (l *List) Aside(s Suspect, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := l.key(s)
	if until := l.clock().Add(d); !l.banned(who) && len(l.until) < maxBans {
		l.until[who] = until
	}
}

// Same reports whether a ban of one is a ban of the other.
func (l *List) Same(a, b Suspect) bool { return l.key(a) == l.key(b) }

// Lift ends all bans.
func (l *List) Lift() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.until)
	clear(l.sources)
}

// Count returns how many bans there are now.
func (l *List) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for who := range l.until {
		if l.banned(who) {
			n++
		}
	}
	return n
}

// forget removes the entry of m that has the earliest time.
func forget[K comparable, V any](m map[K]V, at func(V) time.Time) {
	var first K
	var when time.Time
	found := false
	for k, v := range m {
		if t := at(v); !found || t.Before(when) {
			first, when, found = k, t, true
		}
	}
	delete(m, first)
}
