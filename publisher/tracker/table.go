package tracker

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// swept is how many entries each announce looks at for having expired, so that a
// table cleans itself at the pace at which it is used.
const swept = 4

// endpoint is where a peer listens. It holds no pointer: a table of 100,000 peers
// costs the garbage collector nothing to scan.
type endpoint struct {
	ip   [16]byte // IPv4 as ::ffff:a.b.c.d
	port uint16
}

func endpointOf(a netip.AddrPort) endpoint {
	return endpoint{ip: a.Addr().As16(), port: a.Port()}
}

func (e endpoint) addr() netip.Addr { return netip.AddrFrom16(e.ip).Unmap() }

func (e endpoint) loopback() bool { return e.addr().IsLoopback() }

// network is what the limit per address counts by: who has one IPv6 address has
// the 2^64 of its network.
func (e endpoint) network() [16]byte {
	n := e.ip
	if !e.addr().Is4() {
		clear(n[8:])
	}
	return n
}

// peer is one peer of one torrent, told apart by where it listens: its peer id is
// known to every other peer and proves nothing.
type peer struct {
	endpoint
	id      [20]byte
	key     uint32 // hash of its BEP 3 "key", 0 if it gave none
	expires uint32 // in the tracker's seconds
	seed    bool
}

// table is the peers of one torrent.
type table struct {
	maxPerNetwork int
	origin        atomic.Bool // the publisher's own seed serves this torrent

	mu       sync.Mutex // guards everything below
	gone     bool       // no longer answered for; nothing is added any more
	peers    []peer
	index    map[endpoint]int32 // into peers
	networks map[[16]byte]int32 // peers at one address; loopback is not counted
	seeds    int
	hand     int // where the next sweep goes on
}

func newTable(maxPerNetwork int) *table {
	return &table{maxPerNetwork: maxPerNetwork, index: map[endpoint]int32{}, networks: map[[16]byte]int32{}}
}

// put adds or renews p. It reports whether p is in the table now and by how much
// the table grew: an expired peer may have made room. room is false when no peer
// may be added in all.
func (tb *table) put(p peer, now uint32, room bool) (held bool, grown int) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.gone {
		return false, 0
	}
	before := len(tb.peers)
	tb.sweep(now)
	if i, ok := tb.index[p.endpoint]; ok {
		tb.count(tb.peers[i].seed, -1)
		tb.count(p.seed, 1)
		tb.peers[i] = p
		return true, len(tb.peers) - before
	}
	if !room {
		return false, len(tb.peers) - before
	}
	if !p.loopback() {
		n := p.network()
		if int(tb.networks[n]) >= tb.maxPerNetwork {
			return false, len(tb.peers) - before
		}
		tb.networks[n]++
	}
	tb.index[p.endpoint] = int32(len(tb.peers))
	tb.peers = append(tb.peers, p)
	tb.count(p.seed, 1)
	return true, len(tb.peers) - before
}

// drop removes the peer at e, which has said goodbye with this key. Another key is
// another peer behind the same address and takes nobody with it.
func (tb *table) drop(e endpoint, key uint32) (grown int) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	i, ok := tb.index[e]
	if !ok || tb.peers[i].key != key {
		return 0
	}
	tb.remove(int(i))
	return -1
}

// close forgets every peer, takes no more, and returns how many there were.
func (tb *table) close() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	n := len(tb.peers)
	tb.gone = true
	tb.peers, tb.index, tb.networks, tb.seeds = nil, nil, nil, 0
	return n
}

// counts returns how many seeds and other peers there are.
func (tb *table) counts() (seeds, others int) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.seeds, len(tb.peers) - tb.seeds
}

// want is what one peer may be told.
type want struct {
	n        int
	self     endpoint
	seed     bool   // it has everything and needs no seeds
	loopback bool   // it came over loopback, so loopback peers are of use to it
	now      uint32 // expired peers are not told
}

func (w want) likes(p *peer) bool {
	return p.endpoint != w.self && p.expires > w.now && !(w.seed && p.seed) && (w.loopback || !p.loopback())
}

// sample appends up to w.n peers to dst. When there are more it takes one at random
// from each of as many equal strata: no peer twice, all with the same chance, in
// time that depends on w.n alone, and early and late comers in every answer.
func (tb *table) sample(dst []peer, w want) []peer {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	total := len(tb.peers)
	if total == 0 || w.n <= 0 {
		return dst
	}
	strata := min(w.n+w.n/4+1, total) // a few more, for those it does not like
	end := len(dst) + w.n
	for i, first := 0, rand.IntN(strata); i < strata && len(dst) < end; i++ {
		s := (first + i) % strata
		lo, hi := s*total/strata, (s+1)*total/strata
		if p := &tb.peers[lo+rand.IntN(hi-lo)]; w.likes(p) {
			dst = append(dst, *p)
		}
	}
	return dst
}

// sweep looks at the next few peers and removes those that have expired.
func (tb *table) sweep(now uint32) {
	for range swept {
		if len(tb.peers) == 0 {
			return
		}
		if tb.hand >= len(tb.peers) {
			tb.hand = 0
		}
		if tb.peers[tb.hand].expires > now {
			tb.hand++
			continue
		}
		tb.remove(tb.hand) // another peer is there now; look at it next
	}
}

func (tb *table) remove(i int) {
	gone := tb.peers[i]
	delete(tb.index, gone.endpoint)
	if !gone.loopback() {
		n := gone.network()
		if tb.networks[n]--; tb.networks[n] <= 0 {
			delete(tb.networks, n)
		}
	}
	tb.count(gone.seed, -1)
	last := len(tb.peers) - 1
	if i != last {
		tb.peers[i] = tb.peers[last]
		tb.index[tb.peers[i].endpoint] = int32(i)
	}
	tb.peers = tb.peers[:last]
}

func (tb *table) count(seed bool, by int) {
	if seed {
		tb.seeds += by
	}
}
