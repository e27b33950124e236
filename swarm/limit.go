package swarm

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are the most payload bytes per second the node sends (up) and receives (down).
// Zero is no limit. Up and Down are shared by everyone who is not on the LAN, the origin
// included.
type Limits struct{ Up, Down, LANUp, LANDown int64 }

func (l Limits) validate() error {
	if l.Up < 0 || l.Down < 0 || l.LANUp < 0 || l.LANDown < 0 {
		return fmt.Errorf("limits %+v: a limit cannot be negative", l)
	}
	return nil
}

// limiter holds the buckets of all classes.
type limiter struct{ up, down, lanUp, lanDown bucket }

func (l *limiter) set(v Limits) {
	l.up.set(v.Up)
	l.down.set(v.Down)
	l.lanUp.set(v.LANUp)
	l.lanDown.set(v.LANDown)
}

func (l *limiter) of(c Class) (up, down *bucket) {
	if c == ClassLAN {
		return &l.lanUp, &l.lanDown
	}
	return &l.up, &l.down
}

// A bucket is a token bucket in bytes, unlimited as long as nothing is set. Taking is
// allowed as long as the balance is not negative and may make it so, so that no amount is
// too large to be taken. It holds no more than burst worth of unused time.
type bucket struct {
	limit   atomic.Bool // there is a rate
	mu      sync.Mutex  // guards what follows; a taker's own lock is taken inside it
	rate    float64     // bytes per second; 0 is unlimited
	balance float64
	at      time.Time     // when balance was right
	queue   []taker       // those that want some, first come first; each stands in it once
	timer   *time.Timer   // runs serve, once the balance is no longer negative
	changed chan struct{} // closed when the rate changes; nil when nobody waits for that
}

const burst = 100 * time.Millisecond

// A taker stands in the queue of a bucket.
type taker interface {
	// grant lets the taker have what it wants next. It returns how many bytes that was,
	// zero if it no longer wants any, and whether it wants more. It must not block, nor
	// call the bucket.
	grant() (n int64, more bool)
}

// set changes the rate, for those that wait already too.
func (b *bucket) set(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	b.rate = float64(rate)
	b.limit.Store(rate > 0)
	b.balance = min(b.balance, b.rate*burst.Seconds())
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	b.serve()
}

// limited reports whether there is a limit now.
func (b *bucket) limited() bool { return b.limit.Load() }

// take takes n bytes if that is possible at once and nobody stands in line.
func (b *bucket) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return true
	}
	if b.refill(); b.balance < 0 || len(b.queue) > 0 {
		return false
	}
	b.balance -= float64(n)
	return true
}

// line puts t into the queue, where it must not be already.
func (b *bucket) line(t taker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, t)
	b.serve()
}

// spend takes n bytes, whatever the balance. Who spends waits before the next time.
func (b *bucket) spend(n int64) {
	if !b.limited() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate > 0 {
		b.refill()
		b.balance -= float64(n)
	}
}

// wait blocks until the balance is not negative, or done is closed.
func (b *bucket) wait(done <-chan struct{}) {
	for b.limited() {
		b.mu.Lock()
		b.refill()
		if b.rate == 0 || b.balance >= 0 {
			b.mu.Unlock()
			return
		}
		timer := time.NewTimer(b.untilZero())
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-timer.C:
		case <-changed:
		case <-done:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// serve grants as much as the balance allows, one grant for each in turn. Called with
// b.mu held.
func (b *bucket) serve() {
	b.refill()
	for len(b.queue) > 0 && (b.rate == 0 || b.balance >= 0) {
		t := b.queue[0]
		b.queue = b.queue[1:]
		n, more := t.grant()
		b.balance -= float64(n)
		if more {
			b.queue = append(b.queue, t)
		}
	}
	if len(b.queue) == 0 {
		b.queue = nil
		if b.timer != nil {
			b.timer.Stop()
		}
		return
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(b.untilZero(), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.serve()
		})
		return
	}
	b.timer.Reset(b.untilZero())
}

// refill brings the balance up to now. Called with b.mu held.
func (b *bucket) refill() {
	now := time.Now()
	if b.rate == 0 {
		b.balance = 0
	} else if !b.at.IsZero() {
		b.balance = min(b.balance+now.Sub(b.at).Seconds()*b.rate, b.rate*burst.Seconds())
	}
	b.at = now
}

// untilZero is how long the balance stays negative. Called with b.mu held.
func (b *bucket) untilZero() time.Duration {
	return max(time.Millisecond, time.Duration(-b.balance/b.rate*float64(time.Second)))
}

// leave takes t out of the queue, if it stands there.
func (b *bucket) leave(t taker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = slices.DeleteFunc(b.queue, func(q taker) bool { return q == t })
	b.serve()
}
