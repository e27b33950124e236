package disk

import "crypto/sha1"

// A Layout says which bytes a torrent of one file has, as its info dict does (BEP 3).
type Layout struct {
	Length      int64  // bytes
	PieceLength int64  // bytes of every piece but the last
	Hashes      []byte // the SHA-1 of each piece, one after the other
}

// Pieces returns the number of pieces.
func (l Layout) Pieces() int { return len(l.Hashes) / sha1.Size }

// Piece returns where piece n lies, in bytes, and its SHA-1.
func (l Layout) Piece(n int) (off, length int64, hash []byte) {
	off = int64(n) * l.PieceLength
	return off, min(l.PieceLength, l.Length-off), l.Hashes[n*sha1.Size : (n+1)*sha1.Size]
}
