package swarm_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/fleet"
	"shoal/swarm/gossip"
	"shoal/swarm/swarmtest"
)

var topic = swarm.Topic{Repo: "sha256:00", App: "acme", Channel: "stable"}

// follower is a node that follows the topic, and what it has.
type follower struct {
	node  *swarm.Node
	ch    *swarm.Channel
	board *swarmtest.Board
	took  chan gossip.Head // what it took, or was given
}

func follow(t testing.TB, c swarm.Config, o swarm.FollowOptions) *follower {
	t.Helper()
	f := &follower{node: newNode(t, c), board: swarmtest.NewBoard(), took: make(chan gossip.Head, 100)}
	f.board.Changed = func(h gossip.Head) { f.took <- h }
	var err error
	if f.ch, err = f.node.Follow(topic, f.board, o); err != nil {
		t.Fatal(err)
	}
	return f
}

// publish has the follower hold a manifest, and tell.
func (f *follower) publish(sequence uint64) {
	f.board.Put(sequence, fmt.Appendf(nil, "good %d", sequence))
	f.ch.Changed()
}

// wait waits until the follower holds a sequence.
func (f *follower) wait(t testing.TB, sequence uint64) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case h := <-f.took:
			if h.Order.Sequence >= sequence {
				return
			}
		case <-timer.C:
			t.Fatalf("sequence %d did not come; neighbours %+v, %+v", sequence, f.ch.Neighbours(), f.ch.Stats())
		}
	}
}

func (f *follower) addr() string { return f.node.Addr().String() }

// News goes from neighbour to neighbour, in fleets with a key and in open ones, and a
// data torrent is fetched from a neighbour that nobody named.
func TestNewsSpreads(t *testing.T) {
	k := newKeys(t)
	for _, r := range []struct {
		name   string
		member func() *fleet.Member
	}{
		{"keyed", func() *fleet.Member { return member(t, k) }},
		{"open", func() *fleet.Member { return nil }},
	} {
		t.Run(r.name, func(t *testing.T) {
			origin := follow(t, swarm.Config{Fleet: r.member(), SuperSeed: true}, swarm.FollowOptions{})
			origin.publish(1)
			last := origin
			var line []*follower
			for range 3 { // each knows only the one before
				next := follow(t, swarm.Config{Fleet: r.member()}, swarm.FollowOptions{Peers: []string{last.addr()}})
				line, last = append(line, next), next
			}
			last.wait(t, 1)
			origin.publish(2)
			for _, f := range line {
				f.wait(t, 2)
			}
			c := newContent(t, 1<<20)
			if err := origin.node.Seed(t.Context(), c.info, c.path, nil); err != nil {
				t.Fatal(err)
			}
			dst := filepath.Join(t.TempDir(), "got")
			if _, err := line[0].node.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{}); err != nil {
				t.Fatal(err)
			}
			c.check(t, dst)
			told := func(n swarm.Neighbour) bool { return n.Have.Order.Sequence > 0 }
			eventually(t, "a neighbour says what it has", func() bool { return slices.ContainsFunc(line[0].ch.Neighbours(), told) })
			for _, n := range line[0].ch.Neighbours() {
				if told(n) && (n.Member != "") != (r.name == "keyed") {
					t.Errorf("neighbour %+v", n)
				}
			}
		})
	}
}

// A tracker is enough to meet.
func TestFollowersMeetAtATracker(t *testing.T) {
	tr := swarmtest.NewTracker(t)
	defer tr.Close()
	a := follow(t, swarm.Config{}, swarm.FollowOptions{Trackers: []string{tr.URL}})
	a.publish(1)
	tr.Wait(withPatience(t), t, "started")
	b := follow(t, swarm.Config{}, swarm.FollowOptions{Trackers: []string{tr.URL}})
	b.wait(t, 1)
}

// Who knows one neighbour learns of the others from it (BEP 11).
func TestFollowersExchangePeers(t *testing.T) {
	hub := follow(t, swarm.Config{}, swarm.FollowOptions{})
	a := follow(t, swarm.Config{}, swarm.FollowOptions{Peers: []string{hub.addr()}})
	b := follow(t, swarm.Config{}, swarm.FollowOptions{Peers: []string{hub.addr()}})
	ctx := withPatience(t)
	for !meets(a, b) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("a has %+v", a.ch.Neighbours())
		}
	}
}

func meets(a, b *follower) bool {
	for _, n := range a.ch.Neighbours() {
		if n.Addr.Port() == b.node.Addr().Port() {
			return true
		}
	}
	return false
}

func TestFollowTwice(t *testing.T) {
	f := follow(t, swarm.Config{}, swarm.FollowOptions{})
	if _, err := f.node.Follow(topic, f.board, swarm.FollowOptions{}); err == nil {
		t.Error("a channel was followed twice")
	}
	f.ch.Close()
	if _, err := f.node.Follow(topic, f.board, swarm.FollowOptions{}); err != nil {
		t.Error(err)
	}
	f.node.Close()
	if _, err := f.node.Follow(topic, f.board, swarm.FollowOptions{}); err == nil {
		t.Error("a closed node follows")
	}
}

// The place where machines meet is part of the protocol.
func TestRendezvous(t *testing.T) {
	zeros := swarm.Topic{Repo: "sha256:" + strings.Repeat("0", 64), App: "acme", Channel: "stable"}
	if got := fmt.Sprintf("%x", zeros.Infohash()); got != "87db34f11285af63a35817768ce8b62b0911837a" {
		t.Errorf("%s meets at %s", zeros, got)
	}
}
