package swarm

import (
	"bytes"
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"shoal/swarm/wire"
)

func TestWish(t *testing.T) {
	have := func(i pp.Integer) *pp.Message { return &pp.Message{Type: pp.Have, Index: i} }
	for _, row := range []struct {
		name string
		say  []*pp.Message
		want []int
	}{
		{"nothing", nil, nil},
		{"one-after-the-other", []*pp.Message{have(3), have(1)}, []int{3, 1}},
		{"said-twice", []*pp.Message{have(3), have(3)}, []int{3}},
		{"beyond-the-torrent", []*pp.Message{have(4), have(1 << 31)}, nil},
		{"bitfield", []*pp.Message{have(2), {Type: pp.Bitfield, Bitfield: []bool{true, false, true, true, false, true, true, true}}}, []int{2, 0, 3}},
		{"all", []*pp.Message{have(2), {Type: pp.HaveAll}, have(1), {Type: pp.HaveAll}}, []int{2, 0, 1, 3}},
		{"other-messages", []*pp.Message{{Type: pp.Suggest, Index: 1}, {Type: pp.HaveNone}, {Type: pp.AllowedFast, Index: 1}}, nil},
	} {
		w := newWish(4)
		for _, m := range row.say {
			w.heard(m)
		}
		if fresh := len(w.fresh) > 0; fresh != (row.want != nil) {
			t.Errorf("%s: something new: %t", row.name, fresh)
		}
		if got := w.take(); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
		if got := w.take(); got != nil {
			t.Errorf("%s: taken twice: %v", row.name, got)
		}
		for i := range 4 {
			if w.announced(i) != slices.Contains(row.want, i) {
				t.Errorf("%s: piece %d announced: %t", row.name, i, w.announced(i))
			}
		}
	}
}

// The engine hears of what peers are to be asked for, one piece at first, and not of all they
// announce; it is asked for that, and for one piece before there is anybody.
func TestOnlyWhatIsPickedIsAskedFor(t *testing.T) {
	i, _ := newInfo(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n, err := New(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Fetch(ctx, i, filepath.Join(t.TempDir(), "dst"), FetchOptions{Peers: []string{ln.Addr().String()}})
	}()
	defer func() { cancel(); <-ended }()

	ln.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	ref := i.Ref().Infohash
	hello := append([]byte(wire.Protocol), make([]byte, 8)...)
	hello = append(append(hello, ref[:]...), "-XX0000-abcdefghijkl"...)
	if _, err := peer.Write(hello); err != nil {
		t.Fatal(err)
	}
	s := n.share(ref)
	<-s.opened
	wanted := func() (pieces []int) {
		for p := range i.Pieces() {
			if s.lib.PieceState(p).Priority != torrent.PiecePriorityNone {
				pieces = append(pieces, p)
			}
		}
		return pieces
	}
	wantedAre := func(want ...int) {
		t.Helper()
		for late := time.After(time.Minute); !slices.Equal(wanted(), want); {
			select {
			case <-time.After(time.Millisecond):
			case <-late:
				t.Fatalf("asked for %v, want %v", wanted(), want)
			}
		}
	}
	engineKnows := func(want ...uint32) {
		t.Helper()
		s.pmu.Lock()
		conns := slices.Collect(maps.Keys(s.live))
		s.pmu.Unlock()
		for _, pc := range conns {
			if got := pc.PeerPieces().ToArray(); !slices.Equal(got, want) {
				t.Fatalf("the engine knows that the peer has %v, want %v", got, want)
			}
		}
	}
	says := func(b ...byte) {
		t.Helper()
		for len(b) > 0 { // in small parts
			n := min(3, len(b))
			if _, err := peer.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
	}
	wantedAre(0)
	// A choking peer is told that something is wanted of it.
	says(0, 0, 0, 5, wire.Have, 0, 0, 0, 2)
	says(0, 0, 0, 5, wire.Have, 0, 0, 0, 1)
	wantedAre(0, 2)
	says(0, 0, 0, 1, wire.Unchoke)
	wantedAre(0, 1, 2)
	says(append([]byte{0, 0, 0, 1 + byte((i.Pieces()+7)/8), wire.Bitfield}, bytes.Repeat([]byte{255}, (i.Pieces()+7)/8)...)...)
	for late := time.After(time.Minute); ; {
		s.picking.mu.Lock()
		known := len(s.picking.askers) == 1
		for p := range s.picking.askers {
			known = known && p.Announced() == i.Pieces()
		}
		s.picking.mu.Unlock()
		if known {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatal("the bitfield has not been heard")
		}
	}
	engineKnows(1, 2)
	s.nudge()
	wantedAre(0, 1, 2)
}

// Two who have everything need no connection.
func TestWhoHasEverythingIsLetGo(t *testing.T) {
	i, data := newInfo(t)
	file := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes [2]*Node
	for k := range nodes {
		n, err := New(Config{Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		nodes[k] = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := nodes[0].Seed(ctx, i, file, nil); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "dst")
	if _, err := nodes[1].Fetch(ctx, i, dst, FetchOptions{Peers: []string{nodes[0].Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	for s := nodes[1].share(i.Ref().Infohash); ; time.Sleep(time.Millisecond) {
		if _, peers := s.count(); peers == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the seed is still connected")
		}
	}
}
