package swarm_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/fleet"
	"shoal/swarm/gossip"
)

// newsPeer is somebody who speaks the protocol, and says what a test wants.
type newsPeer struct {
	net.Conn
	t *testing.T
}

// dialNews connects to a follower, as one who listens on a port of its own.
func dialNews(t *testing.T, f *follower, port int) *newsPeer {
	t.Helper()
	return dialNewsAs(t, f, nil, port)
}

// dialNewsAs does so as a member of a fleet with a key, unless m is nil.
func dialNewsAs(t *testing.T, f *follower, m *fleet.Member, port int) *newsPeer {
	t.Helper()
	c, err := net.Dial("tcp", f.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	if m != nil {
		c = tls.Client(c, m.Dialling())
	}
	p := &newsPeer{c, t}
	infohash := topic.Infohash()
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x00"), infohash[:]...)
	p.Write(append(hello, fmt.Sprintf("-XX0000-%012d", port)...))
	if _, err := io.ReadFull(c, make([]byte, 68)); err != nil {
		t.Fatal(err)
	}
	p.extended(0, fmt.Appendf(nil, "d1:md10:shoal_newsi7e6:ut_pexi8ee13:metadata_sizei16000000e1:pi%dee", port))
	return p
}

// extended sends a message of an extension; errors show when it should be read.
func (p *newsPeer) extended(id byte, payload []byte) {
	b := binary.BigEndian.AppendUint32(nil, uint32(2+len(payload)))
	p.Write(append(append(b, 20, id), payload...))
}

func (p *newsPeer) news(payload []byte) { p.extended(2, payload) }

// next returns the next message of news, or false when the other end hung up.
func (p *newsPeer) next() ([]byte, bool) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(p, head[:]); err != nil {
			return nil, false
		}
		b := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(p, b); err != nil {
			return nil, false
		}
		if len(b) > 2 && b[0] == 20 && b[1] == 7 {
			return b[2:], true
		}
	}
}

func haveOf(h gossip.Head) []byte {
	b := []byte{1, 1}
	for _, v := range []uint64{h.Root, h.Order.Epoch, h.Order.Sequence} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(append(b, h.Manifest[:]...), h.Size)
	return binary.BigEndian.AppendUint64(b, h.Beacon)
}

func headOf(sequence uint64, body []byte) gossip.Head {
	return gossip.Head{Root: 1, Order: gossip.Order{Epoch: 1, Sequence: sequence}, Manifest: sha256.Sum256(body), Size: uint32(len(body))}
}

// partOf answers a want.
func partOf(want, body []byte) []byte {
	b := append([]byte{3}, want[1:]...)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
}

// Attackers over real connections. They are muted or come to nothing; what one honest
// neighbour publishes arrives.
func TestHostileNews(t *testing.T) {
	evil := func(i uint64) []byte { return fmt.Appendf(nil, "evil %d", i) }
	rows := []struct {
		name  string
		muted bool
		speak func(p *newsPeer)
	}{
		{"flood-of-hints", true, func(p *newsPeer) {
			for i := range uint64(20000) {
				p.news(haveOf(headOf(1000+i, evil(i))))
			}
		}},
		{"malleated-copies", true, func(p *newsPeer) {
			for i := uint64(100); ; i++ {
				p.news(haveOf(headOf(i, evil(i))))
				for {
					m, ok := p.next()
					if !ok {
						return
					}
					if m[0] == 2 {
						p.news(partOf(m, append(evil(i)[:len(evil(i))-1], 'x')))
						break
					}
				}
			}
		}},
		{"nonsense", true, func(p *newsPeer) {
			for range 5 {
				p.news([]byte("nonsense"))
			}
		}},
		{"false-addresses", false, func(p *newsPeer) {
			p.news(haveOf(gossip.Head{Root: 1}))
			var added []byte
			for i := range 500 {
				added = append(added, 127, 0, 0, 1, byte(i>>8), byte(i))
			}
			for range 50 {
				p.extended(1, append(fmt.Appendf(nil, "d5:added%d:", len(added)), append(added, 'e')...))
			}
		}},
		{"never-delivers", false, func(p *newsPeer) { p.news(haveOf(headOf(1<<40, evil(1)))) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			victim := follow(t, swarm.Config{}, swarm.FollowOptions{})
			for i := range 3 {
				p := dialNews(t, victim, 20000+i)
				r.speak(p)
				if r.muted { // it is hung up on, and finds no way back
					for ok := true; ok; {
						_, ok = p.next()
					}
				}
			}
			honest := follow(t, swarm.Config{}, swarm.FollowOptions{Peers: []string{victim.addr()}})
			honest.publish(7)
			victim.wait(t, 7)
			if st := victim.ch.Stats(); r.muted != (st.Muted > 0) {
				t.Errorf("%+v", st)
			}
			if n := victim.board.Offers(); n > 3*3+1 {
				t.Errorf("the board was asked %d times", n)
			}
		})
	}
}

// Whatever port a member says that it listens on, it is the same one, and stays muted.
// Others behind its address are not taken for it.
func TestMemberIsKnownUnderAnyPort(t *testing.T) {
	k := newKeys(t)
	bad, good := member(t, k), member(t, k)
	victim := follow(t, swarm.Config{Fleet: member(t, k)}, swarm.FollowOptions{})
	for i := range 3 {
		p := dialNewsAs(t, victim, bad, 20000+i)
		if i > 0 {
			if _, ok := p.next(); ok {
				t.Errorf("it is heard again, as one who listens on port %d", 20000+i)
			}
			continue
		}
		for range 5 {
			p.news([]byte("nonsense"))
		}
		for ok := true; ok; {
			_, ok = p.next()
		}
	}
	if _, ok := dialNewsAs(t, victim, good, 20000).next(); !ok {
		t.Error("another member behind the same address is not heard")
	}
	if st := victim.ch.Stats(); st.Muted != 1 {
		t.Errorf("%+v", st)
	}
}
