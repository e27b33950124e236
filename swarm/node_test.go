package swarm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// patience is how long a test waits for what is about to happen.
const patience = time.Minute

// content is a file that a seed has.
type content struct {
	info *swarm.Info
	data []byte
	path string
}

func newContent(t testing.TB, size int) *content {
	t.Helper()
	c := &content{data: make([]byte, size), path: filepath.Join(t.TempDir(), "content")}
	r := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	r.Read(c.data)
	if err := os.WriteFile(c.path, c.data, 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	c.info, err = swarm.BuildInfo(t.Context(), bytes.NewReader(c.data), "content.bin", int64(size), false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *content) check(t testing.TB, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, c.data) {
		t.Errorf("%s is not the content", path)
	}
}

func newNode(t testing.TB, c swarm.Config) *swarm.Node {
	t.Helper()
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	n, err := swarm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// newSeed is a node that serves c.
func newSeed(t testing.TB, c *content, conf swarm.Config, trackers ...string) *swarm.Node {
	t.Helper()
	n := newNode(t, conf)
	if err := n.Seed(t.Context(), c.info, c.path, trackers); err != nil {
		t.Fatal(err)
	}
	return n
}

func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestFetchFromSeed(t *testing.T) {
	c := newContent(t, 3<<20+5)
	seed := newSeed(t, c, swarm.Config{})
	n := newNode(t, swarm.Config{Origins: []string{seed.Addr().String()}})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if got.Origin-got.Wasted != int64(len(c.data)) || got.LAN+got.WAN+got.Webseed != 0 {
		t.Errorf("bytes are %+v, want %d of the origin", got, len(c.data))
	}
}

func TestFiveFetchTogether(t *testing.T) {
	for _, by := range []string{"tracker", "peer-exchange"} {
		t.Run(by, func(t *testing.T) {
			c := newContent(t, 4<<20)
			var o swarm.FetchOptions
			seed := newNode(t, swarm.Config{Limits: swarm.Limits{LANUp: 4 << 20}})
			if by == "tracker" {
				o.Trackers = []string{swarmtest.NewTracker(t).URL}
			} else {
				o.Peers = []string{seed.Addr().String()}
			}
			if err := seed.Seed(t.Context(), c.info, c.path, o.Trackers); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 5 {
				n := newNode(t, swarm.Config{Origins: []string{seed.Addr().String()}})
				dst := filepath.Join(t.TempDir(), "got")
				wg.Go(func() {
					got, err := n.Fetch(withPatience(t), c.info, dst, o)
					if err != nil {
						t.Error(err)
						return
					}
					c.check(t, dst)
					if got.LAN == 0 {
						t.Errorf("bytes are %+v, nothing came from peers", got)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestFetchedIsServedUnderAnyName(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{})
	first, second := newNode(t, swarm.Config{}), newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got.unverified")
	if _, err := first.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dst, dst+".renamed"); err != nil {
		t.Fatal(err)
	}
	seed.Close()
	dst = filepath.Join(t.TempDir(), "got")
	if _, err := second.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{first.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if given := first.Stats().Given[swarm.ClassLAN]; given < int64(len(c.data)) {
		t.Errorf("the first agent counts %d bytes given, want %d", given, len(c.data))
	}
}

func TestPeerThatComesLater(t *testing.T) {
	c := newContent(t, 1<<20)
	n := newNode(t, swarm.Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "got")
	fetched := make(chan error)
	go func() {
		_, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{ln.Addr().String()}})
		fetched <- err
	}()
	// Somebody else has the publisher's port at first, and hangs up.
	if other, err := ln.Accept(); err != nil {
		t.Error(err)
	} else {
		other.Close()
	}
	ln.Close()
	newSeed(t, c, swarm.Config{Listen: ln.Addr().String()})
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
}

func TestPrivateTorrent(t *testing.T) {
	c := newContent(t, 1<<20)
	info, err := swarm.BuildInfo(t.Context(), bytes.NewReader(c.data), "content.bin", int64(len(c.data)), true)
	if err != nil {
		t.Fatal(err)
	}
	c.info = info
	tracker := swarmtest.NewTracker(t)
	newSeed(t, c, swarm.Config{}, tracker.URL)
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Trackers: []string{tracker.URL}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
}

func TestDeadlines(t *testing.T) {
	c := newContent(t, 1<<20)
	n := newNode(t, swarm.Config{})
	for _, test := range []struct {
		which string
		o     swarm.FetchOptions
	}{
		{"idle", swarm.FetchOptions{IdleTimeout: time.Millisecond, TotalTimeout: time.Hour}},
		{"total", swarm.FetchOptions{IdleTimeout: time.Hour, TotalTimeout: time.Millisecond}},
	} {
		_, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), test.o)
		var late *swarm.DeadlineError
		if !errors.As(err, &late) || late.Which != test.which || late.Total != int64(len(c.data)) {
			t.Errorf("got %v, want the %s deadline", err, test.which)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Fetch(ctx, c.info, filepath.Join(t.TempDir(), "got"), swarm.FetchOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
	if left := n.Stats().Torrents; len(left) != 0 {
		t.Errorf("failed fetches left %+v", left)
	}
}

func TestProgress(t *testing.T) {
	c := newContent(t, 2<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 2 << 20}})
	n := newNode(t, swarm.Config{})
	var all []swarm.Progress // race detector: never touched by two goroutines
	o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}, Progress: func(p swarm.Progress) { all = append(all, p) }}
	got, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no progress was reported")
	}
	last := all[len(all)-1]
	if last.Done != last.Total || last.Total != int64(len(c.data)) || last.Bytes.LAN != got.LAN {
		t.Errorf("the last progress is %+v, the result %+v", last, got)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Done < all[i-1].Done {
			t.Errorf("progress went from %d to %d", all[i-1].Done, all[i].Done)
		}
	}
}

func TestBusy(t *testing.T) {
	c := newContent(t, 1<<20)
	n := newSeed(t, c, swarm.Config{})
	if err := n.Seed(t.Context(), c.info, c.path, nil); err != nil {
		t.Errorf("seeding what is seeded: %v", err)
	}
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(t.Context(), c.info, dst, swarm.FetchOptions{}); !errors.Is(err, swarm.ErrBusy) {
		t.Errorf("fetching what is seeded: %v, want ErrBusy", err)
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused fetch left a file: %v", err)
	}
	n.Drop(c.info.Ref().Infohash)
	n.Drop(c.info.Ref().Infohash)
	if err := n.Seed(t.Context(), c.info, c.path, nil); err != nil {
		t.Errorf("seeding again after Drop: %v", err)
	}
}

func TestEndWhileFetching(t *testing.T) {
	c := newContent(t, 1<<20)
	for name, end := range map[string]func(*swarm.Node){
		"drop":  func(n *swarm.Node) { n.Drop(c.info.Ref().Infohash) },
		"close": func(n *swarm.Node) { n.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 64 << 10}})
			n := newNode(t, swarm.Config{})
			arriving := make(chan struct{}, 100)
			o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}, Progress: func(p swarm.Progress) {
				if p.Bytes.LAN > 0 {
					select {
					case arriving <- struct{}{}:
					default:
					}
				}
			}}
			failed := make(chan error)
			go func() {
				_, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), o)
				failed <- err
			}()
			<-arriving
			end(n)
			if err := <-failed; !errors.Is(err, swarm.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		})
	}
}

func TestDropStopsServing(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{})
	seed.Drop(c.info.Ref().Infohash)
	n := newNode(t, swarm.Config{})
	o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}, IdleTimeout: 500 * time.Millisecond}
	got, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), o)
	var late *swarm.DeadlineError
	if !errors.As(err, &late) || got.LAN != 0 {
		t.Errorf("got %+v and %v from a node that had dropped the torrent", got, err)
	}
}

func TestClosedNode(t *testing.T) {
	c := newContent(t, 1<<20)
	n := newNode(t, swarm.Config{})
	n.Close()
	n.Close()
	if err := n.Seed(t.Context(), c.info, c.path, nil); !errors.Is(err, swarm.ErrClosed) {
		t.Errorf("Seed: %v", err)
	}
	if _, err := n.Fetch(t.Context(), c.info, filepath.Join(t.TempDir(), "got"), swarm.FetchOptions{}); !errors.Is(err, swarm.ErrClosed) {
		t.Errorf("Fetch: %v", err)
	}
	n.Drop(c.info.Ref().Infohash)
	n.SetLimits(swarm.Limits{Up: -5})
	n.Stats()
}

func TestPortInUse(t *testing.T) {
	n := newNode(t, swarm.Config{})
	_, err := swarm.New(swarm.Config{Listen: n.Addr().String()})
	var port *swarm.PortError
	if !errors.As(err, &port) || !errors.Is(err, syscall.EADDRINUSE) || port.Addr != n.Addr().String() {
		t.Errorf("got %v, want a PortError of %v", err, n.Addr())
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, c := range []swarm.Config{
		{MaxPeers: -1},
		{Limits: swarm.Limits{Up: -1}},
		{Origins: []string{"no-port"}},
		{Listen: "no-port"},
		{LAN: swarm.LAN{Interfaces: []string{"eth["}}},
	} {
		if n, err := swarm.New(c); err == nil {
			n.Close()
			t.Errorf("%+v is accepted", c)
		}
	}
}

// What trackers a link names must not matter to the process.
func TestStrangeTrackers(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{})
	n := newNode(t, swarm.Config{})
	o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}, Trackers: []string{
		"http://user:password@127.0.0.1:1/announce", "wss://127.0.0.1:1", "http://127.0.0.1:1/a b?c#d", "udp://127.0.0.1:1", "%", "",
	}}
	if _, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), o); err != nil {
		t.Error(err)
	}
}

func TestTrackerIsTold(t *testing.T) {
	c := newContent(t, 1<<20)
	tracker := swarmtest.NewTracker(t)
	seed := newSeed(t, c, swarm.Config{}, tracker.URL)
	n := newNode(t, swarm.Config{})
	if _, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), swarm.FetchOptions{Trackers: []string{tracker.URL}}); err != nil {
		t.Fatal(err)
	}
	n.Close()
	seed.Close()
	events := map[string]int{}
	for _, e := range tracker.Events() {
		events[e]++
	}
	if events["started"] != 2 || events["stopped"] != 2 {
		t.Errorf("the tracker heard %v, want two to start and two to stop", events)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	c := newContent(t, 1<<20)
	newNode(t, swarm.Config{}).Close() // what is started once, is
	before := runtime.NumGoroutine()
	tracker := swarmtest.NewTracker(t)
	seed := newSeed(t, c, swarm.Config{}, tracker.URL)
	n := newNode(t, swarm.Config{})
	o := swarm.FetchOptions{Trackers: []string{tracker.URL}, Peers: []string{seed.Addr().String(), "127.0.0.1:1"}}
	if _, err := n.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), o); err != nil {
		t.Fatal(err)
	}
	n.Close()
	seed.Close()
	tracker.Close()
	var now int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if now = runtime.NumGoroutine(); now <= before {
			return
		}
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%d goroutines, %d before:\n%s", now, before, stacks[:runtime.Stack(stacks, true)])
}
