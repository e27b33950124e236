package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"golang.org/x/sync/errgroup"
)

// A file is what a store keeps its bytes in.
type file interface {
	io.ReaderAt
	io.WriterAt
	Stat() (fs.FileInfo, error)
	Sync() error
	Close() error
}

// A store is the content of one torrent: one file, through one descriptor, and which of
// its pieces have been hashed and found right. It is the storage the torrent engine sees;
// the engine closes it when the torrent is dropped.
type store struct {
	info *Info
	path string // where the file was when it was opened

	mu       sync.RWMutex // guards what follows; held while f is used
	f        file
	readOnly bool // nothing is written any more
	given    int  // the piece that a webseed is giving, and one; zero for none

	judged func(piece int, good bool) // told what became of a piece that was downloaded; may be nil

	have     []atomic.Bool // for each piece
	came     chan struct{} // has an element when there may be a piece more; for one reader
	verified atomic.Int64  // bytes in pieces that are right
}

// openSeed opens the file at path for serving and checks that it is the content of i.
func openSeed(ctx context.Context, i *Info, path string) (_ *store, err error) {
	f, err := openRegular(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() != i.ref.Length {
		return nil, fmt.Errorf("%q: %w: it has %d bytes, expected %d", path, ErrContent, fi.Size(), i.ref.Length)
	}
	s := newStore(i, path, f)
	s.readOnly = true
	if err := s.check(ctx, nil); err != nil {
		return nil, err
	}
	for n := range s.have {
		if !s.have[n].Load() {
			return nil, fmt.Errorf("%q: %w: piece %d of %d is wrong", path, ErrContent, n, len(s.have))
		}
	}
	return s, nil
}

// openFetch opens or creates the file at path for downloading, makes sure that there is
// room for all of it, and checks which pieces are there already.
func openFetch(ctx context.Context, i *Info, path string) (_ *store, err error) {
	f, err := openRegular(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > i.ref.Length {
		if err := f.Truncate(i.ref.Length); err != nil {
			return nil, err
		}
	}
	had := fi.Size() > 0
	if err := makeRoom(f, path, i.ref.Length); err != nil {
		if !had {
			os.Remove(path) // it is ours, and empty
		}
		return nil, err
	}
	s := newStore(i, path, f)
	if had {
		err = s.check(ctx, f)
	}
	return s, err
}

// openRegular opens a regular file, and does not wait for anything else to become one.
func openRegular(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|nonBlock, perm)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// makeRoom reserves length bytes for f, or fails with a SpaceError.
func makeRoom(f *os.File, path string, length int64) error {
	used, err := allocated(f)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	free, err := freeSpace(dir)
	if err != nil {
		return fmt.Errorf("looking for room in %q: %w", dir, err)
	}
	need := max(0, length-used)
	if need > free {
		return &SpaceError{Dir: dir, Need: need, Have: free}
	}
	if err := reserve(f, length); err != nil {
		if isFull(err) {
			return &SpaceError{Dir: dir, Need: need, Have: free, Err: err}
		}
		return fmt.Errorf("reserving %d bytes for %q: %w", length, path, err)
	}
	return nil
}

func newStore(i *Info, path string, f file) *store {
	return &store{info: i, path: path, f: f, have: make([]atomic.Bool, i.Pieces()), came: make(chan struct{}, 1)}
}

// check hashes every piece and notes those that are right. A piece of sparse that was
// never written is not read.
func (s *store) check(ctx context.Context, sparse *os.File) error {
	group, ctx := errgroup.WithContext(ctx)
	workers := min(4, runtime.GOMAXPROCS(0), len(s.have))
	for w := range workers {
		group.Go(func() error {
			h, buf := sha1.New(), make([]byte, 256<<10)
			for n := w; n < len(s.have); n += workers {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				off, length, want := s.info.piece(n)
				if sparse != nil && isHole(sparse, off, length) {
					continue
				}
				h.Reset()
				m, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(s.f, off, length)}, buf)
				if err != nil {
					return fmt.Errorf("reading %q: %w", s.path, err)
				}
				if m == length && string(h.Sum(nil)) == string(want) {
					s.mark(n, true)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// mark notes whether piece n is right.
func (s *store) mark(n int, ok bool) {
	if s.have[n].Swap(ok) != ok {
		_, length, _ := s.info.piece(n)
		if !ok {
			length = -length
		}
		s.verified.Add(length)
	}
}

func (s *store) complete() bool { return s.verified.Load() == s.info.ref.Length }

// seal makes a complete download durable and ends all writing to it: from here on the
// descriptor is one for reading.
func (s *store) seal() error {
	s.mu.Lock()
	s.readOnly = true
	s.mu.Unlock()
	s.mu.RLock()
	err := s.f.Sync() // which takes its time, and others may read
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("syncing %q: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.f.(*os.File)
	if !ok {
		return nil
	}
	f, err := openRegular(s.path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return err
	}
	was, err1 := old.Stat()
	is, err2 := f.Stat()
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(was, is) {
		f.Close()
		return errors.Join(fmt.Errorf("%q was replaced while it was downloaded", s.path), err)
	}
	s.f = f
	return old.Close()
}

// stat says which file it is.
func (s *store) stat() (fs.FileInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.f.Stat()
}

// close implements the engine's Close.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f.Close()
}

// ReadAt reads bytes of the torrent. A piece that cannot be read is no longer offered.
func (s *store) ReadAt(b []byte, off int64) (int, error) {
	s.mu.RLock()
	n, err := s.f.ReadAt(b, off)
	s.mu.RUnlock()
	if n < len(b) && !errors.Is(err, os.ErrClosed) {
		s.mark(int(off/s.info.pieceLength), false)
	}
	return n, err
}

func (s *store) writeAt(b []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.readOnly {
		return 0, fs.ErrPermission
	}
	return s.f.WriteAt(b, off)
}

// give is told which piece a webseed gives from now on; -1 is none. Blocks of it that are
// on their way from peers must not be written over it, while it is hashed or afterwards.
func (s *store) give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = n + 1
}

// OpenTorrent implements storage.ClientImpl.
func (s *store) OpenTorrent(_ context.Context, info *metainfo.Info, _ metainfo.Hash) (storage.TorrentImpl, error) {
	if info.PieceLength != s.info.pieceLength || info.TotalLength() != s.info.ref.Length {
		return storage.TorrentImpl{}, ErrBadInfo
	}
	return storage.TorrentImpl{
		PieceWithHash: func(p metainfo.Piece, _ g.Option[[]byte]) storage.PieceImpl {
			return storePiece{s, p.Index()}
		},
		NewReader: func() storage.TorrentReader { return storeReader{s} },
		Close:     s.close,
	}, nil
}

// storeReader reads for upload.
type storeReader struct{ *store }

func (storeReader) Close() error { return nil }

// storePiece is one piece, as the engine writes and hashes it.
type storePiece struct {
	s *store
	n int
}

func (p storePiece) ReadAt(b []byte, off int64) (int, error) {
	return p.s.ReadAt(b, int64(p.n)*p.s.info.pieceLength+off)
}

// WriteAt writes what came from a peer. What is here already stays as it is.
func (p storePiece) WriteAt(b []byte, off int64) (int, error) {
	p.s.mu.RLock()
	defer p.s.mu.RUnlock()
	switch {
	case p.s.readOnly:
		return 0, fs.ErrPermission
	case p.s.given == p.n+1 || p.s.have[p.n].Load():
		return len(b), nil
	}
	return p.s.f.WriteAt(b, int64(p.n)*p.s.info.pieceLength+off)
}

var hashBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// WriteTo implements io.WriterTo, for hashing.
func (p storePiece) WriteTo(w io.Writer) (int64, error) {
	off, length, _ := p.s.info.piece(p.n)
	buf := hashBuffers.Get().(*[256 << 10]byte)
	defer hashBuffers.Put(buf)
	p.s.mu.RLock()
	defer p.s.mu.RUnlock()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(p.s.f, off, length)}, buf[:])
}

func (p storePiece) MarkComplete() error    { return p.judge(true) }
func (p storePiece) MarkNotComplete() error { return p.judge(false) }

func (p storePiece) judge(good bool) error {
	p.s.mark(p.n, good)
	if good {
		select {
		case p.s.came <- struct{}{}:
		default:
		}
	}
	if p.s.judged != nil {
		p.s.judged(p.n, good)
	}
	return nil
}

// Completion never makes the engine hash a piece: that has been done.
func (p storePiece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: p.s.have[p.n].Load()}
}

// isFull reports whether a file operation failed for want of space, quotas included.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota)
}
