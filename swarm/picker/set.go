package picker

import (
	"math/bits"
	"time"
)

// A set is a set of pieces.
type set []uint64

func newSet(pieces int) set { return make(set, (pieces+63)/64) }

func (s set) has(piece int) bool { return s[piece/64]&(1<<(piece%64)) != 0 }
func (s set) add(piece int)      { s[piece/64] |= 1 << (piece % 64) }
func (s set) remove(piece int)   { s[piece/64] &^= 1 << (piece % 64) }

func (s set) size() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// meets reports whether the two have a piece in common.
func (s set) meets(o set) bool {
	for w := range s {
		if s[w]&o[w] != 0 {
			return true
		}
	}
	return false
}

// rateSpan is how far back is "lately".
const rateSpan = 250 * time.Millisecond

// A rate is how many bytes came lately.
type rate struct {
	since time.Time
	n     int64   // since then
	last  float64 // per second, in the time before
}

func (r *rate) add(n int64, now time.Time) {
	r.roll(now)
	r.n += n
}

// lately is bytes per second.
func (r *rate) lately(now time.Time) float64 {
	r.roll(now)
	return max(r.last, float64(r.n)/rateSpan.Seconds())
}

func (r *rate) roll(now time.Time) {
	if over := now.Sub(r.since); over >= rateSpan {
		r.last = float64(r.n) / over.Seconds()
		r.n, r.since = 0, now
	}
}
