package gossip_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/gossip"
)

// A slow link is no fault: parts that were asked for twice come twice, and of a neighbour
// that has more to do some do not come at all.
func TestSlowHonestNeighbourIsNoFault(t *testing.T) {
	body := append([]byte("good 7 "), make([]byte, 200<<10)...)
	rows := []struct {
		name string
		want func() func(w *wire, want []byte)
	}{
		{"parts-come-late-and-twice", func() func(w *wire, want []byte) {
			var mu sync.Mutex // guards what follows
			var stuck [][]byte
			free := time.Now().Add(16 * time.Second) // which is longer than anyone has patience
			return func(w *wire, want []byte) {
				mu.Lock()
				defer mu.Unlock()
				if !time.Now().Before(free) {
					w.back.Send(answer(want, body))
					return
				}
				if stuck = append(stuck, want); len(stuck) > 1 {
					return
				}
				time.AfterFunc(time.Until(free), func() {
					mu.Lock()
					defer mu.Unlock()
					for _, want := range stuck {
						w.back.Send(answer(want, body))
					}
				})
			}
		}},
		{"some-parts-are-left-out", func() func(w *wire, want []byte) {
			left := 3
			return func(w *wire, want []byte) {
				if binary.BigEndian.Uint32(want[18:]) == 15<<10 && left > 0 {
					left--
					return
				}
				w.back.Send(answer(want, body))
			}
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{}
				a := n.add(nil)
				defer n.close()
				wants := r.want()
				b := n.add(func(w *wire, m []byte) {
					if m[0] == 2 {
						wants(w, m)
					}
				})
				w := link(b, a)
				for range 20 { // it shows that it is there
					w.Send(have(names(7, body)))
					time.Sleep(15 * time.Second)
				}
				if got := a.board.Head().Order.Sequence; got != 7 {
					t.Errorf("it holds %d", got)
				}
				if st := a.member.Stats(); st.Muted+int(st.Faulty) != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// What one source is given in a while is bounded, however often it comes back.
func TestReconnectingDoesNotRaiseTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		a := n.add(nil)
		defer n.close()
		a.publish(7, gossip.MaxManifest-100)
		b := n.add(func(*wire, []byte) {})
		for range 20 {
			w := link(b, a)
			w.Send(have(gossip.Head{Root: 1}))
			for range 4 {
				for offset := uint32(0); offset < gossip.MaxManifest; offset += 15 << 10 {
					want := []byte{2, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7}
					w.Send(binary.BigEndian.AppendUint32(want, offset))
					if offset%(60<<10) == 0 {
						time.Sleep(50 * time.Millisecond)
					}
				}
			}
			w.Close()
			time.Sleep(100 * time.Millisecond)
		}
		if got := a.member.Stats().SentBytes; got > 20<<20 {
			t.Errorf("%d bytes in %s", got, 80*time.Second)
		}
	})
}
