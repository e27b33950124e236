// Package pace measures how much of something happens lately, and how long it takes. Like
// the rules that go by it, it has no clock: times are told, and must not go back.
package pace

import "time"

// A Pace is how much happened in the span that is under way, and in the one before; [New]
// makes one. It must not be used by two goroutines at a time.
type Pace struct {
	span  time.Duration
	since time.Time
	n     int64   // since then
	last  float64 // per second, in the time before
}

// New returns a pace that goes back as far as span, and knows of nothing before now.
func New(span time.Duration, now time.Time) Pace { return Pace{span: span, since: now} }

// Add notes that n more happened.
func (p *Pace) Add(n int64, now time.Time) {
	p.roll(now)
	p.n += n
}

// Rate is how much happens in a second: the more of the two spans.
func (p *Pace) Rate(now time.Time) float64 {
	p.roll(now)
	return max(p.last, float64(p.n)/p.span.Seconds())
}

func (p *Pace) roll(now time.Time) {
	if over := now.Sub(p.since); over >= p.span {
		p.last = float64(p.n) / over.Seconds()
		p.n, p.since = 0, now
	}
}

// Smooth is a mean of durations after one more, which counts for one part in parts of it.
// A mean of zero is that of none.
func Smooth(mean, next time.Duration, parts int) time.Duration {
	if mean == 0 {
		return next
	}
	return mean + (next-mean)/time.Duration(parts)
}
