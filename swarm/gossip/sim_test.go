package gossip_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/gossip"
	"shoal/swarm/swarmtest"
)

// network is one in a simulation: time passes only when everyone waits.
type network struct {
	mu      sync.Mutex // guards what follows
	members []*node
	cut     func(a, b *node) bool // messages between them are lost
	bytes   int64
	latest  time.Time
}

type node struct {
	net    *network
	name   string
	side   int
	board  *swarmtest.Board
	member *gossip.Member // nil for one that a test plays
	hears  func(*wire, []byte)
}

// wire is a link to one neighbour, and back. What is sent arrives in order.
type wire struct {
	from, to *node
	back     *wire
	order    sync.Mutex        // held while one message is delivered
	mu       sync.Mutex        // guards what follows
	end      *gossip.Neighbour // of this wire, at its other end
	closed   bool
	under    []packet // what is on its way
}

type packet struct {
	b   []byte
	due time.Time
}

const latency = 20 * time.Millisecond

func (w *wire) Send(b []byte) {
	n := w.from.net
	n.mu.Lock()
	n.bytes += int64(len(b))
	lost := n.cut != nil && n.cut(w.from, w.to)
	n.mu.Unlock()
	if lost || w.isClosed() {
		return
	}
	p := packet{b, time.Now().Add(latency)}
	w.mu.Lock()
	last := len(w.under) - 1
	together := last >= 0 && w.under[last].due.Equal(p.due)
	w.under = append(w.under, p)
	w.mu.Unlock()
	if !together {
		time.AfterFunc(latency, w.deliver)
	}
}

// deliver delivers what is due.
func (w *wire) deliver() {
	w.order.Lock()
	defer w.order.Unlock()
	for {
		w.mu.Lock()
		if len(w.under) == 0 || w.under[0].due.After(time.Now()) || w.closed {
			w.mu.Unlock()
			return
		}
		b, end := w.under[0].b, w.end
		w.under = w.under[1:]
		w.mu.Unlock()
		if w.to.member == nil {
			w.to.hears(w, b)
		} else if end != nil {
			end.Deliver(b)
		}
	}
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *wire) Backlog() int { return 0 }

// lead sets whom the wire leads to.
func (w *wire) lead(end *gossip.Neighbour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = end
}

// Close ends both directions.
func (w *wire) Close() {
	for _, o := range []*wire{w, w.back} {
		o.mu.Lock()
		o.closed = true
		end := o.end
		o.mu.Unlock()
		if end != nil {
			end.Leave()
		}
	}
}

// add adds a member, or one that the test plays if hears is given.
func (n *network) add(hears func(*wire, []byte)) *node {
	m := &node{net: n, name: fmt.Sprint("m", len(n.members)), side: len(n.members) % 2, board: swarmtest.NewBoard(), hears: hears}
	if hears == nil {
		m.member = gossip.New(gossip.Config{Board: m.board})
		m.board.Changed = func(gossip.Head) {
			n.mu.Lock()
			n.latest = time.Now()
			n.mu.Unlock()
		}
	}
	n.members = append(n.members, m)
	return m
}

// link joins two, unless one has muted the other. It returns the way from a to b.
func link(a, b *node) *wire {
	there, back := &wire{from: a, to: b}, &wire{from: b, to: a}
	there.back, back.back = back, there
	if b.member != nil {
		there.lead(b.member.Join(a.name, back))
	}
	if a.member != nil {
		back.lead(a.member.Join(b.name, there))
	}
	return there
}

func (n *network) close() {
	for _, m := range n.members {
		if m.member != nil {
			m.member.Close()
		}
	}
	time.Sleep(latency) // what is under way
}

func (m *node) publish(sequence uint64, size int) []byte {
	body := append(fmt.Appendf(nil, "good %d ", sequence), make([]byte, size)...)
	m.board.Put(sequence, body)
	m.member.Changed()
	return body
}

func (n *network) sent() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bytes
}

// last is when a board changed last.
func (n *network) last() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest
}

func (n *network) holding(sequence uint64) (count int) {
	for _, m := range n.members {
		if m.member != nil && m.board.Head().Order.Sequence >= sequence {
			count++
		}
	}
	return count
}

// crowd adds members that each link to ten others at random.
func (n *network) crowd(size int) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range size {
		m := n.add(nil)
		for range min(i, 10) {
			link(m, n.members[r.IntN(i)])
		}
	}
}

// Everyone holds what one has published, after as many steps as the logarithm of their
// number, and each asked for it about once.
func TestNewsReachesEveryone(t *testing.T) {
	for _, size := range []int{2, 100} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { spread(t, size) })
	}
}

// TestLongThousand is the same for more.
func TestLongThousand(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("simulates up to a thousand members; SHOAL_LONG=1 runs it")
	}
	for _, size := range []int{200, 1000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { spread(t, size) })
	}
}

func spread(t *testing.T, size int) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.crowd(size)
		defer n.close()
		time.Sleep(time.Minute)
		before := n.sent()
		time.Sleep(time.Minute)
		if idle := float64(n.sent()-before) / 60 / float64(size); idle > 512 {
			t.Errorf("%.0f bytes/s of an idle member", idle)
		} else {
			t.Logf("%.0f bytes/s of an idle member", idle)
		}
		began := time.Now()
		n.members[0].publish(1, 4096)
		time.Sleep(2 * time.Second)
		if got := n.holding(1); got != size {
			t.Fatalf("%d of %d hold it after 2 s", got, size)
		}
		offers := 0
		for _, m := range n.members {
			offers += m.board.Offers()
		}
		if offers > size+size/10 {
			t.Errorf("%d documents were brought to %d members", offers, size)
		}
		t.Logf("%d members hold it after %s of %s each way", size, n.last().Sub(began), latency)
	})
}

// Messages of links that are cut are lost. Then the links are, and new ones come.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{cut: func(a, b *node) bool { return a.side != b.side }}
		n.crowd(40)
		defer n.close()
		time.Sleep(time.Second)
		n.members[0].publish(1, 100)
		n.members[1].publish(2, 100)
		time.Sleep(time.Minute)
		if n.holding(1) != 40 || n.holding(2) != 20 {
			t.Fatalf("%d hold 1 and %d hold 2 while the network is split", n.holding(1), n.holding(2))
		}
		n.mu.Lock()
		n.cut = nil
		n.mu.Unlock()
		link(n.members[2], n.members[3]) // what keepers of neighbours do
		time.Sleep(2 * time.Second)
		if n.holding(2) != 40 {
			t.Errorf("%d hold 2", n.holding(2))
		}
	})
}

// Links that have become silent are closed, so that others can take their place.
func TestSilentNeighbourIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		a := n.add(nil)
		defer n.close()
		dead := n.add(func(*wire, []byte) {})
		w := link(dead, a)
		w.Send(have(gossip.Head{Root: 1}))
		time.Sleep(time.Minute)
		if !w.isClosed() {
			t.Error("a dead link is kept")
		}
	})
}

func have(h gossip.Head) []byte {
	b := []byte{1, 1}
	for _, v := range []uint64{h.Root, h.Order.Epoch, h.Order.Sequence} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(append(b, h.Manifest[:]...), h.Size)
	return binary.BigEndian.AppendUint64(b, h.Beacon)
}

// names is a have that names body as the manifest with a sequence.
func names(sequence uint64, body []byte) gossip.Head {
	return gossip.Head{Root: 1, Order: gossip.Order{Epoch: 1, Sequence: sequence}, Manifest: sha256.Sum256(body), Size: uint32(len(body))}
}

// answer is the part that a want asks for.
func answer(want, body []byte) []byte {
	offset := binary.BigEndian.Uint32(want[18:])
	b := append([]byte{3}, want[1:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body[offset:min(len(body), int(offset)+15<<10)]...)
}

// A crowd of attackers, each with a trick of its own, surrounds one member that has one
// honest neighbour. None of them keeps the news away, or costs more than its bounds.
func TestAttackersAroundOne(t *testing.T) {
	good := func() []byte { return append([]byte("good 7 "), make([]byte, 40<<10)...) }
	rows := []struct {
		name  string
		muted bool
		greet func(w *wire) // when it is linked
		want  func(w *wire, want []byte)
	}{
		{"never-delivers", false,
			func(w *wire) { w.Send(have(names(7, good()))) },
			func(w *wire, want []byte) {}},
		{"malleated-copies", true, nil,
			func(w *wire, want []byte) {
				bad := good()
				copy(bad, "evil")
				w.back.Send(answer(want, bad))
				w.back.Send(have(names(100+rand.Uint64N(1000), bad)))
			}},
		{"other-size-than-announced", true, nil,
			func(w *wire, want []byte) {
				w.back.Send(answer(want, append(good(), 1)))
				w.back.Send(have(names(100+rand.Uint64N(1000), good())))
			}},
		{"endless-roots", false,
			func(w *wire) { w.Send(have(gossip.Head{Root: 1 << 40})) },
			func(w *wire, want []byte) { w.back.Send(append([]byte{3}, append(want[1:], 0, 0, 0, 0)...)) }},
		{"slow-sender", false,
			func(w *wire) {
				h := names(1<<40, good())
				h.Size = gossip.MaxManifest
				w.Send(have(h))
			},
			func(w *wire, want []byte) {
				time.AfterFunc(9*time.Second, func() { w.back.Send(answer(want, make([]byte, gossip.MaxManifest))) })
			}},
		{"flood-of-hints", true,
			func(w *wire) {
				h := names(0, good())
				for h.Order.Sequence = 1000; h.Order.Sequence < 6000; h.Order.Sequence++ {
					w.Send(have(h))
				}
			},
			func(w *wire, want []byte) {}},
		{"nonsense", true,
			func(w *wire) {
				for range 10 {
					w.Send([]byte("GET / HTTP/1.1"))
				}
			},
			func(w *wire, want []byte) {}},
		{"flood-of-wants", true,
			func(w *wire) {
				w.Send(have(gossip.Head{Root: 1}))
				for range 5000 {
					w.Send([]byte{2, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0})
				}
			},
			func(w *wire, want []byte) {}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{}
				victim, honest := n.add(nil), n.add(nil)
				defer n.close()
				for range 20 {
					a := n.add(func(w *wire, b []byte) {
						if b[0] == 2 {
							r.want(w, b)
						}
					})
					w := link(a, victim)
					if r.greet != nil {
						r.greet(w)
					} else {
						w.Send(have(names(7, good())))
					}
				}
				time.Sleep(time.Second)
				link(honest, victim)
				honest.board.Put(6, []byte("good 6"))
				honest.member.Changed()
				time.Sleep(time.Second)
				honest.board.Put(7, good())
				honest.member.Changed()
				time.Sleep(2 * time.Minute)
				if got := victim.board.Head().Order.Sequence; got != 7 {
					t.Errorf("the victim holds %d; %+v", got, victim.member.Stats())
				}
				st := victim.member.Stats()
				if r.muted && st.Muted == 0 || !r.muted && st.Muted > 0 {
					t.Errorf("%d are muted: %+v", st.Muted, st)
				}
				if st.Faulty > 3*20 || victim.board.Offers() > 4*20 {
					t.Errorf("the board was asked %d times: %+v", victim.board.Offers(), st)
				}
				if st.SentBytes > 20*(2<<20)+1<<20 {
					t.Errorf("%d bytes were sent", st.SentBytes)
				}
			})
		})
	}
}

// Honest neighbours with other roots or clocks are not held to it: what they give is not
// taken, and not asked for again and again.
func TestHonestDifferencesAreNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		a, b := n.add(nil), n.add(nil)
		defer n.close()
		var takes atomic.Bool
		a.board.Judge = func(gossip.Document) gossip.Verdict {
			if takes.Load() {
				return gossip.Taken
			}
			return gossip.Passed
		}
		link(a, b)
		b.publish(5, 10)
		time.Sleep(4 * time.Minute)
		if a.board.Offers() != 1 {
			t.Errorf("it was offered %d times", a.board.Offers())
		}
		if st := a.member.Stats(); st.Muted+int(st.Faulty) != 0 {
			t.Errorf("%+v", st)
		}
		takes.Store(true)
		time.Sleep(4 * time.Minute)
		if a.board.Head().Order.Sequence != 5 {
			t.Error("it was never asked for again")
		}
	})
}

// Roots come one after the other, before the manifest.
func TestRootsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		a := n.add(nil)
		defer n.close()
		var asked []string
		var mu sync.Mutex
		head := names(9, []byte("good 9"))
		head.Root = 3
		b := n.add(func(w *wire, m []byte) {
			if m[0] == 2 {
				mu.Lock()
				asked = append(asked, fmt.Sprintf("%d.%d", m[1], binary.BigEndian.Uint64(m[10:])))
				mu.Unlock()
				w.back.Send(answer(m, []byte("good 9")))
			}
		})
		root := uint64(1)
		a.board.Judge = func(d gossip.Document) gossip.Verdict {
			if d.Name.Kind == gossip.Root {
				root = d.Name.Number
				a.board.SetRoot(root)
			}
			return gossip.Taken
		}
		link(b, a).Send(have(head))
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if got := fmt.Sprint(asked); got != "[1.2 1.3 2.9]" {
			t.Errorf("asked for %s", got)
		}
	})
}
