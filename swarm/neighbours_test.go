package swarm

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/swarmtest"
)

// Those on the LAN are dialled first, and however many say that they are there, others
// get their turn.
func TestNeighboursArePreferred(t *testing.T) {
	s := &share{n: &Node{tr: new(transport)}}
	s.found = make(map[netip.AddrPort]bool)
	addr := func(net, i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(net), 0, byte(i)}), 7801)
	}
	for i := range 100 {
		s.found[addr(1, i)] = true
	}
	for i := range 3 {
		s.found[addr(2, i)] = false
	}
	got := s.strangers()
	if len(got) != 103 {
		t.Fatalf("%d strangers", len(got))
	}
	for i, p := range got {
		if near := i%2 == 0 || i >= 6; s.found[p] != near {
			t.Errorf("number %d is %v", i, p)
		}
	}
}

// A smallSwarm is nodes that share one file, and follow one channel.
type smallSwarm struct {
	t     *testing.T
	ctx   context.Context
	info  *Info
	path  string
	topic Topic
	all   sync.WaitGroup
}

func newSmallSwarm(t *testing.T) *smallSwarm {
	t.Helper()
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	data := make([]byte, 4<<20)
	sw := &smallSwarm{t: t, path: filepath.Join(t.TempDir(), "content"), topic: Topic{App: "acme", Channel: "stable"}}
	var err error
	if sw.info, err = BuildInfo(t.Context(), bytes.NewReader(data), "content", int64(len(data)), false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sw.path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	var cancel context.CancelFunc
	sw.ctx, cancel = context.WithCancel(t.Context())
	t.Cleanup(sw.all.Wait)
	t.Cleanup(cancel)
	return sw
}

func (sw *smallSwarm) start(c Config) *Node {
	sw.t.Helper()
	c.Listen = "127.0.0.1:0"
	n, err := New(c)
	if err != nil {
		sw.t.Fatal(err)
	}
	sw.t.Cleanup(func() { n.Close() })
	return n
}

func (sw *smallSwarm) seed(n *Node) {
	sw.t.Helper()
	if err := n.Seed(sw.ctx, sw.info, sw.path, nil); err != nil {
		sw.t.Fatal(err)
	}
	sw.follow(n)
}

// join has n fetch.
func (sw *smallSwarm) join(n *Node, peers ...string) {
	sw.t.Helper()
	dst := filepath.Join(sw.t.TempDir(), "got")
	sw.all.Go(func() { n.Fetch(sw.ctx, sw.info, dst, FetchOptions{Peers: peers}) })
	sw.follow(n, peers...)
}

func (sw *smallSwarm) follow(n *Node, peers ...string) {
	sw.t.Helper()
	if _, err := n.Follow(sw.topic, swarmtest.NewBoard(), FollowOptions{Peers: peers}); err != nil {
		sw.t.Fatal(err)
	}
}

// with is how many n is connected to, for the file and for the channel.
func (sw *smallSwarm) with(n *Node) (shared, followed int) {
	if s := n.share(sw.info.Ref().Infohash); s != nil {
		shared = len(s.reachable())
	}
	_, followed = n.followed(sw.topic.Infohash()).reachable()
	return shared, followed
}

func (sw *smallSwarm) eventually(otherwise string, cond func() bool) {
	sw.t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			sw.t.Fatal(otherwise)
		}
	}
}

// A machine with neighbours enough dials nobody it only hears of, but it dials who finds
// nobody, in a torrent as in a channel.
func TestWhoFindsNobodyIsDialled(t *testing.T) {
	sw := newSmallSwarm(t)
	busy := sw.start(Config{Limits: Limits{LANUp: 4 << 10}}) // nobody is done before this test is
	sw.seed(busy)
	for range neighbours {
		sw.join(sw.start(Config{}), busy.Addr().String())
	}
	sw.eventually("the swarm did not form", func() bool {
		shared, followed := sw.with(busy)
		return shared >= neighbours && followed >= leastNeighbours
	})
	late := sw.start(Config{})
	sw.join(late)
	sw.eventually("the fetch did not start", func() bool {
		s := late.share(sw.info.Ref().Infohash)
		return s != nil && s.added()
	})
	both := [][20]byte{sw.info.Ref().Infohash, sw.topic.Infohash()}
	for _, infohash := range both {
		busy.found(infohash, late.Addr(), false)
	}
	time.Sleep(300 * time.Millisecond)
	if shared, followed := sw.with(late); shared > 0 || followed > 0 {
		t.Fatalf("%d and %d have dialled who has not called", shared, followed)
	}
	for _, infohash := range both {
		busy.found(infohash, late.Addr(), true)
	}
	sw.eventually("who finds nobody was not dialled", func() bool {
		shared, followed := sw.with(late)
		return shared > 0 && followed > 0
	})
}

// Who hangs up at once is left alone for longer each time, and dialled as before once it
// has given something.
func TestWhoHangsUpIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &share{n: &Node{tr: new(transport)}}
		at := netip.MustParseAddrPort("10.0.0.1:7801")
		s.found = map[netip.AddrPort]bool{at: true}
		connect := func(dialled, brought bool, lasts time.Duration) {
			p := &peer{remote: at, dialled: dialled, brought: brought, helped: time.Now()}
			time.Sleep(lasts)
			s.hungUp(p, time.Now())
		}
		alone := func() time.Duration {
			began := time.Now()
			for len(s.strangers()) == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			return time.Since(began)
		}
		var last time.Duration
		for range chanceRefused + 8 {
			connect(true, false, 100*time.Millisecond)
			last = alone()
		}
		if last < lastRefused*3/4 || last > lastRefused*5/4 {
			t.Errorf("after ten times it is left alone for %s", last)
		}
		connect(true, true, 100*time.Millisecond)
		if d := alone(); d > 0 {
			t.Errorf("it has given something, and is left alone for %s", d)
		}
		for range chanceRefused {
			connect(true, false, 100*time.Millisecond)
			if d := alone(); d > 0 {
				t.Errorf("it may be chance, and is left alone for %s", d)
			}
		}
		connect(true, false, 100*time.Millisecond)
		if d := alone(); d < firstRefused*3/4 || d > firstRefused*5/4 {
			t.Errorf("after that it is left alone for %s", d)
		}
		connect(true, false, hangUpWithin)
		connect(false, false, 0) // it dialled us
		if d := alone(); d > 0 {
			t.Errorf("it did not hang up at once, and is left alone for %s", d)
		}
	})
}

// A seed that has peers enough is not dialled every second by one who finds nobody else.
func TestFullSeedIsLeftAlone(t *testing.T) {
	sw := newSmallSwarm(t)
	full := sw.start(Config{MaxPeers: 1, Limits: Limits{LANUp: 4 << 10}})
	sw.seed(full)
	sw.join(sw.start(Config{}), full.Addr().String())
	sw.eventually("the swarm did not form", func() bool { shared, _ := sw.with(full); return shared == 1 })
	late := sw.start(Config{})
	sw.join(late, full.Addr().String())
	sw.eventually("it was not told off", func() bool {
		s := late.share(sw.info.Ref().Infohash)
		if s == nil || !s.added() {
			return false
		}
		s.pmu.Lock()
		defer s.pmu.Unlock()
		return s.refused[full.Addr()].times > 0
	})
}

// A node that listens on loopback has nothing to say to its networks.
func TestLoopbackIsNotAnnounced(t *testing.T) {
	n, err := New(Config{Listen: "127.0.0.1:0", LAN: LAN{Enabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil { // after the announcer's last word
		t.Fatal(err)
	}
	if st := n.Stats().LAN; len(st.Interfaces) > 0 || st.Sent > 0 || st.Heard > 0 {
		t.Errorf("it did %+v", st)
	}
}
