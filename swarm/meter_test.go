package swarm

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	start := time.Now()
	type at struct {
		after  time.Duration
		useful int64
	}
	// steadily is a sample every second, with that many bytes more each time.
	steadily := func(rate int64, seconds int) (all []at) {
		for s := range seconds {
			all = append(all, at{time.Duration(s+1) * time.Second, int64(s+1) * rate})
		}
		return all
	}
	for _, test := range []struct {
		name    string
		o       FetchOptions
		samples []at
		want    string // after the last
	}{
		{"no-deadlines", FetchOptions{}, []at{{24 * time.Hour, 0}}, ""},
		{"total-passed-while-all-is-well", FetchOptions{TotalTimeout: time.Minute, IdleTimeout: time.Minute}, steadily(1000, 60), "total"},
		{"total-not-yet", FetchOptions{TotalTimeout: time.Minute}, steadily(1000, 59), ""},
		{"idle-from-the-start", FetchOptions{IdleTimeout: time.Minute}, steadily(0, 60), "idle"},
		{"idle-not-yet", FetchOptions{IdleTimeout: time.Minute}, steadily(0, 59), ""},
		{"idle-after-a-while", FetchOptions{IdleTimeout: 10 * time.Second}, append(steadily(1000, 60), at{70 * time.Second, 60000}), "idle"},
		{"trickle-is-not-idle", FetchOptions{IdleTimeout: 10 * time.Second}, steadily(1, 600), ""},
		{"trickle-is-too-slow", FetchOptions{MinRate: 100}, steadily(99, 31), "rate"},
		{"fast-enough", FetchOptions{MinRate: 100}, steadily(100, 600), ""},
		{"too-slow-not-known-yet", FetchOptions{MinRate: 100}, steadily(0, 29), ""},
		{"fast-once-and-then-not", FetchOptions{MinRate: 100}, append(steadily(1e6, 60), at{90 * time.Second, 60e6 + 1000}), "rate"},
		{"slow-moment", FetchOptions{MinRate: 100}, append(steadily(1e6, 60), at{70 * time.Second, 60e6}), ""},
	} {
		m := newMeter(start, test.o)
		m.moved, m.samples[0].at = start, start
		for _, s := range test.samples {
			m.add(start.Add(s.after), s.useful)
		}
		if got := m.late(start.Add(test.samples[len(test.samples)-1].after)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	m := newMeter(start, FetchOptions{})
	m.samples[0].at = start
	for _, s := range steadily(500, 120) {
		m.add(start.Add(s.after), s.useful)
	}
	if got := m.rate(rateWindow); got != 500 {
		t.Errorf("500 bytes a second are measured as %d", got)
	}
	if len(m.samples) > 40 {
		t.Errorf("%d samples are kept", len(m.samples))
	}
}
