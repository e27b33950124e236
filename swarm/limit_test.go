package swarm

import (
	"testing"
	"testing/synctest"
	"time"
)

// A drinker takes a fixed number of equal amounts.
type drinker struct {
	amount int64
	left   int
	at     []time.Duration // of each, since start
	start  time.Time
}

func (d *drinker) grant() (int64, bool) {
	if d.left == 0 {
		return 0, false
	}
	d.left--
	d.at = append(d.at, time.Since(d.start))
	return d.amount, d.left > 0
}

func newDrinker(amount int64, times int) *drinker {
	return &drinker{amount: amount, left: times, start: time.Now()}
}

func TestBucketRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1000)
		d := newDrinker(500, 21) // the first is on credit
		b.line(d)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(d.at) != 21 {
			t.Fatalf("%d grants in a minute, want all 21", len(d.at))
		}
		if got := d.at[20]; got < 9900*time.Millisecond || got > 10100*time.Millisecond {
			t.Errorf("10000 bytes at 1000 a second took %v", got)
		}
	})
}

func TestBucketUnlimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		d := newDrinker(1<<40, 100)
		b.line(d)
		if len(d.at) != 100 || !b.take(1<<40) || b.limited() {
			t.Error("a bucket without a rate limits")
		}
		b.spend(1 << 40)
		b.wait(nil)
		b.set(1)
		if !b.take(1) {
			t.Error("what was taken without a limit counts against the limit")
		}
	})
}

func TestBucketSharesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1000)
		b.spend(1000)
		greedy, modest := newDrinker(100, 1000), newDrinker(100, 10)
		b.line(greedy)
		b.line(modest)
		time.Sleep(3050 * time.Millisecond)
		synctest.Wait()
		if modest.left != 0 || len(greedy.at) < 10 || len(greedy.at) > 12 {
			t.Errorf("in 2 seconds one got %d and the other %d of 100 bytes, want 10 each", len(greedy.at), len(modest.at))
		}
	})
}

func TestBucketRaisedWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1)
		b.spend(1 << 30) // 34 years
		d := newDrinker(1, 1)
		b.line(d)
		waited := make(chan time.Duration)
		go func() {
			began := time.Now()
			b.wait(nil)
			waited <- time.Since(began)
		}()
		synctest.Wait()
		b.set(0)
		if got := <-waited; got != 0 || d.left != 0 {
			t.Errorf("after the limit went, one waited %v and %d stood in line", got, d.left)
		}
	})
}

func TestBucketLoweredWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1000)
		d := newDrinker(1000, 3)
		b.line(d)
		b.set(100)
		time.Sleep(20500 * time.Millisecond)
		synctest.Wait()
		if len(d.at) != 3 || d.at[2] < 19*time.Second {
			t.Errorf("grants at %v, want 10 seconds between them", d.at)
		}
	})
}

func TestBucketDoesNotHoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1000)
		time.Sleep(time.Hour)
		d := newDrinker(10, 1000)
		b.line(d)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(d.at) * 10; got > 1200 {
			t.Errorf("%d bytes in a second after an idle hour, want about 1000", got)
		}
	})
}

func TestBucketWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1)
		b.spend(1000)
		done := make(chan struct{})
		go func() {
			time.Sleep(time.Second)
			close(done)
		}()
		began := time.Now()
		b.wait(done)
		if got := time.Since(began); got != time.Second {
			t.Errorf("waited %v although done after a second", got)
		}
	})
}

func TestBucketLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		b.set(1000)
		b.spend(1000)
		gone, here := newDrinker(1000, 5), newDrinker(1000, 1)
		b.line(gone)
		b.line(here)
		b.leave(gone)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if len(gone.at) != 0 || len(here.at) != 1 {
			t.Errorf("who left got %d, who stayed %d", len(gone.at), len(here.at))
		}
	})
}
