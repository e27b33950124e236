// Package swarmtest has what tests of swarms need beside real nodes.
package swarmtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// Tracker is a BitTorrent tracker (BEP 3, compact as in BEP 23, IPv4 only) for one test.
// It registers whatever is announced to it and returns everyone else.
type Tracker struct {
	URL string // of its announce

	srv   *httptest.Server
	mu    sync.Mutex // guards what follows
	peers map[string]map[string]netip.AddrPort
	seen  []string
	news  chan struct{} // closed with the next announce
}

// NewTracker starts a tracker on a loopback address. It ends with the test.
func NewTracker(t testing.TB) *Tracker {
	tr := &Tracker{peers: make(map[string]map[string]netip.AddrPort), news: make(chan struct{})}
	tr.srv = httptest.NewServer(tr)
	t.Cleanup(tr.Close)
	tr.URL = tr.srv.URL + "/announce"
	return tr
}

// Close ends the tracker before the end of the test.
func (t *Tracker) Close() { t.srv.Close() }

// ServeHTTP implements http.Handler.
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	port, err2 := strconv.ParseUint(q.Get("port"), 10, 16)
	infohash, id := q.Get("info_hash"), q.Get("peer_id")
	if err != nil || err2 != nil || len(infohash) != 20 || len(id) != 20 {
		fmt.Fprint(w, "d14:failure reason11:bad requeste")
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = append(t.seen, q.Get("event"))
	close(t.news)
	t.news = make(chan struct{})
	swarm := t.peers[infohash]
	if swarm == nil {
		swarm = make(map[string]netip.AddrPort)
		t.peers[infohash] = swarm
	}
	if q.Get("event") == "stopped" {
		delete(swarm, id)
	} else {
		swarm[id] = netip.AddrPortFrom(from.Addr().Unmap(), uint16(port))
	}
	var compact []byte
	for other, a := range swarm {
		if other != id && a.Addr().Is4() {
			ip := a.Addr().As4()
			compact = binary.BigEndian.AppendUint16(append(compact, ip[:]...), a.Port())
		}
	}
	fmt.Fprintf(w, "d8:intervali60e5:peers%d:%se", len(compact), compact)
}

// Tell has the tracker name a peer in every reply about a torrent.
func (t *Tracker) Tell(infohash [20]byte, peer netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	swarm := t.peers[string(infohash[:])]
	if swarm == nil {
		swarm = make(map[string]netip.AddrPort)
		t.peers[string(infohash[:])] = swarm
	}
	swarm["told "+peer.String()] = peer
}

// Events returns the event of every announce so far; a regular announce has "".
func (t *Tracker) Events() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.seen...)
}

// Wait returns when an announce with this event has come. If ctx ends first, the test
// fails.
func (t *Tracker) Wait(ctx context.Context, tb testing.TB, event string) {
	tb.Helper()
	for {
		t.mu.Lock()
		seen, news := slices.Contains(t.seen, event), t.news
		t.mu.Unlock()
		if seen {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			tb.Fatalf("no announce %q came to the tracker", event)
		}
	}
}
