package swarm_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// BenchmarkFlashCrowd measures how a file of 16 MiB gets from a publisher who sends
// 4 MiB/s to six agents that all want it at once, over loopback. It reports how many
// copies the publisher sent, and the time until the last agent had the file in units of
// the time the publisher needs for one copy, which nothing can beat.
//
//	go test -run - -bench FlashCrowd -benchtime 3x ./swarm
func BenchmarkFlashCrowd(b *testing.B) {
	b.Run("super-seeding", func(b *testing.B) { benchmarkFlashCrowd(b, true) })
	b.Run("plain", func(b *testing.B) { benchmarkFlashCrowd(b, false) })
}

func benchmarkFlashCrowd(b *testing.B, super bool) {
	const agents, size, rate = 6, 16 << 20, 4 << 20
	bound := (time.Duration(size) * time.Second / rate).Seconds()
	var copies, last float64
	for b.Loop() {
		c := newContent(b, size)
		tracker := swarmtest.NewTracker(b)
		pub := newSeed(b, c, swarm.Config{SuperSeed: super, Limits: swarm.Limits{LANUp: rate}}, tracker.URL)
		var wg sync.WaitGroup
		began := time.Now()
		var nodes []*swarm.Node
		for range agents {
			nodes = append(nodes, newNode(b, swarm.Config{}))
		}
		for _, n := range nodes {
			dst := filepath.Join(b.TempDir(), "got")
			wg.Go(func() {
				o := swarm.FetchOptions{Trackers: []string{tracker.URL}, Peers: []string{pub.Addr().String()}}
				if _, err := n.Fetch(withPatience(b), c.info, dst, o); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		last += time.Since(began).Seconds() / bound
		copies += float64(pub.Stats().Given.Sum()) / size
		for _, n := range append(nodes, pub) {
			n.Close()
		}
	}
	b.ReportMetric(copies/float64(b.N), "copies")
	b.ReportMetric(last/float64(b.N), "T/bound")
}
