package gossip

import (
	"bytes"
	"math"
	"testing"
)

var someHead = Head{Root: 3, Order: Order{1, 42}, Manifest: [32]byte{1, 2, 3}, Size: 4096, Beacon: 1760000000}

func TestMessagesSurviveTheWire(t *testing.T) {
	m, err := parse(someHead.encode())
	if err != nil || m.have != someHead {
		t.Errorf("have: %+v, %v", m, err)
	}
	n := Name{Manifest, 1, 42}
	if m, err = parse(encodeWant(n, maxPart)); err != nil || m.name != n || m.offset != maxPart {
		t.Errorf("want: %+v, %v", m, err)
	}
	doc := bytes.Repeat([]byte("x"), maxPart+5)
	if m, err = parse(encodePart(n, doc, maxPart)); err != nil || m.name != n || m.offset != maxPart || int(m.total) != len(doc) || len(m.data) != 5 {
		t.Errorf("part: %+v, %v", m, err)
	}
	for _, absent := range [][]byte{encodePart(n, nil, 0), encodePart(n, doc, 2*maxPart)} {
		if m, err = parse(absent); err != nil || m.total != 0 || m.data == nil || len(m.data) != 0 {
			t.Errorf("no document: %+v, %v", m, err)
		}
	}
	later := append(someHead.encode(), "what version 2 adds"...)
	later[1] = 2
	if m, err = parse(later); err != nil || m.have != someHead {
		t.Errorf("have of version 2: %+v, %v", m, err)
	}
}

func TestBadMessages(t *testing.T) {
	have := func(edit func(*Head)) []byte {
		h := someHead
		edit(&h)
		return h.encode()
	}
	part := func(n Name, total int, offset uint32, length int) []byte {
		b := encodePart(n, make([]byte, total), offset)
		return append(b[:partHead], make([]byte, length)...)
	}
	manifest := Name{Manifest, 1, 42}
	rows := map[string][]byte{
		"empty":                  {},
		"unknown-kind":           {9, 1},
		"have-cut-short":         someHead.encode()[:haveLen-1],
		"have-with-more":         append(someHead.encode(), 0),
		"have-far-too-long":      append(append([]byte{msgHave, 2}, someHead.encode()[2:]...), make([]byte, maxHave)...),
		"have-of-version-zero":   append([]byte{msgHave, 0}, someHead.encode()[2:]...),
		"endless-root":           have(func(h *Head) { h.Root = math.MaxUint64 }),
		"endless-sequence":       have(func(h *Head) { h.Order.Sequence = 1 << 63 }),
		"manifest-too-large":     have(func(h *Head) { h.Size = MaxManifest + 1 }),
		"manifest-without-size":  have(func(h *Head) { h.Size = 0 }),
		"size-without-manifest":  have(func(h *Head) { h.Order = Order{} }),
		"epoch-without-sequence": have(func(h *Head) { h.Order.Sequence = 0 }),
		"want-cut-short":         encodeWant(manifest, 0)[:wantLen-1],
		"want-of-no-kind":        encodeWant(Name{0, 0, 1}, 0),
		"want-of-an-unknown":     encodeWant(Name{4, 0, 1}, 0),
		"want-of-number-zero":    encodeWant(Name{Root, 0, 0}, 0),
		"want-root-with-epoch":   encodeWant(Name{Root, 1, 1}, 0),
		"want-between-parts":     encodeWant(manifest, 1),
		"want-beyond-any":        encodeWant(Name{Beacon, 0, 1}, 2*maxPart),
		"part-cut-short":         encodePart(manifest, nil, 0)[:partHead-1],
		"part-short-of-full":     part(manifest, 2*maxPart, 0, maxPart-1),
		"part-beyond-the-end":    part(manifest, maxPart+5, maxPart, 6),
		"part-too-long":          part(manifest, 2*maxPart, 0, maxPart+1),
		"part-of-one-too-large":  part(Name{Beacon, 0, 1}, MaxBeacon+1, 0, maxPart),
		"none-with-data":         part(manifest, 0, 0, 1),
	}
	for name, b := range rows {
		if m, err := parse(b); err == nil {
			t.Errorf("%s: taken as %+v", name, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(someHead.encode())
	f.Add((&Head{}).encode())
	f.Add(encodeWant(Name{Root, 0, 2}, 0))
	f.Add(encodePart(Name{Manifest, 1, 42}, make([]byte, maxPart+1), maxPart))
	f.Add(encodePart(Name{Beacon, 0, 7}, nil, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		var again []byte
		switch m.kind {
		case msgHave:
			if b[1] != Version {
				return
			}
			again = m.have.encode()
		case msgWant:
			again = encodeWant(m.name, m.offset)
		case msgPart:
			if len(m.data) > maxPart || m.total > m.name.Kind.max() || int(m.offset)+len(m.data) > int(m.total) {
				t.Fatalf("out of bounds: %+v", m)
			}
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x reads as %x", b, again)
		}
	})
}
