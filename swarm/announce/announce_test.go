package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// torrent is one of which the test says how much is there.
type torrent struct {
	mu       sync.Mutex
	status   Status
	offered  []netip.AddrPort
	complete chan struct{}
}

func newTorrent(left int64) *torrent {
	return &torrent{status: Status{Port: 7801, Left: left}, complete: make(chan struct{})}
}

func (t *torrent) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

func (t *torrent) Offer(p []netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offered = append(t.offered, p...)
}

func (t *torrent) Complete() <-chan struct{} { return t.complete }

func (t *torrent) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Left = 0
	close(t.complete)
}

// fakeTracker answers announces and keeps what came and when, since it was made.
type fakeTracker struct {
	answer func(n int) (string, error) // to the nth announce, from 0
	start  time.Time
	mu     sync.Mutex
	heard  []string
}

func newFakeTracker(answer func(int) (string, error)) *fakeTracker {
	return &fakeTracker{answer: answer, start: time.Now()}
}

func (f *fakeTracker) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	n := len(f.heard)
	event := r.URL.Query().Get("event")
	f.heard = append(f.heard, fmt.Sprintf("%s@%d", event, time.Since(f.start)/time.Second))
	f.mu.Unlock()
	body, err := f.answer(n)
	if err != nil {
		return nil, err
	}
	if body == "never" {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: 200, Status: "200 OK", Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (f *fakeTracker) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.heard, " ")
}

func always(reply string) func(int) (string, error) {
	return func(int) (string, error) { return reply, nil }
}

const trackerURL = "http://tracker.example/announce"

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTracker(always("d8:intervali600e12:min intervali60e5:peers6:\x0a\x00\x00\x01\x1e\x79e"))
		c := New(Config{Transport: f})
		ctx, cancel := context.WithCancel(t.Context())
		tt := newTorrent(1000)
		c.Start(ctx, trackerURL, tt)
		time.Sleep(time.Minute)
		tt.finish()
		time.Sleep(11*time.Minute + time.Second)
		cancel()
		synctest.Wait()
		c.Close(time.Second)
		got := f.told()
		var again int
		if n, _ := fmt.Sscanf(got, "started@0 completed@60 @%d stopped@721", &again); n != 1 || again < 660 || again > 720 {
			t.Errorf("the tracker heard %q; want one regular announce 10 to 11 minutes after completion", got)
		}
		if want := netip.MustParseAddrPort("10.0.0.1:7801"); len(tt.offered) != 3 || tt.offered[0] != want {
			t.Errorf("got peers %v, want %v with each reply", tt.offered, want)
		}
	})
}

func TestFewPeersAreFollowedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTracker(always("d8:intervali1800ee"))
		c := New(Config{Transport: f})
		ctx, cancel := context.WithCancel(t.Context())
		tt := newTorrent(1000)
		tt.status.Wanting = true
		c.Start(ctx, trackerURL, tt)
		time.Sleep(70 * time.Second)
		cancel()
		c.Close(time.Second)
		if got := f.told(); !strings.HasPrefix(got, "started@0 @6") || strings.Count(got, "@") != 3 {
			t.Errorf("the tracker heard %q, want it asked again after a minute", got)
		}
	})
}

func TestFailures(t *testing.T) {
	for name, failure := range map[string]func(int) (string, error){
		"unreachable":   func(int) (string, error) { return "", errors.New("connection refused") },
		"refused":       always("d14:failure reason9:not heree"),
		"not-bencode":   always("<html>"),
		"too-long":      always("d5:peers70000:" + strings.Repeat("x", 70000) + "e"),
		"never-answers": always("never"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				works := false
				f := newFakeTracker(func(n int) (string, error) {
					if n < 4 {
						return failure(n)
					}
					works = true
					return "d8:intervali600ee", nil
				})
				c := New(Config{Transport: f})
				ctx, cancel := context.WithCancel(t.Context())
				c.Start(ctx, trackerURL, newTorrent(1000))
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				if !works || !strings.HasPrefix(f.told(), "started@0 started@") || strings.Count(f.told(), "started") != 5 {
					t.Errorf("the tracker heard %q, want it told five times that we start, until it answers", f.told())
				}
				cancel()
				c.Close(time.Second)
			})
		})
	}
}

// A tracker that never knew of the node need not hear that it leaves.
func TestLeavingUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTracker(always("d14:failure reason4:busye"))
		c := New(Config{Transport: f})
		ctx, cancel := context.WithCancel(t.Context())
		c.Start(ctx, trackerURL, newTorrent(1))
		synctest.Wait()
		cancel()
		c.Close(time.Second)
		if got := f.told(); got != "started@0" {
			t.Errorf("the tracker heard %q", got)
		}
	})
}

func TestCloseIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTracker(always("never"))
		c := New(Config{Transport: f})
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 * atOnce {
			c.Start(ctx, trackerURL, newTorrent(1))
		}
		synctest.Wait()
		if n := strings.Count(f.told(), "started"); n != atOnce {
			t.Errorf("%d announces at once, want %d", n, atOnce)
		}
		cancel()
		began := time.Now()
		c.Close(time.Second)
		if took := time.Since(began); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		c.Start(t.Context(), trackerURL, newTorrent(1)) // after the end, nothing
		c.Close(0)
	})
}

func TestReplyWait(t *testing.T) {
	for _, test := range []struct {
		name            string
		interval, min   time.Duration
		wanting         bool
		atLeast, atMost time.Duration
	}{
		{"as-asked", 10 * time.Minute, 0, false, 10 * time.Minute, 11 * time.Minute},
		{"none-named", 0, 0, false, noInterval, noInterval * 11 / 10},
		{"a-flood-is-wanted", time.Second, 0, false, minInterval, minInterval * 11 / 10},
		{"a-flood-for-the-hungry", time.Second, time.Second, true, minInterval, minInterval * 11 / 10},
		{"never-again", 1000 * time.Hour, 0, false, maxInterval, maxInterval * 11 / 10},
		{"hungry", 10 * time.Minute, 0, true, wantInterval, wantInterval * 11 / 10},
		{"hungry-but-asked-to-wait", 10 * time.Minute, 5 * time.Minute, true, 5 * time.Minute, 6 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (reply{interval: test.interval, min: test.min}).wait(test.wanting); got < test.atLeast || got > test.atMost {
				t.Errorf("got %v, want %v to %v", got, test.atLeast, test.atMost)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	for _, test := range []struct {
		peer      string
		far, near bool // usable from a tracker elsewhere, and from one here
	}{
		{"10.0.0.1:7801", true, true},
		{"[2001:db8::1]:7801", true, true},
		{"[::ffff:10.0.0.1]:7801", true, true},
		{"127.0.0.1:22", false, true},
		{"[::1]:22", false, true},
		{"[::ffff:127.0.0.1]:22", false, true},
		{"0.0.0.0:22", false, false},
		{"[::]:22", false, false},
		{"224.0.0.1:22", false, false},
		{"10.0.0.1:0", false, false},
	} {
		p := []netip.AddrPort{netip.MustParseAddrPort(test.peer)}
		if far, near := len(usable(p, false)) == 1, len(usable(p, true)) == 1; far != test.far || near != test.near {
			t.Errorf("%s: usable from elsewhere %v, from here %v; want %v, %v", test.peer, far, near, test.far, test.near)
		}
	}
	if got := usable(make([]netip.AddrPort, 3), true); got != nil {
		t.Errorf("no addresses are usable: %v", got)
	}
	many := make([]netip.AddrPort, 3*maxPeers)
	for i := range many {
		many[i] = netip.MustParseAddrPort("10.0.0.1:7801")
	}
	if got := len(usable(many, false)); got != maxPeers {
		t.Errorf("%d peers were taken, want %d", got, maxPeers)
	}
}
