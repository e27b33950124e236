package picker

import "math/bits"

// A set is a set of pieces.
type set []uint64

func newSet(pieces int) set { return make(set, (pieces+63)/64) }

func (s set) has(piece int) bool { return s[piece/64]&(1<<(piece%64)) != 0 }
func (s set) add(piece int)      { s[piece/64] |= 1 << (piece % 64) }
func (s set) remove(piece int)   { s[piece/64] &^= 1 << (piece % 64) }

func (s set) size() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// meets reports whether the two have a piece in common.
func (s set) meets(o set) bool {
	for w := range s {
		if s[w]&o[w] != 0 {
			return true
		}
	}
	return false
}
