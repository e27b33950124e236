package swarm_test

import (
	"bytes"
	"path/filepath"
	"sync"
	"testing"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// A crowd and somebody who comes when it is gone, of two torrents of one publisher.
func TestSuperSeed(t *testing.T) {
	const agents = 4
	tracker := swarmtest.NewTracker(t)
	seed := newNode(t, swarm.Config{SuperSeed: true, Limits: swarm.Limits{LANUp: 8 << 20}})
	var all []*content
	for _, size := range []int{4 << 20, 3<<20 + 5} {
		c := newContent(t, size)
		all = append(all, c)
		if err := seed.Seed(t.Context(), c.info, c.path, []string{tracker.URL}); err != nil {
			t.Fatal(err)
		}
	}
	fetch := func(n *swarm.Node, c *content, trackers ...string) {
		dst := filepath.Join(t.TempDir(), "got")
		o := swarm.FetchOptions{Trackers: trackers, Peers: []string{seed.Addr().String()}}
		if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
			t.Error(err)
			return
		}
		c.check(t, dst)
	}
	var crowd []*swarm.Node
	var wg sync.WaitGroup
	for range agents {
		n := newNode(t, swarm.Config{})
		crowd = append(crowd, n)
		for _, c := range all {
			wg.Go(func() { fetch(n, c, tracker.URL) })
		}
	}
	wg.Wait()
	one := int64(len(all[0].data) + len(all[1].data))
	given := seed.Stats().Given.Sum()
	if given < one || given > 2*one {
		t.Errorf("to %d agents the publisher gave %d bytes, want little more than %d", agents, given, one)
	}
	for _, n := range crowd {
		n.Close()
	}
	late := newNode(t, swarm.Config{})
	for _, c := range all {
		fetch(late, c)
	}
	if last := seed.Stats().Given.Sum() - given; last < one {
		t.Errorf("to the only peer it gave %d bytes, want %d", last, one)
	}
}

// Peers that cannot exchange anything get everything from the publisher.
func TestSuperSeedPeersThatDoNotMeet(t *testing.T) {
	c := newContent(t, 2<<20)
	var err error // private: no peer exchange
	if c.info, err = swarm.BuildInfo(t.Context(), bytes.NewReader(c.data), "content.bin", int64(len(c.data)), true); err != nil {
		t.Fatal(err)
	}
	seed := newSeed(t, c, swarm.Config{SuperSeed: true})
	var wg sync.WaitGroup
	for range 3 {
		n := newNode(t, swarm.Config{})
		wg.Go(func() {
			dst := filepath.Join(t.TempDir(), "got")
			o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}}
			if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
				t.Error(err)
				return
			}
			c.check(t, dst)
		})
	}
	wg.Wait()
}

// A release of more than 64 MiB stalled: the engine asks for no piece that lies beyond
// that much of what it wants, and what it wants first is what nobody offers yet. Among
// members the blocks of such a file are larger than stock clients know them.
func TestSuperSeedLarge(t *testing.T) {
	c := newContent(t, 160<<20)
	keys := newKeys(t)
	seed := newSeed(t, c, swarm.Config{SuperSeed: true, Fleet: member(t, keys)})
	dst := filepath.Join(t.TempDir(), "got")
	o := swarm.FetchOptions{Peers: []string{seed.Addr().String()}}
	if _, err := newNode(t, swarm.Config{Fleet: member(t, keys)}).Fetch(withPatience(t), c.info, dst, o); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
}

// The publisher goes as soon as somebody has all of it; the others are far from that.
func TestPublisherGone(t *testing.T) {
	c := newContent(t, 8<<20)
	tracker := swarmtest.NewTracker(t)
	seed := newSeed(t, c, swarm.Config{SuperSeed: true}, tracker.URL)
	fetch := func(n *swarm.Node) {
		dst := filepath.Join(t.TempDir(), "got")
		o := swarm.FetchOptions{Trackers: []string{tracker.URL}, Peers: []string{seed.Addr().String()}}
		if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
			t.Error(err)
			return
		}
		c.check(t, dst)
	}
	var wg sync.WaitGroup
	for range 3 {
		n := newNode(t, swarm.Config{Limits: swarm.Limits{LANDown: 2 << 20}})
		wg.Go(func() { fetch(n) })
	}
	fetch(newNode(t, swarm.Config{}))
	seed.Close()
	if given := seed.Stats().Given.Sum(); given > 2*int64(len(c.data)) {
		t.Errorf("the publisher gave %d bytes: the others cannot have been far behind", given)
	}
	wg.Wait()
}
