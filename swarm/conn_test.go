package swarm

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/wire"
)

// pipe returns a connection as the engine sees it and the peer at its other end.
func pipe(t *testing.T, l Limits) (c *conn, peer net.Conn) {
	t.Helper()
	classes, err := newClassifier(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &transport{
		log: slog.New(slog.DiscardHandler), classes: classes,
		conns: make(map[*conn]struct{}), accepted: make(map[netip.AddrPort]*conn),
	}
	tr.limits.set(l)
	ours, theirs := net.Pipe()
	c = tr.wrap(ours, netip.MustParseAddrPort("127.0.0.1:1000"), true)
	t.Cleanup(func() { c.Close(); theirs.Close() })
	return c, theirs
}

func handshake() []byte {
	return []byte(wire.Protocol + strings.Repeat("r", 8) + strings.Repeat("i", 40))
}

func message(id byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, id), body...)
}

func block(id byte, index, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, index)
	b = binary.BigEndian.AppendUint32(b, 0)
	return message(id, binary.BigEndian.AppendUint32(b, length)...)
}

func request(index uint32) []byte { return block(wire.Request, index, 16<<10) }
func cancel(index uint32) []byte  { return block(wire.Cancel, index, 16<<10) }

// messages reads n messages after the handshake and says when each was there.
func messages(t *testing.T, r io.Reader, n int) (msgs [][]byte, at []time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := io.ReadFull(r, make([]byte, wire.HandshakeLen)); err != nil {
		t.Fatal(err)
	}
	for range n {
		m := make([]byte, 4)
		if _, err := io.ReadFull(r, m); err != nil {
			t.Fatal(err)
		}
		m = append(m, make([]byte, binary.BigEndian.Uint32(m))...)
		if _, err := io.ReadFull(r, m[4:]); err != nil {
			t.Fatal(err)
		}
		msgs, at = append(msgs, m), append(at, time.Since(began))
	}
	return msgs, at
}

func TestUploadLimitHoldsRequestsAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 16 << 10}) // one block a second
		have := message(4, 0, 0, 0, 7)
		go func() {
			peer.Write(handshake())
			for i := range uint32(5) {
				peer.Write(request(i))
			}
			peer.Write(have)
		}()
		msgs, at := messages(t, c, 6)
		want := [][]byte{request(0), have, request(1), request(2), request(3), request(4)}
		if !slices.EqualFunc(msgs, want, bytes.Equal) {
			t.Fatalf("the engine sees %x, want %x", msgs, want)
		}
		if at[1] != 0 {
			t.Errorf("a small message waited %v behind a limit", at[1])
		}
		if at[5] < 3500*time.Millisecond || at[5] > 4500*time.Millisecond {
			t.Errorf("the fifth block of one a second may be sent after %v", at[5])
		}
	})
}

func TestUploadLimitDoesNotHoldWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 1})
		c.tr.limits.lanUp.spend(1 << 30)
		go io.Copy(io.Discard, peer)
		began := time.Now()
		for range 10 {
			if _, err := c.Write(append(handshake(), message(4, 0, 0, 0, 1)...)); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("what the engine says waited %v", waited)
		}
	})
}

func TestCancelOfHeldRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 16 << 10})
		go func() {
			peer.Write(slices.Concat(handshake(), request(0), request(1), request(2), cancel(2)))
		}()
		// The engine is shown the second with its cancel, to answer as it likes, and
		// what is cancelled costs nothing of the limit.
		msgs, at := messages(t, c, 4)
		want := [][]byte{request(0), request(2), cancel(2), request(1)}
		if !slices.EqualFunc(msgs, want, bytes.Equal) {
			t.Fatalf("the engine sees %x, want %x", msgs, want)
		}
		if at[2] != 0 || at[3] > 1100*time.Millisecond {
			t.Errorf("seen after %v", at)
		}
	})
}

func TestLimitLiftedWhileRequestsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 1})
		go func() {
			peer.Write(slices.Concat(handshake(), request(0), request(1), request(2)))
			synctest.Wait()
			c.tr.limits.set(Limits{})
		}()
		msgs, at := messages(t, c, 3)
		if !slices.EqualFunc(msgs, [][]byte{request(0), request(1), request(2)}, bytes.Equal) || at[2] != 0 {
			t.Errorf("the engine sees %x after %v", msgs, at)
		}
	})
}

func TestHeldRequestsGoBetweenMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 16 << 10})
		piece := message(wire.Piece, make([]byte, wire.PieceHeaderLen-1+16<<10)...)
		go func() {
			// A peer that never stops sending, in writes that end anywhere.
			all := slices.Concat(handshake(), request(0), request(1), request(2))
			all = append(all, bytes.Repeat(piece, 20)...)
			for len(all) > 0 {
				n := min(5000, len(all))
				time.Sleep(100 * time.Millisecond)
				peer.Write(all[:n])
				all = all[n:]
			}
		}()
		msgs, _ := messages(t, c, 23)
		var seen int
		for _, m := range msgs[:22] {
			if m[4] == wire.Request {
				seen++
			} else if !bytes.Equal(m, piece) {
				t.Fatalf("a message of %d bytes was changed", len(m))
			}
		}
		if seen != 3 {
			t.Errorf("%d of 3 requests came through while the peer was sending", seen)
		}
	})
}

func TestDownloadLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blocks = 20
		c, peer := pipe(t, Limits{LANDown: 32 << 10})
		piece := message(wire.Piece, make([]byte, wire.PieceHeaderLen-1+16<<10)...)
		go peer.Write(append(handshake(), bytes.Repeat(piece, blocks)...))
		_, at := messages(t, c, blocks)
		if last := at[blocks-1]; last < 9*time.Second || last > 10*time.Second {
			t.Errorf("320 KiB at 32 KiB a second took %v", last)
		}
	})
}

func TestDownloadLimitSparesPeersThatBringNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANDown: 1})
		c.tr.limits.lanDown.spend(1 << 20) // by others
		go peer.Write(append(handshake(), bytes.Repeat(message(4, 0, 0, 0, 1), 100)...))
		if _, at := messages(t, c, 100); at[99] != 0 {
			t.Errorf("small messages waited %v", at[99])
		}
	})
}

func TestObfuscatedConnectionIsPacedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 10 << 10, LANDown: 10 << 10})
		go io.Copy(io.Discard, peer)
		go peer.Write(make([]byte, 50<<10))
		began := time.Now()
		if _, err := c.Write(make([]byte, 50<<10)); err != nil {
			t.Fatal(err)
		}
		wrote := time.Since(began)
		if _, err := io.ReadFull(c, make([]byte, 50<<10)); err != nil {
			t.Fatal(err)
		}
		read := time.Since(began) - wrote
		if wrote < 3*time.Second || wrote > 5*time.Second || read < 3*time.Second || read > 5*time.Second {
			t.Errorf("50 KiB at 10 KiB a second: written in %v, read in %v", wrote, read)
		}
	})
}

func TestReadDeadlineSurvivesBeingWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 16 << 10})
		go peer.Write(slices.Concat(handshake(), request(0), request(1)))
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		began := time.Now()
		messages(t, c, 2) // the second comes after a second, by a wake-up
		_, err := c.Read(make([]byte, 1<<16))
		if waited := time.Since(began); !os.IsTimeout(err) || waited != 10*time.Second {
			t.Errorf("got %v after %v, want a timeout after 10 s", err, waited)
		}
	})
}

func TestCloseWakesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pipe(t, Limits{LANUp: 1, LANDown: 1})
		c.tr.limits.lanDown.spend(1 << 30)
		go peer.Write(slices.Concat(handshake(), request(0), request(1), message(wire.Piece, make([]byte, 100)...), make([]byte, 100)))
		go func() {
			time.Sleep(time.Second)
			c.Close()
		}()
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Error("reading went on")
		}
		synctest.Wait()
		if len(c.tr.limits.lanUp.queue) != 0 {
			t.Error("a closed connection stands in line")
		}
	})
}

// The engine sets a deadline first of all, and panics if it cannot.
func TestDeadlineOfClosedConnection(t *testing.T) {
	tr := newTestTransport(t)
	_, c := dial(t, tr)
	c.Close()
	for name, set := range map[string]func(time.Time) error{
		"both": c.SetDeadline, "read": c.SetReadDeadline, "write": c.SetWriteDeadline,
	} {
		if err := set(time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a closed connection can be read")
	}
}

// FuzzConn checks that every stream passes unchanged without a limit, and that with one
// no message is lost, changed or invented, however the stream is cut.
// What cannot be sent must not use up the limit that everyone shares, nor pass it by.
func TestRequestsNobodyWouldMakeEndTheConnection(t *testing.T) {
	tooMany := handshake()
	for i := range uint32(maxHeld + 1000) {
		tooMany = append(tooMany, request(i)...)
	}
	rows := []struct {
		name string
		sent []byte
	}{
		{"larger-than-any-block", slices.Concat(handshake(), block(wire.Request, 0, 1<<32-1))},
		{"just-larger-than-any-block", slices.Concat(handshake(), block(wire.Request, 0, maxBlock+1))},
		{"nothing", slices.Concat(handshake(), block(wire.Request, 0, 0))},
		{"more-than-are-held-back", tooMany},
		{"piece-larger-than-any-block", slices.Concat(handshake(), []byte{0, 0x0f, 0, 0, wire.Piece, 0, 0, 0, 0, 0, 0, 0, 0})},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c, peer := pipe(t, Limits{Up: 1 << 10, Down: 1 << 10, LANUp: 1 << 10, LANDown: 1 << 10})
			go func() {
				peer.Write(r.sent)
				peer.Write(message(0)) // what follows is not heard
			}()
			got, err := io.ReadAll(c)
			if err == nil {
				t.Error("the connection ended as if the peer had ended it")
			}
			if shown := (len(got) - wire.HandshakeLen) / wire.RequestLen; shown > 1 {
				t.Errorf("at 1 KiB/s the engine was shown %d requests of 16 KiB at once", shown)
			}
			up, down := c.tr.limits.of(c.Class())
			for name, b := range map[string]*bucket{"up": up, "down": down} {
				b.mu.Lock()
				if b.balance < -(16 << 10) {
					t.Errorf("%s: %.0f bytes were spent", name, -b.balance)
				}
				b.mu.Unlock()
			}
		})
	}
}

func FuzzConn(f *testing.F) {
	f.Add(slices.Concat(handshake(), request(1), message(4, 0, 0, 0, 7), cancel(1)), uint16(7))
	f.Add(slices.Concat(handshake(), message(wire.Piece, make([]byte, 300)...), request(1), request(2), cancel(2), request(3)), uint16(100))
	f.Add([]byte("\x13BitTorrent protocoX"), uint16(3))
	f.Add(append(handshake(), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		run := func(l Limits) []byte {
			c, peer := pipe(t, l)
			defer c.Close()
			go func() {
				for rest := stream; len(rest) > 0; {
					n := min(len(rest), 1+int(cut)%5000)
					peer.Write(rest[:n])
					rest = rest[n:]
				}
				if l != (Limits{}) {
					c.tr.limits.set(Limits{}) // let go what is held
				}
				peer.Close()
			}()
			var got bytes.Buffer
			if _, err := io.CopyBuffer(&got, struct{ io.Reader }{c}, make([]byte, 100+int(cut))); err != nil && err != io.ErrClosedPipe {
				t.Fatal(err)
			}
			return got.Bytes()
		}
		if got := run(Limits{}); !bytes.Equal(got, stream) {
			t.Fatalf("without a limit %x became %x", stream, got)
		}
		limited := run(Limits{LANUp: 1})
		if len(limited) > len(stream) {
			t.Fatalf("%x became %x", stream, limited)
		}
		whole, rest := split(stream)
		gotWhole, gotRest := split(limited)
		if !bytes.HasSuffix(gotRest, rest) && !bytes.Equal(gotRest, rest) {
			t.Fatalf("the end of %x became that of %x", stream, limited)
		}
		// Requests still held when the peer went are of no use to anyone.
		for _, m := range gotWhole {
			i := slices.IndexFunc(whole, func(w []byte) bool { return bytes.Equal(w, m) })
			if i < 0 {
				t.Fatalf("message %x was invented: %x became %x", m, stream, limited)
			}
			whole = slices.Delete(whole, i, i+1)
		}
		for _, m := range whole {
			if len(m) != wire.RequestLen {
				t.Fatalf("message %x was lost: %x became %x", m, stream, limited)
			}
		}
	})
}

// split cuts a stream into the handshake with whole messages, and what is left.
func split(b []byte) (msgs [][]byte, rest []byte) {
	if len(b) < wire.HandshakeLen || string(b[:len(wire.Protocol)]) != wire.Protocol {
		return nil, b
	}
	b = b[wire.HandshakeLen:]
	for len(b) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(b))
		if n > 4+wire.MaxMessage || n > len(b) {
			break
		}
		msgs, b = append(msgs, b[:n]), b[n:]
	}
	return msgs, b
}
