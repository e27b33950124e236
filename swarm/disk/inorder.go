package disk

import (
	"context"
	"io"
)

// An inOrder reads a download from its first byte to its last while it is under way: each
// piece when it has come and is right.
type inOrder struct {
	ctx   context.Context
	whole <-chan struct{}
	store *Store
	off   int64
}

// InOrder returns a reader of a download that is under way; there can be one. It ends with ctx.
// When whole is closed, nothing is waited for any more.
func (s *Store) InOrder(ctx context.Context, whole <-chan struct{}) io.Reader {
	return &inOrder{ctx: ctx, whole: whole, store: s}
}

func (r *inOrder) Read(b []byte) (int, error) {
	s := r.store
	if r.off == s.layout.Length {
		return 0, io.EOF
	}
	n := int(r.off / s.layout.PieceLength)
	if err := r.wait(n); err != nil {
		return 0, err
	}
	off, length, _ := s.layout.Piece(n)
	b = b[:min(int64(len(b)), off+length-r.off)]
	s.mu.RLock()
	m, err := s.f.ReadAt(b, r.off)
	s.mu.RUnlock()
	r.off += int64(m)
	switch {
	case m == len(b):
		err = nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF // somebody has cut it
	}
	return m, err
}

// wait waits for piece n.
func (r *inOrder) wait(n int) error {
	for !r.store.have[n].Load() {
		select {
		case <-r.store.came:
		case <-r.whole: // and if the piece cannot be read any more, whoever reads it will see
			return nil
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
	return nil
}
