package pace

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	p := New(time.Second, start)
	for _, row := range []struct {
		name string
		at   time.Duration
		add  int64
		want float64
	}{
		{"nothing", 0, 0, 0},
		{"at-once", 0, 10, 10},
		{"the-span-is-over", time.Second, 0, 10},
		{"less-than-before", 1500 * time.Millisecond, 4, 10},
		{"more-than-before", 1600 * time.Millisecond, 16, 20},
		{"after-a-long-time", 6 * time.Second, 0, 4},
		{"forgotten", 7 * time.Second, 0, 0},
	} {
		now := start.Add(row.at)
		p.Add(row.add, now)
		if got := p.Rate(now); got != row.want {
			t.Errorf("%s: %v a second, want %v", row.name, got, row.want)
		}
	}
}

func TestSmooth(t *testing.T) {
	for _, row := range []struct{ mean, next, want time.Duration }{
		{0, 8 * time.Second, 8 * time.Second}, // the first
		{8 * time.Second, 16 * time.Second, 9 * time.Second},
		{8 * time.Second, 0, 7 * time.Second},
	} {
		if got := Smooth(row.mean, row.next, 8); got != row.want {
			t.Errorf("%s after %s: %s, want %s", row.mean, row.next, got, row.want)
		}
	}
}
