package swarm_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"shoal/swarm"
)

// BenchmarkNews measures how long it takes until 99 % of the members of a channel hold
// what one has published, all in one process over loopback with fleet TLS, and what an
// idle member sends and receives. Each knew three others at first.
func BenchmarkNews(b *testing.B) {
	k := newKeys(b)
	for _, size := range []int{25, 50, 100, 200} {
		b.Run(fmt.Sprintf("members=%d", size), func(b *testing.B) {
			members := make([]*follower, 0, size)
			for i := range size {
				var o swarm.FollowOptions
				for range min(i, 3) {
					o.Peers = append(o.Peers, members[rand.IntN(i)].addr())
				}
				members = append(members, follow(b, swarm.Config{Fleet: member(b, k)}, o))
			}
			sequence := uint64(1)
			members[0].publish(sequence)
			for _, m := range members {
				m.wait(b, sequence)
			}
			neighbours := 0
			for deadline := time.Now().Add(patience); neighbours < 10*size && time.Now().Before(deadline); {
				time.Sleep(time.Second)
				neighbours = 0
				for _, m := range members {
					neighbours += len(m.ch.Neighbours())
				}
			}
			const quiet = 30 * time.Second
			before := wire(members)
			time.Sleep(quiet)
			idle := float64(wire(members)-before) / quiet.Seconds() / float64(size)
			var slowest time.Duration
			rounds := 0
			for b.Loop() {
				sequence++
				slowest += publishTo(members, sequence)
				rounds++
			}
			b.ReportMetric(slowest.Seconds()/float64(rounds), "s-to-99%")
			b.ReportMetric(idle, "idle-B/s")
			b.ReportMetric(float64(neighbours)/float64(size), "neighbours")
		})
	}
}

// publishTo publishes and returns how long it took 99 % to take it; it waits for all.
func publishTo(members []*follower, sequence uint64) time.Duration {
	began := time.Now()
	members[len(members)/2].publish(sequence)
	var mu sync.Mutex
	var holds []time.Duration
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			for h := range m.took {
				if h.Order.Sequence >= sequence {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			holds = append(holds, time.Since(began))
		})
	}
	all.Wait()
	return holds[len(holds)*99/100-1]
}

// wire is what all members have sent and received.
func wire(members []*follower) (sum int64) {
	for _, m := range members {
		st := m.node.Stats()
		sum += st.WireDown.Sum() + st.WireUp.Sum()
	}
	return sum
}
