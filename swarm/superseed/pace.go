package superseed

import "time"

// How far back is "lately".
const (
	paceSpan  = 500 * time.Millisecond
	briefSpan = 5 * time.Second
)

// A pace is how often something happened lately.
type pace struct {
	since time.Time
	n     int     // since then
	last  float64 // per second, in the time before
}

func (p *pace) add(now time.Time) {
	p.roll(now)
	p.n++
}

// rate is per second.
func (p *pace) rate(now time.Time) float64 {
	p.roll(now)
	return max(p.last, float64(p.n)/paceSpan.Seconds())
}

func (p *pace) roll(now time.Time) {
	if over := now.Sub(p.since); over >= paceSpan {
		p.last = float64(p.n) / over.Seconds()
		p.n, p.since = 0, now
	}
}

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
