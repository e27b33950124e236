package tracker

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ServeAnnounce answers GET /announce. A failure is told as BEP 3 wants it: status
// 200 and a "failure reason" in the body.
func (t *Tracker) ServeAnnounce(w http.ResponseWriter, r *http.Request) {
	if !readOnly(w, r) {
		return
	}
	t.announces.Add(1)
	a, err := parseAnnounce(r.URL.RawQuery)
	if err != nil {
		t.fail(w, err.Error())
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		t.fail(w, "the tracker cannot tell your address")
		return
	}
	tb := t.table(a.infohash)
	if tb == nil {
		t.fail(w, "this tracker serves its publisher's releases only")
		return
	}

	remote := from.Addr().Unmap().WithZone("")
	now, every := t.seconds(), t.interval()
	self := endpointOf(netip.AddrPortFrom(remote, a.port))
	switch {
	case a.stopped:
		t.peers.Add(int64(tb.drop(self, a.key)))
	case a.port == 0 || remote.IsLinkLocalUnicast():
		// It cannot be dialled: not at all, or only by who knows on which link.
	default:
		held, grown := tb.put(peer{
			endpoint: self, id: a.id, key: a.key, seed: a.seed,
			expires: now + uint32(2*every/time.Second) + 60, // two announces may be late or lost
		}, now, t.peers.Load() < int64(t.cfg.MaxPeers))
		t.peers.Add(int64(grown))
		if !held {
			t.untold.Add(1)
		}
	}

	b := buffers.Get().(*answer)
	defer buffers.Put(b)
	b.peers = b.peers[:0]
	if tb.origin.Load() && a.want > 0 && !a.seed {
		for _, o := range t.cfg.Origin(local(r)) {
			if e := endpointOf(o); e != self {
				b.peers = append(b.peers, peer{endpoint: e, seed: true})
			}
		}
	}
	b.peers = tb.sample(b.peers, want{n: a.want, self: self, seed: a.seed, loopback: remote.IsLoopback(), now: now})
	seeds, others := tb.counts()
	if tb.origin.Load() {
		seeds++
	}
	b.announce(a, seeds, others, every)
	b.write(w)
}

// ServeScrape answers GET /scrape.
func (t *Tracker) ServeScrape(w http.ResponseWriter, r *http.Request) {
	if !readOnly(w, r) {
		return
	}
	hashes, err := parseScrape(r.URL.RawQuery)
	if err != nil {
		t.fail(w, err.Error())
		return
	}
	t.mu.RLock()
	if len(hashes) == 0 {
		for h := range t.torrents {
			hashes = append(hashes, h)
		}
	}
	tables := make(map[[20]byte]*table, len(hashes))
	for _, h := range hashes {
		if tb := t.torrents[h]; tb != nil {
			tables[h] = tb
		}
	}
	t.mu.RUnlock()

	// Bencode wants dictionary keys in order, and each once.
	slices.SortFunc(hashes, func(a, b [20]byte) int { return bytes.Compare(a[:], b[:]) })
	b := buffers.Get().(*answer)
	defer buffers.Put(b)
	b.out = append(b.out[:0], "d5:filesd"...)
	for _, h := range slices.Compact(hashes) {
		tb := tables[h]
		if tb == nil {
			continue
		}
		seeds, others := tb.counts()
		if tb.origin.Load() {
			seeds++
		}
		b.string(string(h[:]))
		b.out = append(b.out, 'd')
		b.string("complete")
		b.int(seeds)
		b.string("downloaded")
		b.int(0) // not counted: anyone can claim it
		b.string("incomplete")
		b.int(others)
		b.out = append(b.out, 'e')
	}
	b.out = append(b.out, "ee"...)
	b.write(w)
}

func (t *Tracker) fail(w http.ResponseWriter, reason string) {
	t.refused.Add(1)
	b := buffers.Get().(*answer)
	defer buffers.Put(b)
	b.out = append(b.out[:0], 'd')
	b.string("failure reason")
	b.string(reason)
	b.out = append(b.out, 'e')
	b.write(w)
}

func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "a tracker is only ever asked with GET", http.StatusMethodNotAllowed)
	return false
}

// local is the address at which the request reached us.
func local(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

var buffers = sync.Pool{New: func() any { return &answer{} }}

// answer is a bencoded reply in the making, reused between requests.
type answer struct {
	peers []peer
	out   []byte
}

func (b *answer) announce(a announce, seeds, others int, every time.Duration) {
	interval := int(every / time.Second)
	b.out = append(b.out[:0], 'd')
	b.string("complete")
	b.int(seeds)
	b.string("incomplete")
	b.int(others)
	b.string("interval")
	b.int(interval + rand.IntN(interval/10+1)) // a fleet that started as one does not stay in step
	b.string("min interval")
	b.int(min(60, interval))
	if a.compact {
		b.compact()
	} else {
		b.list(!a.noID)
	}
	b.out = append(b.out, 'e')
}

// compact writes peers as BEP 23 and BEP 7 want them: 6 or 18 bytes each.
func (b *answer) compact() {
	v4, v6 := 0, 0
	for i := range b.peers {
		if b.peers[i].addr().Is4() {
			v4++
		} else {
			v6++
		}
	}
	b.string("peers")
	b.length(6 * v4)
	for i := range b.peers {
		if p := &b.peers[i]; p.addr().Is4() {
			b.out = append(append(b.out, p.ip[12:]...), byte(p.port>>8), byte(p.port))
		}
	}
	if v6 == 0 {
		return
	}
	b.string("peers6")
	b.length(18 * v6)
	for i := range b.peers {
		if p := &b.peers[i]; !p.addr().Is4() {
			b.out = append(append(b.out, p.ip[:]...), byte(p.port>>8), byte(p.port))
		}
	}
}

// list writes peers as BEP 3 does. The origin's peer id is not known here and is
// left out, as for a client that wants none.
func (b *answer) list(ids bool) {
	b.string("peers")
	b.out = append(b.out, 'l')
	for i := range b.peers {
		p := &b.peers[i]
		b.out = append(b.out, 'd')
		b.string("ip")
		b.string(p.addr().String())
		if ids && p.id != [20]byte{} {
			b.string("peer id")
			b.string(string(p.id[:]))
		}
		b.string("port")
		b.int(int(p.port))
		b.out = append(b.out, 'e')
	}
	b.out = append(b.out, 'e')
}

func (b *answer) length(n int) {
	b.out = append(strconv.AppendInt(b.out, int64(n), 10), ':')
}

func (b *answer) string(s string) {
	b.length(len(s))
	b.out = append(b.out, s...)
}

func (b *answer) int(n int) {
	b.out = append(b.out, 'i')
	b.out = append(strconv.AppendInt(b.out, int64(n), 10), 'e')
}

func (b *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(b.out)))
	w.Write(b.out) // who went away has nobody to tell
}
