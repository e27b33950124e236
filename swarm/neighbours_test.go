package swarm

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
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

// A machine with neighbours enough dials nobody it only hears of, but it dials who finds
// nobody, in a torrent as in a channel.
func TestWhoFindsNobodyIsDialled(t *testing.T) {
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	data := make([]byte, 4<<20)
	info, err := BuildInfo(t.Context(), bytes.NewReader(data), "content", int64(len(data)), false)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	topic := Topic{App: "acme", Channel: "stable"}
	start := func(limits Limits) *Node {
		n, err := New(Config{Listen: "127.0.0.1:0", Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	ctx, cancel := context.WithCancel(t.Context())
	var fetching sync.WaitGroup
	t.Cleanup(fetching.Wait)
	t.Cleanup(cancel)
	join := func(n *Node, peers ...string) {
		dst := filepath.Join(t.TempDir(), "got")
		fetching.Go(func() { n.Fetch(ctx, info, dst, FetchOptions{Peers: peers}) })
		if _, err := n.Follow(topic, swarmtest.NewBoard(), FollowOptions{Peers: peers}); err != nil {
			t.Error(err)
		}
	}
	busy := start(Limits{LANUp: 4 << 10}) // nobody is done before this test is
	if err := busy.Seed(ctx, info, path, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := busy.Follow(topic, swarmtest.NewBoard(), FollowOptions{}); err != nil {
		t.Fatal(err)
	}
	for range neighbours {
		join(start(Limits{}), busy.Addr().String())
	}
	with := func(n *Node) (shared, followed int) {
		if s := n.share(info.Ref().Infohash); s != nil {
			shared = len(s.reachable())
		}
		_, followed = n.followed(topic.Infohash()).reachable()
		return shared, followed
	}
	eventually := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	eventually("the swarm did not form", func() bool {
		shared, followed := with(busy)
		return shared >= neighbours && followed >= leastNeighbours
	})
	late := start(Limits{})
	join(late)
	eventually("the fetch did not start", func() bool {
		s := late.share(info.Ref().Infohash)
		return s != nil && s.added()
	})
	for _, infohash := range [][20]byte{info.Ref().Infohash, topic.Infohash()} {
		busy.found(infohash, late.Addr(), false)
	}
	time.Sleep(300 * time.Millisecond)
	if shared, followed := with(late); shared > 0 || followed > 0 {
		t.Fatalf("%d and %d have dialled who has not called", shared, followed)
	}
	for _, infohash := range [][20]byte{info.Ref().Infohash, topic.Infohash()} {
		busy.found(infohash, late.Addr(), true)
	}
	eventually("who finds nobody was not dialled", func() bool {
		shared, followed := with(late)
		return shared > 0 && followed > 0
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
