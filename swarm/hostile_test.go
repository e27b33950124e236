package swarm_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

func TestLiarAndAnHonestPeer(t *testing.T) {
	c := newContent(t, 2<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 4 << 20}})
	liar := swarmtest.NewPeer(t, "127.0.0.1:0", c.info.Ref().Infohash, c.info.Pieces(), func(_, _, length uint32) []byte {
		return make([]byte, length)
	})
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{liar.Addr, seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if liar.Requests.Load() == 0 {
		t.Errorf("nothing was asked of the liar; got %+v", got)
	}
}

func TestThreeOfFourLie(t *testing.T) {
	c := newContent(t, 2<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 4 << 20}})
	peers := []string{seed.Addr().String()}
	for range 3 {
		peers = append(peers, lie(t, nil, c).Addr)
	}
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: peers}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
}

func TestOnlyLiars(t *testing.T) {
	c := newContent(t, 1<<20)
	liars := []*swarmtest.Peer{lie(t, nil, c), lie(t, nil, c)}
	n := newNode(t, swarm.Config{})
	ctx, cancel := context.WithCancel(withPatience(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := n.Fetch(ctx, c.info, filepath.Join(t.TempDir(), "got"), swarm.FetchOptions{Peers: []string{liars[0].Addr, liars[1].Addr}})
		ended <- err
	}()
	// Lies have been seen through when somebody is out for them, or is asked for more than
	// there is.
	blocks := int64(len(c.data) / (16 << 10))
	eventually(t, "nothing was asked of them", func() bool {
		return n.Stats().Bans > 0 || liars[0].Requests.Load()+liars[1].Requests.Load() > blocks
	})
	if st := n.Stats().Torrents; len(st) != 1 || st[0].Verified != 0 {
		t.Errorf("got verified bytes from liars: %+v", st)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the fetch ended with %v", err)
	}
}

// A tracker may be full of peers that were never meant to give anything; those that were
// configured are kept all the same.
func TestHundredsOfFakesAndAConfiguredPeer(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 2 << 20}})
	tracker := swarmtest.NewTracker(t)
	var fakes []*swarmtest.Peer
	for i := range 200 {
		f := lie(t, nil, c)
		if i%2 == 0 {
			f = swarmtest.NewPeer(t, "127.0.0.1:0", c.info.Ref().Infohash, c.info.Pieces(), func(_, _, _ uint32) []byte { return nil })
		}
		tracker.Tell(c.info.Ref().Infohash, netip.MustParseAddrPort(f.Addr))
		fakes = append(fakes, f)
	}
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	o := swarm.FetchOptions{Trackers: []string{tracker.URL}, Peers: []string{seed.Addr().String()}}
	if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	asked := 0
	for _, f := range fakes {
		if f.Requests.Load() > 0 {
			asked++
		}
	}
	if asked == 0 {
		t.Error("none of the fakes was asked for anything")
	}
}

func TestStallersAndAnHonestPeer(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 1 << 20}})
	peers := []string{}
	var stallers []*swarmtest.Peer
	for range 50 {
		s := swarmtest.NewPeer(t, "127.0.0.1:0", c.info.Ref().Infohash, c.info.Pieces(), func(_, _, _ uint32) []byte { return nil })
		stallers = append(stallers, s)
		peers = append(peers, s.Addr)
	}
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: append(peers, seed.Addr().String())}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	var asked int64
	for _, s := range stallers {
		asked += s.Requests.Load()
	}
	if asked == 0 {
		t.Error("nothing was asked of the stallers")
	}
}

func TestFloodOfSilentConnections(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{})
	for range 200 {
		silent, err := net.Dial("tcp", seed.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
}

// A peer with a piece it can no longer read must not stop those that ask for it.
func TestSourceIsTruncatedWhileItIsServed(t *testing.T) {
	c := newContent(t, 2<<20)
	broken := newSeed(t, c, swarm.Config{})
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, c.data, 0o600); err != nil {
		t.Fatal(err)
	}
	good := newNode(t, swarm.Config{Limits: swarm.Limits{LANUp: 2 << 20}})
	if err := good.Seed(t.Context(), c.info, copied, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(c.path, 100<<10); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	o := swarm.FetchOptions{Peers: []string{broken.Addr().String(), good.Addr().String()}}
	if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if st := broken.Stats().Torrents; len(st) != 1 || st[0].Verified == int64(len(c.data)) {
		t.Errorf("the broken source still claims to have all: %+v", st)
	}
}
