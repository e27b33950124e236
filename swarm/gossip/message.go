package gossip

import (
	"encoding/binary"
	"fmt"
)

const (
	msgHave = 1
	msgWant = 2
	msgPart = 3

	haveLen   = 70
	wantLen   = 22
	partHead  = 26
	maxPart   = 15 << 10 // of a document in one message
	maxHave   = 256      // bytes of a have of a later version
	maxNumber = 1<<63 - 1
)

// message is any of the three, read.
type message struct {
	kind   byte
	have   Head
	name   Name
	offset uint32
	total  uint32
	data   []byte // of what was parsed, not copied
}

// parse reads a message. What it returns is within all bounds.
func parse(b []byte) (message, error) {
	if len(b) == 0 {
		return message{}, fmt.Errorf("an empty message")
	}
	m := message{kind: b[0]}
	switch m.kind {
	case msgHave:
		return m, m.readHave(b)
	case msgWant:
		if len(b) != wantLen {
			return m, fmt.Errorf("a want of %d bytes", len(b))
		}
		m.offset = binary.BigEndian.Uint32(b[18:])
	case msgPart:
		if len(b) < partHead || len(b) > partHead+maxPart {
			return m, fmt.Errorf("a part of %d bytes", len(b))
		}
		m.offset, m.total = binary.BigEndian.Uint32(b[18:]), binary.BigEndian.Uint32(b[22:])
		m.data = b[partHead:]
	default:
		return m, fmt.Errorf("a message of kind %d", m.kind)
	}
	m.name = Name{Kind(b[1]), binary.BigEndian.Uint64(b[2:]), binary.BigEndian.Uint64(b[10:])}
	most := m.name.Kind.max()
	switch {
	case most == 0:
		return m, fmt.Errorf("a document of kind %d", m.name.Kind)
	case m.name.Number == 0 || m.name.Number > maxNumber || m.name.Epoch > maxNumber:
		return m, fmt.Errorf("a %v numbered %d.%d", m.name.Kind, m.name.Epoch, m.name.Number)
	case m.name.Kind != Manifest && m.name.Epoch != 0:
		return m, fmt.Errorf("a %v with an epoch", m.name.Kind)
	case m.offset%maxPart != 0 || m.offset >= most:
		return m, fmt.Errorf("a part of a %v at %d", m.name.Kind, m.offset)
	case m.kind == msgPart:
		return m, m.checkPart(most)
	}
	return m, nil
}

func (m *message) readHave(b []byte) error {
	switch {
	case len(b) < haveLen || len(b) > maxHave:
		return fmt.Errorf("a have of %d bytes", len(b))
	case b[1] == 0 || b[1] == Version && len(b) != haveLen:
		return fmt.Errorf("a have of version %d and %d bytes", b[1], len(b))
	}
	h := &m.have
	h.Root = binary.BigEndian.Uint64(b[2:])
	h.Order = Order{binary.BigEndian.Uint64(b[10:]), binary.BigEndian.Uint64(b[18:])}
	copy(h.Manifest[:], b[26:])
	h.Size = binary.BigEndian.Uint32(b[58:])
	h.Beacon = binary.BigEndian.Uint64(b[62:])
	switch {
	case max(h.Root, h.Order.Epoch, h.Order.Sequence, h.Beacon) > maxNumber:
		return fmt.Errorf("a have with a number above %d", uint64(maxNumber))
	case h.Size > MaxManifest:
		return fmt.Errorf("a manifest of %d bytes", h.Size)
	case (h.Order == Order{}) != (h.Size == 0) || h.Order.Sequence == 0 && h.Order.Epoch != 0:
		return fmt.Errorf("a manifest %d.%d of %d bytes", h.Order.Epoch, h.Order.Sequence, h.Size)
	}
	return nil
}

// checkPart checks that a part is as long as it has to be.
func (m *message) checkPart(most uint32) error {
	if m.total == 0 && m.offset == 0 && len(m.data) == 0 {
		return nil // it does not have the document
	}
	if m.total > most || m.offset >= m.total || uint32(len(m.data)) != min(maxPart, m.total-m.offset) {
		return fmt.Errorf("%d bytes at %d of a %v of %d", len(m.data), m.offset, m.name.Kind, m.total)
	}
	return nil
}

func (h *Head) encode() []byte {
	b := make([]byte, 0, haveLen)
	b = append(b, msgHave, Version)
	b = binary.BigEndian.AppendUint64(b, h.Root)
	b = binary.BigEndian.AppendUint64(b, h.Order.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Order.Sequence)
	b = append(b, h.Manifest[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Size)
	return binary.BigEndian.AppendUint64(b, h.Beacon)
}

func (n Name) append(b []byte) []byte {
	b = append(b, byte(n.Kind))
	b = binary.BigEndian.AppendUint64(b, n.Epoch)
	return binary.BigEndian.AppendUint64(b, n.Number)
}

func encodeWant(n Name, offset uint32) []byte {
	b := n.append(append(make([]byte, 0, wantLen), msgWant))
	return binary.BigEndian.AppendUint32(b, offset)
}

// encodePart is the part of doc at offset, or that there is no such document.
func encodePart(n Name, doc []byte, offset uint32) []byte {
	if int(offset) >= len(doc) {
		doc, offset = nil, 0
	}
	data := doc[offset:min(len(doc), int(offset)+maxPart)]
	b := n.append(append(make([]byte, 0, partHead+len(data)), msgPart))
	b = binary.BigEndian.AppendUint32(b, offset)
	b = binary.BigEndian.AppendUint32(b, uint32(len(doc)))
	return append(b, data...)
}
