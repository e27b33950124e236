package swarm_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/fleet"
	"shoal/swarm/swarmtest"
)

func zeros(_, _, length uint32) []byte { return make([]byte, length) }

// lie has a member of the fleet, or with nil anybody, claim to have c.
func lie(t *testing.T, m *fleet.Member, c *content) *swarmtest.Peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if m != nil {
		ln = tls.NewListener(ln, m.Accepting())
	}
	return swarmtest.ServePeer(t, ln, c.info.Ref().Infohash, c.info.Pieces(), zeros)
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := withPatience(t)
	for !cond() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(what)
		}
	}
}

// A member is banned for what it sent, whatever port it comes from, and nobody else at its
// address is; when the ban is over it may come back.
func TestBansAreOfMembers(t *testing.T) {
	k := newKeys(t)
	bad := member(t, k)
	c, later := newContent(t, 1<<20), newContent(t, 2<<20)
	seed := newSeed(t, c, swarm.Config{Fleet: member(t, k)})
	n := newNode(t, swarm.Config{Fleet: member(t, k)})
	banLiar(t, n, lie(t, bad, c), c)
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)

	again := lie(t, bad, later)
	fetching := func(what string, until func() bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(withPatience(t))
		ended := make(chan error, 1)
		go func() {
			_, err := n.Fetch(ctx, later.info, filepath.Join(t.TempDir(), "later"), swarm.FetchOptions{Peers: []string{again.Addr}})
			ended <- err
		}()
		eventually(t, what, until)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("fetching from the member alone: %v", err)
		}
	}
	before := n.Stats().Refused.Banned
	fetching("the banned member was not refused", func() bool { return n.Stats().Refused.Banned > before })
	if asked := again.Requests.Load(); asked != 0 {
		t.Errorf("the banned member was asked %d times", asked)
	}
	n.LiftBans()
	if n.Stats().Bans != 0 {
		t.Error("there still are bans")
	}
	fetching("after its ban the member was not asked", func() bool { return again.Requests.Load() > 0 })
}

// In an open fleet nobody is known by more than an address; here, where one machine has
// several nodes, with the port.
func TestBansInAnOpenFleet(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{})
	liar := lie(t, nil, c)
	n := newNode(t, swarm.Config{})
	banLiar(t, n, liar, c)
	asked := liar.Requests.Load()
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{liar.Addr, seed.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if liar.Requests.Load() != asked {
		t.Error("a banned peer was asked again")
	}
}

// banLiar has n fetch from a liar alone, until it is banned.
func banLiar(t *testing.T, n *swarm.Node, liar *swarmtest.Peer, c *content) {
	t.Helper()
	ctx, cancel := context.WithCancel(withPatience(t))
	ended := make(chan error)
	go func() {
		_, err := n.Fetch(ctx, c.info, filepath.Join(t.TempDir(), "bad"), swarm.FetchOptions{Peers: []string{liar.Addr}})
		ended <- err
	}()
	eventually(t, "the liar was not banned", func() bool { return n.Stats().Bans == 1 })
	cancel()
	if err := <-ended; err == nil || liar.Requests.Load() == 0 {
		t.Fatalf("fetching from a liar: %v; it was asked %d times", err, liar.Requests.Load())
	}
}
