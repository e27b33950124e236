package swarm

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/wire"
)

func haveMsg(pieces ...uint32) (b []byte) {
	for _, p := range pieces {
		b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 5, wire.Have), p)
	}
	return b
}

// A wireLog is the other end of a connection.
type wireLog struct {
	mu   sync.Mutex
	sent []byte
}

func (w *wireLog) write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, b...)
	return len(b), nil
}

// take returns what was sent since it was called last.
func (w *wireLog) take() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := w.sent
	w.sent = nil
	return sent
}

func no() bool { return false }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// What a peer is told of a piece it has can wait, and nothing else.
func TestHavesWait(t *testing.T) {
	hello := append([]byte(wire.Protocol), make([]byte, wire.HandshakeLen-len(wire.Protocol))...)
	request := append([]byte{0, 0, 0, 13, wire.Request}, make([]byte, 12)...)
	interested := []byte{wire.Interested}
	has := func(piece uint32) []byte { return haveMsg(piece)[4:] }
	for _, test := range []struct {
		fact   string
		heard  [][]byte // from the peer
		said   [][]byte // by the engine, after the handshake
		sent   []byte   // at once
		within []byte   // haveDelay
		origin bool
	}{
		{"it lacks the piece", [][]byte{interested, has(1)}, [][]byte{haveMsg(2)}, haveMsg(2), nil, false},
		{"it has the piece", [][]byte{interested, has(1)}, [][]byte{haveMsg(1)}, nil, haveMsg(1), false},
		{"it has all pieces", [][]byte{interested, {wire.HaveAll}}, [][]byte{haveMsg(1), haveMsg(2)}, nil, haveMsg(1, 2), false},
		{"it lacks one of several", [][]byte{interested, has(1)}, [][]byte{haveMsg(1, 2)}, haveMsg(1, 2), nil, false},
		{"something else goes the same way", [][]byte{interested, has(1)}, [][]byte{haveMsg(1), request}, join(haveMsg(1), request), nil, false},
		{"news goes the same way", [][]byte{interested, has(1)}, [][]byte{haveMsg(1), haveMsg(2)}, haveMsg(1, 2), nil, false},
		{"it may be a super seed, which wants nothing", [][]byte{has(1)}, [][]byte{haveMsg(1)}, haveMsg(1), nil, false},
		{"it says it has a piece that cannot be", [][]byte{interested, has(maxPieces)}, [][]byte{haveMsg(1)}, haveMsg(1), nil, false},
		{"nothing is said", [][]byte{interested}, [][]byte{{}}, nil, nil, false},
		{"the publisher has offered the piece", [][]byte{has(1)}, [][]byte{haveMsg(1)}, haveMsg(1), nil, true},
		{"the publisher has offered another", [][]byte{has(2)}, [][]byte{haveMsg(1), haveMsg(3)}, nil, haveMsg(1, 3), true},
		{"the publisher hears of both", [][]byte{has(2)}, [][]byte{haveMsg(1), haveMsg(2)}, haveMsg(1, 2), nil, true},
		{"the publisher gives everything to everybody", [][]byte{{wire.HaveAll}}, [][]byte{haveMsg(1)}, haveMsg(1), nil, true},
	} {
		t.Run(test.fact, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var other wireLog
				teller := &teller{send: other.write, origin: func() bool { return test.origin }}
				defer teller.end()
				write := func(b []byte) {
					if n, err := teller.write(b); n != len(b) || err != nil {
						t.Fatalf("write of %d bytes: %d, %v", len(b), n, err)
					}
				}
				write(hello[:30])
				write(hello[30:])
				if sent := other.take(); !bytes.Equal(sent, hello) {
					t.Fatalf("the handshake was changed: %x", sent)
				}
				for _, m := range test.heard {
					teller.heard(int(m[0]), m)
				}
				for _, m := range test.said {
					write(m)
				}
				if sent := other.take(); !bytes.Equal(sent, test.sent) {
					t.Errorf("sent %x at once, want %x", sent, test.sent)
				}
				time.Sleep(haveDelay)
				synctest.Wait()
				if sent := other.take(); !bytes.Equal(sent, test.within) {
					t.Errorf("sent %x later, want %x", sent, test.within)
				}
			})
		})
	}
}

// What goes over an obfuscated connection, or has not come to a boundary between two
// messages, is not ours to change.
func TestHavesWaitInTheClearOnly(t *testing.T) {
	for what, before := range map[string][]byte{
		"obfuscated":            bytes.Repeat([]byte{0xaa}, 96),
		"before the handshake":  nil,
		"in the middle of some": append(append([]byte(wire.Protocol), make([]byte, wire.HandshakeLen-len(wire.Protocol))...), 0, 0, 1, 0, wire.Piece),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var other wireLog
				teller := &teller{send: other.write, origin: no}
				defer teller.end()
				teller.heard(wire.Interested, []byte{wire.Interested})
				teller.heard(wire.HaveAll, []byte{wire.HaveAll})
				teller.write(before)
				teller.write(haveMsg(1))
				if sent, want := other.take(), join(before, haveMsg(1)); !bytes.Equal(sent, want) {
					t.Errorf("sent %x, want %x", sent, want)
				}
			})
		})
	}
}

// A connection that is closed is not written to when its time comes.
func TestHavesEndWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var other wireLog
		teller := &teller{send: other.write, origin: no}
		teller.write(append([]byte(wire.Protocol), make([]byte, wire.HandshakeLen-len(wire.Protocol))...))
		other.take()
		teller.heard(wire.Interested, []byte{wire.Interested})
		teller.heard(wire.HaveAll, []byte{wire.HaveAll})
		teller.write(haveMsg(1))
		teller.end()
		time.Sleep(2 * haveDelay)
		synctest.Wait()
		if sent := other.take(); len(sent) > 0 {
			t.Errorf("sent %x after the end", sent)
		}
	})
}
