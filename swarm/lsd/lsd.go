package lsd

import (
	"context"
	"crypto/rand"
	"log/slog"
	mrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The groups of BEP 14.
var (
	group4 = netip.MustParseAddrPort("239.192.152.143:6771")
	group6 = netip.MustParseAddrPort("[ff15::efc0:988f]:6771")
)

const (
	lookEvery = 10 * time.Second // how often interfaces are looked at
	idleEvery = 5 * time.Minute  // how often everything is announced, more or less

	// What is wanted is announced more often: soon after it was, and less and less.
	firstWant = time.Second
	lastWant  = 20 * time.Second

	// What is started together is announced together.
	gather = 200 * time.Millisecond

	maxAnnounced = 180 // torrents at a time; of more, some, and others the next time
)

// Config is what [New] needs.
type Config struct {
	// Addr is where the node accepts peers. An unspecified IPv6 address is every address
	// of the machine, an unspecified IPv4 address every one of IPv4; any other is
	// announced on its own interface alone.
	Addr netip.AddrPort
	// Interfaces say which interfaces are used, see [Interfaces].
	Interfaces Interfaces
	// Keys are those of a fleet with a key: datagrams are sent with each, and heard with
	// any. Without keys, everyone's are heard.
	Keys [][32]byte
	// Torrents returns what to announce.
	Torrents func() []Torrent
	// Found is told of a peer that announced a torrent of ours. calls says that the peer
	// still looks for others, and that the node is one of about eight that should dial it,
	// even if they have peers enough. It is called from up to two goroutines at a time.
	Found func(infohash [20]byte, peer netip.AddrPort, calls bool)
	// Logger receives what happens. If nil, nothing is logged.
	Logger *slog.Logger
}

// Torrent is one torrent of the node.
type Torrent struct {
	Infohash [20]byte
	Complete bool // all of it is here
	Wanting  bool // more peers are needed, soon
}

// Stats is what happened since the start.
type Stats struct {
	// Interfaces are those that are announced on now, by name.
	Interfaces []string
	// Sent and Heard are datagrams; of those heard, Dropped were of no use.
	Sent, Heard int64
	// Found is how often Config.Found was called.
	Found   int64
	Dropped Dropped
}

// Dropped counts datagrams, but for Flood, by what was wrong with them.
type Dropped struct {
	Flood     int64 // too much, in all or from one address; of peers found, too many
	Malformed int64 // not an announcement
	Own       int64 // sent by this node
	Elsewhere int64 // from another network, or an address no peer can have
	Strangers int64 // in a fleet with a key: no good MAC, or not from the address in it
}

// Announcer announces and hears. Its methods may be called concurrently.
type Announcer struct {
	c      Config
	log    *slog.Logger
	keys   []secret
	cookie string

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	started chan struct{} // has one element after Started

	// Used by run only.
	groups [2]*listener
	told   map[link]bool // where everything has been announced
	fresh  map[[20]byte]bool

	mu       sync.Mutex // guards what follows
	links    []link
	starting [][20]byte
	torrents map[[20]byte]*torrent
	names    []map[[20]byte][20]byte // by key, what torrents are called on the LAN
	ipv4     *family
	ipv6     *family
	stats    Stats
}

// New starts announcing. What cannot be done, for want of an interface or a free port, is
// tried again for as long as the announcer runs. A pattern that is none is an error.
func New(c Config) (*Announcer, error) {
	if err := c.Interfaces.Validate(); err != nil {
		return nil, err
	}
	a := newAnnouncer(c)
	a.running.Go(a.run)
	return a, nil
}

func newAnnouncer(c Config) *Announcer {
	a := &Announcer{
		c: c, log: c.Logger, cookie: rand.Text(), started: make(chan struct{}, 1),
		told: make(map[link]bool), fresh: make(map[[20]byte]bool),
		torrents: make(map[[20]byte]*torrent), ipv4: newFamily(), ipv6: newFamily(),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	for _, k := range c.Keys {
		a.keys = append(a.keys, k)
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a
}

// Started has a torrent announced soon.
func (a *Announcer) Started(infohash [20]byte) {
	a.mu.Lock()
	if len(a.starting) < maxAnnounced {
		a.starting = append(a.starting, infohash)
	}
	a.mu.Unlock()
	select {
	case a.started <- struct{}{}:
	default:
	}
}

// Stats returns a snapshot.
func (a *Announcer) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.stats
	for _, l := range a.links {
		st.Interfaces = append(st.Interfaces, l.name)
	}
	slices.Sort(st.Interfaces)
	st.Interfaces = slices.Compact(st.Interfaces)
	return st
}

// Close ends announcing and hearing, and waits for both.
func (a *Announcer) Close() {
	a.stop()
	a.running.Wait()
}

// run announces until Close.
func (a *Announcer) run() {
	defer a.closeListeners()
	var look, all, want time.Time
	pause := firstWant
	for {
		now := time.Now()
		if !now.Before(look) {
			a.look()
			look = now.Add(lookEvery)
		}
		ts := a.c.Torrents()
		wanting := slices.ContainsFunc(ts, func(t Torrent) bool { return t.Wanting })
		if a.know(ts, now) {
			want, pause = now, firstWant
		}
		switch {
		case !now.Before(all):
			a.announceAll(a.links, ts)
			all = now.Add(idleEvery*4/5 + mrand.N(idleEvery*2/5))
		case !now.Before(want):
			for _, l := range a.links {
				a.announce(l, ts, func(t Torrent) bool { return t.Wanting || a.fresh[t.Infohash] })
			}
		}
		a.announceAll(a.untold(), ts)
		clear(a.fresh)
		if !now.Before(want) {
			want = now.Add(pause*3/4 + mrand.N(pause/2))
			pause = min(2*pause, lastWant)
		}
		next := look
		if all.Before(next) {
			next = all
		}
		if wanting && want.Before(next) {
			next = want
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-a.started:
			timer.Reset(gather/2 + mrand.N(gather))
			select {
			case <-timer.C:
			case <-a.ctx.Done():
			}
		case <-a.ctx.Done():
		}
		timer.Stop()
		if a.ctx.Err() != nil {
			return
		}
	}
}

// know takes over what there is to announce. It reports whether something was started.
func (a *Announcer) know(ts []Torrent, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.starting {
		a.fresh[h] = true
	}
	a.starting = nil
	known := make(map[[20]byte]*torrent, len(ts))
	names := make([]map[[20]byte][20]byte, max(1, len(a.keys)))
	for i := range names {
		names[i] = make(map[[20]byte][20]byte, len(ts))
	}
	for _, t := range ts {
		old := a.torrents[t.Infohash]
		if old == nil {
			old = &torrent{neighbours: make(map[netip.AddrPort]time.Time)}
		}
		old.complete = t.Complete
		old.forget(now)
		known[t.Infohash] = old
		for i := range names {
			names[i][a.name(i, t.Infohash)] = t.Infohash
		}
	}
	a.torrents, a.names = known, names
	return len(a.fresh) > 0
}

// name is what a torrent is called under the i-th key, or without one.
func (a *Announcer) name(i int, infohash [20]byte) [20]byte {
	if len(a.keys) == 0 {
		return infohash
	}
	return a.keys[i].name(infohash)
}

// announceAll tells everything to links.
func (a *Announcer) announceAll(links []link, ts []Torrent) {
	for _, l := range links {
		a.told[l] = a.announce(l, ts, func(Torrent) bool { return true })
	}
}

// announce sends what is due over a link. It reports false if that was not possible.
func (a *Announcer) announce(l link, ts []Torrent, due func(Torrent) bool) bool {
	var wanted, rest [][20]byte
	for _, t := range ts {
		switch {
		case !due(t):
		case t.Wanting:
			wanted = append(wanted, t.Infohash)
		default:
			rest = append(rest, t.Infohash)
		}
	}
	mrand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	all := append(wanted, rest...)
	all = all[:min(len(all), maxAnnounced)]
	if len(all) == 0 {
		return true
	}
	sent, err := l.send(a.datagrams(l.source, all))
	a.mu.Lock()
	a.stats.Sent += int64(sent)
	a.mu.Unlock()
	if err != nil {
		a.log.Debug("announcing on the LAN", "interface", l.name, "address", l.source.String(), "error", err)
	}
	return err == nil
}

// datagrams are what is sent from an address.
func (a *Announcer) datagrams(from netip.Addr, infohashes [][20]byte) [][]byte {
	var all [][]byte
	for i := range max(1, len(a.keys)) {
		for some := range slices.Chunk(infohashes, maxListed) {
			d := &datagram{port: a.c.Addr.Port(), cookie: a.cookie}
			for _, h := range some {
				d.list = append(d.list, a.name(i, h))
			}
			if len(a.keys) > 0 {
				a.keys[i].seal(d, from)
			}
			all = append(all, d.encode(group(from)))
		}
	}
	return all
}

// group is where those with addresses like this one meet.
func group(a netip.Addr) netip.AddrPort {
	if a.Is4() {
		return group4
	}
	return group6
}
