package swarm

import (
	"net/netip"
	"testing"
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
