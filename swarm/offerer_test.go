package swarm

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/superseed"
	"shoal/swarm/wire"
)

// superPipe is pipe with a connection of a torrent of that many pieces that is super
// seeded. Its infohash is that of handshake.
func superPipe(t *testing.T, pieces int, l Limits) (c *conn, peer net.Conn, share *superShare) {
	c, peer = pipe(t, l)
	share = &superShare{s: superseed.New(pieces, func(int) int64 { return 16 << 10 })}
	c.super = newOfferer(c, func(infohash [20]byte) *superShare {
		if string(infohash[:]) != string(handshake()[28:48]) {
			return nil
		}
		return share
	})
	return c, peer, share
}

func have(piece uint32) []byte {
	return message(wire.Have, binary.BigEndian.AppendUint32(nil, piece)...)
}

// told reads haves until there are n, and returns their pieces in order.
func told(t *testing.T, peer net.Conn, n int) (pieces []int) {
	t.Helper()
	for range n {
		m := make([]byte, wire.HaveLen)
		if _, err := io.ReadFull(peer, m); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m[:5], []byte{0, 0, 0, 5, wire.Have}) {
			t.Fatalf("the peer is told %x, want a have", m)
		}
		pieces = append(pieces, int(binary.BigEndian.Uint32(m[5:])))
	}
	slices.Sort(pieces)
	return slices.Compact(pieces)
}

func TestSuperSeedTellsOfNothingAtFirst(t *testing.T) {
	none := message(wire.HaveNone)
	extended := message(20, []byte("de")...)
	for _, test := range []struct {
		name         string
		says, passes []byte
		offers       bool
	}{
		{"have-all", slices.Concat(extended, message(wire.HaveAll)), slices.Concat(extended, none), true},
		{"bitfield-without-the-fast-extension", slices.Concat(extended, message(wire.Bitfield, 0xff, 0x80)), extended, true},
		{"allowed-fast", slices.Concat(message(wire.HaveAll), message(wire.AllowedFast, 0, 0, 0, 3), extended), slices.Concat(none, extended), true},
		{"not-everything-can-be-read", message(wire.Bitfield, 0xff, 0x00), message(wire.Bitfield, 0xff, 0x00), false},
		{"another-message-first", slices.Concat(message(0), message(wire.HaveAll)), slices.Concat(message(0), none), true},
	} {
		for _, cut := range []int{1, 7, 1000} {
			synctest.Test(t, func(t *testing.T) {
				c, peer, _ := superPipe(t, 9, Limits{})
				go func() {
					for b := range slices.Chunk(slices.Concat(handshake(), test.says), cut) {
						c.Write(b)
					}
				}()
				haves := 0
				if test.offers {
					haves = superseed.FirstOffers
				}
				got := make([]byte, wire.HandshakeLen+len(test.passes)+haves*wire.HaveLen)
				if _, err := io.ReadFull(peer, got); err != nil {
					t.Fatal(err)
				}
				msgs, _ := split(got)
				msgs = slices.DeleteFunc(msgs, func(m []byte) bool { return len(m) == wire.HaveLen && m[4] == wire.Have })
				if all := slices.Concat(msgs...); !bytes.Equal(all, test.passes) {
					t.Errorf("%s, in parts of %d: the peer is told %x, want %x", test.name, cut, all, test.passes)
				}
			})
		}
	}
}

func TestSuperSeedOffersWhatIsLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, _ := superPipe(t, 9, Limits{})
		// The peer's pieces come before our handshake is out: it dialled us.
		go peer.Write(slices.Concat(handshake(), message(wire.Bitfield, 0xf0, 0x80)))
		go io.Copy(io.Discard, c)
		synctest.Wait()
		go c.Write(slices.Concat(handshake(), message(wire.HaveAll)))
		io.ReadFull(peer, make([]byte, wire.HandshakeLen+5))
		if got := told(t, peer, 4); !slices.Equal(got, []int{4, 5, 6, 7}) {
			t.Errorf("the peer is told of %v, want what it lacks", got)
		}
	})
}

func TestSuperSeedTwoPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, peerA, share := superPipe(t, 8, Limits{})
		b, peerB, _ := superPipe(t, 8, Limits{})
		b.super.find = a.super.find
		for _, x := range []struct {
			c    *conn
			peer net.Conn
		}{{a, peerA}, {b, peerB}} {
			go io.Copy(io.Discard, x.c)
			go x.c.Write(slices.Concat(handshake(), message(wire.HaveAll)))
			io.ReadFull(x.peer, make([]byte, wire.HandshakeLen+5))
			go x.peer.Write(handshake())
			synctest.Wait()
		}
		toldA, toldB := told(t, peerA, 4), told(t, peerB, 4)
		if all := slices.Sorted(slices.Values(slices.Concat(toldA, toldB))); len(slices.Compact(all)) != 8 {
			t.Fatalf("one is told of %v, the other of %v: not everything", toldA, toldB)
		}
		// A peer that leaves without them gives its pieces to the other.
		peerA.Close()
		a.Close()
		for _, piece := range toldB {
			go peerB.Write(have(uint32(piece)))
		}
		if got := told(t, peerB, 4); !slices.Equal(got, toldA) {
			t.Errorf("the one that stays is told of %v, want %v", got, toldA)
		}
		for _, piece := range toldA {
			go peerB.Write(have(uint32(piece)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		share.mu.Lock()
		defer share.mu.Unlock()
		if share.ticking {
			t.Error("a clock runs for nobody")
		}
	})
}

func TestSuperSeedAndUploadLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, share := superPipe(t, 4, Limits{LANUp: 8 << 10}) // a block takes 2 s
		go c.Write(slices.Concat(handshake(), message(wire.HaveAll)))
		io.ReadFull(peer, make([]byte, wire.HandshakeLen+5))
		told(t, peer, 4)
		go peer.Write(slices.Concat(handshake(), request(0), request(1), request(2), request(3)))
		go io.Copy(io.Discard, peer)
		go func() { // the engine answers what it is shown
			io.ReadFull(c, make([]byte, wire.HandshakeLen))
			for r := make([]byte, wire.RequestLen); ; {
				if _, err := io.ReadFull(c, r); err != nil {
					return
				}
				c.Write(message(wire.Piece, append(r[5:13:13], make([]byte, 16<<10)...)...))
			}
		}()
		time.Sleep(7 * time.Second)
		synctest.Wait()
		_, p := c.super.attached()
		share.mu.Lock()
		defer share.mu.Unlock()
		if n := p.Offers(); n != 4 {
			t.Errorf("%d of 4 offers are open while it is us who do not answer", n)
		}
	})
}

func TestSuperSeedLeavesObfuscatedPeersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, share := superPipe(t, 4, Limits{})
		says := slices.Concat(make([]byte, 100), message(wire.HaveAll))
		go c.Write(says)
		got := make([]byte, len(says))
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, says) {
			t.Errorf("the peer is told %x, %v", got, err)
		}
		if share.s.Peers() != 0 {
			t.Error("it is counted as a peer")
		}
	})
}

// FuzzOfferer checks that whatever a peer says is passed on, and that what the engine
// says reaches it but for what is said of pieces, however both are cut.
func FuzzOfferer(f *testing.F) {
	f.Add(slices.Concat(handshake(), message(wire.HaveAll), request(1), have(3), message(20, 1, 2)), uint16(7))
	f.Add(slices.Concat(handshake(), message(wire.Bitfield, 0xff, 0x80), have(1<<31), have(8), cancel(3)), uint16(3))
	f.Add(slices.Concat(handshake(), message(wire.Bitfield), message(wire.Have), message(wire.Piece, 1, 2), message(wire.Piece, make([]byte, 40)...)), uint16(1))
	f.Add(append(handshake(), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		c, peer, _ := superPipe(t, 9, Limits{})
		var theirs bytes.Buffer
		heard := make(chan struct{})
		go func() {
			io.Copy(&theirs, peer)
			close(heard)
		}()
		for b := range slices.Chunk(stream, 1+int(cut)%5000) {
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			c.super.received(b)
		}
		c.Close()
		<-heard
		said, _ := split(stream)
		got, _ := split(theirs.Bytes())
		about := func(m []byte) bool {
			return len(m) > 4 && slices.Contains([]byte{wire.Have, wire.Bitfield, wire.HaveAll, wire.HaveNone, wire.AllowedFast}, m[4])
		}
		said, got = slices.DeleteFunc(said, about), slices.DeleteFunc(got, about)
		if !slices.EqualFunc(said, got, bytes.Equal) {
			t.Fatalf("%x became %x", stream, theirs.Bytes())
		}
	})
}

// What a peer has, it says once, after the handshake; saying it again and again would have
// all pieces counted anew each time.
func TestPeerSaysOnceWhatItBrings(t *testing.T) {
	share := &superShare{s: superseed.New(8, func(int) int64 { return 1 })}
	o := newOfferer(nil, func([20]byte) *superShare { return share })
	o.attach([20]byte{})
	o.seeIncoming(wire.Bitfield, 6, []byte{0, 0, 0, 2, wire.Bitfield, 0x80})
	o.seeIncoming(wire.HaveAll, 5, []byte{0, 0, 0, 1, wire.HaveAll})
	o.seeIncoming(wire.Bitfield, 6, []byte{0, 0, 0, 2, wire.Bitfield, 0xff})
	share.mu.Lock()
	defer share.mu.Unlock()
	if n := o.peer.Lacks(); n != 7 {
		t.Errorf("the peer lacks %d of 8 pieces, want 7", n)
	}
}
