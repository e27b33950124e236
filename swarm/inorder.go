package swarm

import (
	"context"
	"fmt"
	"io"
)

// An inOrder reads a download from its first byte to its last while it is under way: each
// piece when it has come and is right. It ends with ctx.
type inOrder struct {
	ctx   context.Context
	whole chan struct{} // closed when all of it has come
	store *store
	off   int64
}

func (r *inOrder) Read(b []byte) (int, error) {
	s := r.store
	if r.off == s.info.ref.Length {
		return 0, io.EOF
	}
	n := int(r.off / s.info.pieceLength)
	if err := r.wait(n); err != nil {
		return 0, err
	}
	off, length, _ := s.info.piece(n)
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

// read calls o.Read, if there is one. When the fetch is over, with err, readOut waits for
// it and returns how both ended.
func (s *share) read(ctx context.Context, o FetchOptions) (readOut func(err error) error, err error) {
	if o.Read == nil {
		return func(err error) error { return err }, nil
	}
	fi, err := s.store.stat()
	if err != nil {
		return nil, fmt.Errorf("looking at %q: %w", s.store.path, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	r := &inOrder{ctx: ctx, whole: make(chan struct{}), store: s.store}
	done := make(chan error, 1)
	go func() { done <- o.Read(r, fi) }()
	return func(err error) error {
		defer stop(nil)
		if err != nil {
			stop(err)
			<-done
			return err
		}
		close(r.whole)
		return <-done
	}, nil
}
