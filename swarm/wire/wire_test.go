package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

func handshake() []byte { return []byte(Protocol + strings.Repeat("r", 8) + strings.Repeat("i", 40)) }

func message(id byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, id), body...)
}

// split cuts a stream into whole messages, by the letter of the protocol, and says what
// is left where it cannot go on. A stream without a handshake has neither.
func split(b []byte) (msgs [][]byte, rest []byte) {
	if len(b) < HandshakeLen || !plain(b) {
		return nil, nil
	}
	for b = b[HandshakeLen:]; len(b) >= 4; {
		n := int64(4) + int64(binary.BigEndian.Uint32(b))
		if n > 4+MaxMessage || n > int64(len(b)) {
			break
		}
		msgs, b = append(msgs, b[:n]), b[n:]
	}
	return msgs, b
}

// plain reports whether a stream begins as a handshake does, as far as it goes.
func plain(b []byte) bool { return strings.HasPrefix(Protocol, string(b[:min(len(b), len(Protocol))])) }

// endless reports whether what should be a message is longer than any.
func endless(rest []byte) bool { return len(rest) >= 4 && binary.BigEndian.Uint32(rest) > MaxMessage }

var streams = map[string][]byte{
	"every kind": slices.Concat(handshake(), message(Interested), message(Bitfield, 0xff, 0x80), message(Have, 0, 0, 0, 7),
		message(Request, make([]byte, 12)...), message(Piece, make([]byte, 300)...), []byte{0, 0, 0, 0}, message(Cancel, make([]byte, 12)...), message(20, []byte("de")...)),
	"odd lengths":            slices.Concat(handshake(), message(Have), message(Request, 1), message(Piece), message(Bitfield), message(HaveAll, 1, 2, 3), message(Have, make([]byte, 40)...)),
	"largest bitfield":       slices.Concat(handshake(), message(Bitfield, make([]byte, MaxPieces/8)...), message(Interested)),
	"larger than any":        slices.Concat(handshake(), message(Bitfield, make([]byte, MaxPieces/8+100)...), message(Interested)),
	"a message without end":  slices.Concat(handshake(), message(Interested), []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}),
	"cut off in a message":   slices.Concat(handshake(), message(Interested), message(Have, 0, 0, 0, 7)[:7]),
	"cut off in a handshake": handshake()[:40],
	"obfuscated":             bytes.Repeat([]byte{0x5a}, 200),
	"almost a handshake":     []byte("\x13BitTorrent protocoX" + strings.Repeat("x", 100)),
}

// watch follows a stream in parts of that many bytes with a Parser, as a connection does,
// and returns what it has found.
func watch(stream []byte, cut int) (ids, lengths []int, payload int64) {
	var p Parser
	var tail []byte
	for part := range slices.Chunk(stream, cut) {
		for b := append(tail, part...); ; {
			if tail = nil; len(b) == 0 {
				break
			}
			if !p.Between() {
				n, paid := p.Through(b)
				payload += paid
				b = b[n:]
				continue
			}
			id, length, ok := p.Next(b)
			if !ok {
				tail = b
				break
			}
			if length > 0 {
				ids, lengths = append(ids, id), append(lengths, length)
			}
			p.Skip(length)
		}
	}
	return ids, lengths, payload
}

func checkParser(t *testing.T, stream []byte, cut int) {
	t.Helper()
	ids, lengths, payload := watch(stream, cut)
	msgs, rest := split(stream)
	if len(ids) < len(msgs) || len(ids) > len(msgs)+1 { // the last may have begun
		t.Fatalf("%x in parts of %d has %d messages, want %d", stream, cut, len(ids), len(msgs))
	}
	for i, m := range msgs {
		id := -1
		if len(m) > 4 {
			id = int(m[4])
		}
		if ids[i] != id || lengths[i] != len(m) {
			t.Fatalf("%x in parts of %d: message %d has id %d and %d bytes, want %d and %d", stream, cut, i, ids[i], lengths[i], id, len(m))
		}
	}
	want := int64(0)
	if endless(rest) {
		want = int64(len(rest))
	}
	if plain(stream) && payload != want {
		t.Fatalf("%x in parts of %d: %d bytes are taken for payload, want %d", stream, cut, payload, want)
	}
}

// checkEditor has one editor change nothing, and another leave out what is said of pieces.
func checkEditor(t *testing.T, stream []byte, cut int) {
	t.Helper()
	msgs, rest := split(stream)
	greeted := 0
	about := func(id int) bool { return id == Have || id == Bitfield || id == HaveAll }
	run := func(out func(id int) bool) (passed []byte) {
		greeted = 0
		e := Editor{
			Greet: func(infohash [20]byte) {
				if greeted++; !bytes.Equal(infohash[:], stream[28:48]) {
					t.Fatalf("the infohash of %x is said to be %x", stream, infohash)
				}
			},
			See: func(id, length int, head []byte) ([]byte, bool) {
				if want := headLen(id, length); len(head) != want {
					t.Fatalf("%x in parts of %d: of %d bytes of message %d, %d are seen, want %d", stream, cut, length, id, len(head), want)
				}
				if out(id) {
					return nil, false
				}
				return head, true
			},
		}
		for part := range slices.Chunk(stream, cut) {
			passed = e.Edit(passed, part)
		}
		if opaque := !plain(stream) || endless(rest); e.Opaque() != opaque {
			t.Fatalf("%x in parts of %d is not understood: %v, want %v", stream, cut, e.Opaque(), opaque)
		}
		return append(passed, e.head...) // what it has not decided on
	}
	if passed := run(func(int) bool { return false }); !bytes.Equal(passed, stream) {
		t.Fatalf("%x in parts of %d became %x", stream, cut, passed)
	}
	if hello := len(stream) >= 48 && plain(stream); (greeted == 1) != hello {
		t.Fatalf("the handshake of %x was told of %d times", stream, greeted)
	}
	said := slices.DeleteFunc(msgs, func(m []byte) bool { return len(m) > 4 && about(int(m[4])) })
	if got, _ := split(run(about)); len(got) < len(said) || !slices.EqualFunc(got[:len(said)], said, bytes.Equal) {
		t.Fatalf("without what is said of pieces %x became %x", stream, got)
	}
}

func TestNothingIsLostHoweverItIsCut(t *testing.T) {
	for name, stream := range streams {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			for _, cut := range []int{1, 2, 3, 4, 5, 7, 48, 67, 68, 69, 1000, 1 << 20} {
				checkParser(t, stream, cut)
				checkEditor(t, stream, cut)
			}
		})
	}
}

// A short message that may have to wait is only shown whole, and a piece with its header; of
// any other the beginning is enough.
func TestNextWantsTheWholeOfWhatMayHaveToWait(t *testing.T) {
	for _, test := range []struct {
		name string
		says []byte
		need int // bytes
	}{
		{"keep-alive", []byte{0, 0, 0, 0}, 4},
		{"request", message(Request, make([]byte, 12)...), RequestLen},
		{"cancel", message(Cancel, make([]byte, 12)...), RequestLen},
		{"have", message(Have, 0, 0, 0, 1), HaveLen},
		{"request-of-another-length", message(Request, make([]byte, 13)...), 5},
		{"piece", message(Piece, make([]byte, 100)...), 4 + PieceHeaderLen},
		{"piece-without-payload", message(Piece, make([]byte, 3)...), 8},
		{"too-long", []byte{0, 0x10, 0, 1, Piece}, 4},
	} {
		for n := range test.says {
			p := Parser{handshake: HandshakeLen}
			if _, _, ok := p.Next(test.says[:n]); ok != (n >= test.need) {
				t.Errorf("%s: known with %d bytes: %v, want %d", test.name, n, ok, test.need)
			}
		}
	}
}

// What the editor puts in place of a message's beginning stands where that stood.
func TestEditorReplaces(t *testing.T) {
	e := Editor{Greet: func([20]byte) {}, See: func(id, _ int, head []byte) ([]byte, bool) {
		if id == HaveAll {
			return message(HaveNone), true
		}
		return head, true
	}}
	got := e.Edit(nil, slices.Concat(handshake(), message(Interested), message(HaveAll), message(20, 1)))
	if want := slices.Concat(handshake(), message(Interested), message(HaveNone), message(20, 1)); !bytes.Equal(got, want) {
		t.Errorf("it became %x, want %x", got, want)
	}
	if !e.Between() {
		t.Error("nothing can be put in after a whole message")
	}
	if e.Edit(nil, message(Have)[:4]); e.Between() {
		t.Error("something could be put into a message")
	}
}

func TestSnifferKnowsAHandshakeFromItsFirstBytes(t *testing.T) {
	for _, cut := range []int{1, 19, 20, 100} {
		var handshakes, others Sniffer
		for part := range slices.Chunk(handshake(), cut) {
			if !handshakes.Clear(part) {
				t.Fatalf("a plain handshake in parts of %d is taken for something else", cut)
			}
		}
		still := true
		for part := range slices.Chunk(streams["almost a handshake"], cut) {
			still = others.Clear(part)
		}
		if still {
			t.Fatalf("in parts of %d another protocol is taken for a plain handshake", cut)
		}
	}
}

// FuzzStream checks what is known of a stream against the letter of the protocol, and that
// all of it passes, however it is cut.
func FuzzStream(f *testing.F) {
	for _, stream := range streams {
		f.Add(stream, uint16(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		checkParser(t, stream, 1+int(cut)%5000)
		checkEditor(t, stream, 1+int(cut)%5000)
	})
}
