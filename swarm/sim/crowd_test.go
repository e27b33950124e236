//go:build !race

// Each crowd is one goroutine: there is nothing for the race detector to see.

package sim_test

import (
	"testing"
	"time"

	"shoal/swarm/sim"
	"shoal/swarm/socket"
)

// mean plays a crowd a few times.
func mean(c sim.Crowd) (ratio, copies float64) {
	const times = 2
	for seed := range uint64(times) {
		c.Seed = seed
		got := c.Run()
		ratio += got.Ratio() / times
		copies += got.Copies / times
	}
	return ratio, copies
}

// Crowds take little longer than no way of sending can beat, and little more than one copy.
func TestNearTheBound(t *testing.T) {
	for _, test := range []struct {
		name          string
		crowd         sim.Crowd
		ratio, copies float64
	}{
		{"16", sim.Crowd{Agents: 16, Rate: 25e6, Size: 32 << 20, PieceLength: 32 << 10, Block: 16 << 10}, 1.12, 1.09},
		{"32-at-10-Mbit", sim.Crowd{Agents: 32, Rate: 10e6, Size: 32 << 20, PieceLength: 32 << 10, Block: 16 << 10}, 1.16, 1.11},
		{"a-round-trip-of-50-ms", sim.Crowd{Agents: 16, Rate: 10e6, Delay: 25 * time.Millisecond, Size: 16 << 20, PieceLength: 32 << 10, Block: 16 << 10}, 1.18, 1.11},
		{"larger-pieces", sim.Crowd{Agents: 8, Rate: 25e6, Size: 64 << 20, PieceLength: 64 << 10, Block: 32 << 10}, 1.07, 1.07},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.crowd.Unsent = socket.MaxUnsent
			ratio, copies := mean(test.crowd)
			t.Logf("%.3f times the bound, %.3f copies", ratio, copies)
			if ratio > test.ratio || copies > test.copies {
				t.Errorf("%.3f times the bound and %.3f copies, want %.2f and %.2f at most", ratio, copies, test.ratio, test.copies)
			}
		})
	}
}
