package superseed

import (
	"slices"
	"testing"
	"time"
)

// Pieces are offered from the first to the last. Who has got one that nobody was given by
// this super seed has another to get it from, and two that go from first to last give the
// same: then, and only then, the order is drawn.
func TestOrder(t *testing.T) {
	const pieces, length = 256, 4
	now := time.Unix(1e9, 0)
	for _, row := range []struct {
		name  string
		other func(s *Seed, a, b *Peer, given int)
		mixed bool
	}{
		{"alone", func(*Seed, *Peer, *Peer, int) {}, false},
		{"passed-on", func(s *Seed, _, b *Peer, given int) { s.Announced(b, given, now) }, false},
		{"another-of-the-same-pace", func(s *Seed, a, b *Peer, _ int) {
			s.Announced(b, a.open[0].piece, now) // a is about to get it here
		}, true},
		{"another", func(s *Seed, _, b *Peer, _ int) { s.Announced(b, pieces-1, now) }, true},
		{"somebody-who-had-some", func(s *Seed, _, _ *Peer, _ int) {
			s.Brought(s.Join(now), func(piece int) bool { return piece > 200 }, now)
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := New(pieces, func(int) int64 { return length })
			a, b := s.Join(now), s.Join(now)
			s.Begin(a, now)
			first := a.Take()
			if !slices.IsSorted(first) || len(first) == 0 || first[0] != 0 {
				t.Fatalf("offered at first: %v", first)
			}
			s.Asked(a, Block{0, 0})
			s.Answered(a, Block{0, 0}, length, now)
			s.Announced(a, 0, now)
			row.other(s, a, b, 0)
			if mixed := !slices.IsSorted(s.order); mixed != row.mixed {
				t.Errorf("drawn at random: %v, want %v", mixed, row.mixed)
			}
			again := slices.Clone(s.order)
			s.Announced(b, pieces-2, now)
			if row.mixed && !slices.Equal(again, s.order) {
				t.Error("drawn twice")
			}
			slices.Sort(again)
			for i, piece := range again {
				if i != piece {
					t.Fatalf("piece %d is missing from the order", i)
				}
			}
		})
	}
}
