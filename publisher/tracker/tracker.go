// Package tracker tells peers of a publisher's torrents where other peers are.
//
// It is a plain BitTorrent tracker over HTTP: announce (BEP 3, with compact
// replies as in BEP 23 and IPv6 as in BEP 7) and scrape (BEP 48). It answers for
// the torrents it was given with [Tracker.Set] and no others, and it believes only
// what it sees: a peer's address is the one its request came from, whatever the
// request says, so nobody can point a fleet at somebody else's machine. Memory is
// bounded in all and per address; there is nothing to clean up and no goroutine.
package tracker

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultInterval      = 2 * time.Minute
	maxInterval          = 30 * time.Minute
	defaultRate          = 170     // announces per second
	defaultMaxPeers      = 250_000 // about 100 bytes each
	defaultMaxPerAddress = 256
)

// Config holds a tracker's limits. The zero value serves a fleet of 100,000
// machines on one core.
type Config struct {
	// Interval is the least time peers are asked to leave between announces; zero
	// means 2 minutes. It is stretched, to at most 30 minutes, as peers become many:
	// see Rate.
	Interval time.Duration
	// Rate is how many announces per second the tracker aims to meet in all; zero
	// means 170, which asks 100,000 peers to come every ten minutes.
	Rate int
	// MaxPeers bounds the peers remembered over all torrents; zero means 250,000.
	// Who comes when it is reached is told of peers but is not told to others.
	MaxPeers int
	// MaxPerAddress bounds the peers of one torrent at one IPv4 address or IPv6 /64;
	// zero means 256. Loopback is exempt.
	MaxPerAddress int
	// Origin returns where the publisher's own seed listens, as seen by a peer that
	// reached the tracker at the address local. It is asked for each announce and must
	// be quick. If nil, there is no such seed.
	Origin func(local netip.Addr) []netip.AddrPort
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
}

// Torrent is one torrent a tracker answers for.
type Torrent struct {
	Infohash [20]byte
	// Origin says that the publisher's own seed serves it, so that peers are sent there.
	Origin bool
}

// Stats is a tracker's state at one moment.
type Stats struct {
	Torrents  int    // torrents answered for
	Peers     int    // peers remembered over all torrents
	Announces uint64 // announces answered since the start, failures included
	Refused   uint64 // announces answered with a failure reason
	Untold    uint64 // announces of peers that were over a limit and are not told to others
}

// Tracker answers announces and scrapes. All methods may be called concurrently.
type Tracker struct {
	cfg   Config
	start time.Time
	peers atomic.Int64 // over all torrents

	announces, refused, untold atomic.Uint64

	mu       sync.RWMutex
	torrents map[[20]byte]*table // guarded by mu; each table has its own lock
}

// New returns a tracker that answers for no torrent yet.
func New(cfg Config) *Tracker {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Rate <= 0 {
		cfg.Rate = defaultRate
	}
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = defaultMaxPeers
	}
	if cfg.MaxPerAddress <= 0 {
		cfg.MaxPerAddress = defaultMaxPerAddress
	}
	if cfg.Origin == nil {
		cfg.Origin = func(netip.Addr) []netip.AddrPort { return nil }
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Tracker{cfg: cfg, start: cfg.Clock(), torrents: map[[20]byte]*table{}}
}

// Set makes the tracker answer for exactly these torrents. Peers of torrents that
// stay are kept; those of torrents that go are forgotten.
func (t *Tracker) Set(torrents []Torrent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[[20]byte]*table, len(torrents))
	for _, want := range torrents {
		tb := t.torrents[want.Infohash]
		if tb == nil {
			tb = newTable(t.cfg.MaxPerAddress)
		}
		tb.origin.Store(want.Origin)
		next[want.Infohash] = tb
	}
	for hash, tb := range t.torrents {
		if next[hash] == nil {
			t.peers.Add(-int64(tb.close()))
		}
	}
	t.torrents = next
}

// Stats returns what the tracker holds and has done.
func (t *Tracker) Stats() Stats {
	t.mu.RLock()
	n := len(t.torrents)
	t.mu.RUnlock()
	return Stats{
		Torrents:  n,
		Peers:     int(t.peers.Load()),
		Announces: t.announces.Load(),
		Refused:   t.refused.Load(),
		Untold:    t.untold.Load(),
	}
}

func (t *Tracker) table(infohash [20]byte) *table {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.torrents[infohash]
}

// seconds is the tracker's clock, counted from its start so that four bytes a peer
// are enough. It starts at 1: a table reads 0 as never.
func (t *Tracker) seconds() uint32 {
	return uint32(max(t.cfg.Clock().Sub(t.start), 0)/time.Second) + 1
}

// interval is how long a peer is asked to wait: long enough that all peers together
// come no more often than Config.Rate.
func (t *Tracker) interval() time.Duration {
	stretched := time.Duration(t.peers.Load()) * time.Second / time.Duration(t.cfg.Rate)
	return min(max(t.cfg.Interval, stretched), max(maxInterval, t.cfg.Interval))
}
