package tracker

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"testing"
)

// One torrent with 100,000 peers, each announcing again: what a fleet of that size
// costs the tracker. bytes/peer is the memory the table holds.
func BenchmarkAnnounce100k(b *testing.B) {
	const peers = 100_000
	tr := New(Config{})
	tr.Set([]Torrent{{Infohash: registered, Origin: true}})
	requests := make([]*http.Request, peers)
	for i := range requests {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7801)
		left := "1000"
		if i%2 == 0 {
			left = "0"
		}
		requests[i] = httptest.NewRequest(http.MethodGet, "/announce?"+query(registered, 7801, "left", left, "key", fmt.Sprint(i)), nil)
		requests[i].RemoteAddr = a.String()
	}
	before := heap()
	w := &sink{header: http.Header{}}
	for _, r := range requests {
		tr.ServeAnnounce(w, r)
	}
	held := float64(heap()-before) / peers
	if s := tr.Stats(); s.Peers != peers || s.Refused != 0 {
		b.Fatalf("%+v", s)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tr.ServeAnnounce(w, requests[i%peers])
		i++
	}
	b.ReportMetric(held, "bytes/peer")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "announces/s")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}
