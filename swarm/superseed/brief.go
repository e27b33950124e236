package superseed

import "time"

// How far back is "lately".
const (
	paceSpan  = 500 * time.Millisecond
	briefSpan = 5 * time.Second
)

// A brief is the least of the durations of late: of a span of [briefSpan] and the one
// before.
type brief struct {
	since     time.Time
	now, last time.Duration // 0 if there were none
}

func (b *brief) add(d time.Duration, now time.Time) {
	if now.Sub(b.since) >= briefSpan {
		b.last, b.now, b.since = b.now, 0, now
	}
	if b.now == 0 || d < b.now {
		b.now = max(d, 1)
	}
}

// least is 0 if there is none.
func (b *brief) least() time.Duration {
	if b.now == 0 || b.last > 0 && b.last < b.now {
		return b.last
	}
	return b.now
}
