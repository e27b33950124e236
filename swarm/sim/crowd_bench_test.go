package sim_test

import (
	"flag"
	"testing"
	"time"

	"shoal/swarm/sim"
	"shoal/swarm/socket"
)

var (
	agents = flag.Int("agents", 16, "in the crowd of BenchmarkCrowd")
	rate   = flag.Float64("rate", 25, "of each link and direction, in Mbit/s")
	size   = flag.Int64("size", 32, "of the file, in MiB")
	piece  = flag.Int64("piece", 32, "in KiB")
	block  = flag.Int64("block", 16, "that one request asks for, in KiB")
	unsent = flag.Int64("unsent", socket.MaxUnsent>>10, "that may wait in the kernel, in KiB")
	delay  = flag.Duration("delay", 50*time.Microsecond, "of a packet, one way")
)

// BenchmarkCrowd tells what the rules come to in one kind of crowd: to see in seconds whether
// a change of a rule, or of a size, is worth measuring.
func BenchmarkCrowd(b *testing.B) {
	var ratio, copies float64
	for n := range b.N {
		got := sim.Crowd{
			Agents: *agents, Rate: *rate * 1e6, Delay: *delay, Size: *size << 20,
			PieceLength: *piece << 10, Block: *block << 10, Unsent: *unsent << 10, Seed: uint64(n),
		}.Run()
		ratio += got.Ratio() / float64(b.N)
		copies += got.Copies / float64(b.N)
	}
	b.ReportMetric(ratio, "T/bound")
	b.ReportMetric(copies, "copies")
}
