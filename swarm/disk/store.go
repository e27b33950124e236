package disk

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

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"golang.org/x/sync/errgroup"
)

// A File is what a store keeps its bytes in.
type File interface {
	io.ReaderAt
	io.WriterAt
	Stat() (fs.FileInfo, error)
	Sync() error
	Close() error
}

// A Store is the content of one torrent: one file, through one descriptor, and which of
// its pieces have been hashed and found right. It is the storage the torrent engine sees;
// the engine closes it when the torrent is dropped. It is safe for concurrent use.
type Store struct {
	layout Layout
	path   string // where the file was when it was opened

	mu       sync.RWMutex // guards what follows; held while f is used
	f        File
	readOnly bool // nothing is written any more
	given    int  // the piece that a webseed is giving, and one; zero for none

	judged func(piece int, good bool) // may be nil

	have     []atomic.Bool // for each piece
	came     chan struct{} // has an element when there may be a piece more; for one reader
	verified atomic.Int64  // bytes in pieces that are right
}

// OpenSeed opens the file at path for serving and checks that it has that content; if it has
// not, the error is ErrContent.
func OpenSeed(ctx context.Context, l Layout, path string) (_ *Store, err error) {
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
	if fi.Size() != l.Length {
		return nil, fmt.Errorf("%q: %w: it has %d bytes, expected %d", path, ErrContent, fi.Size(), l.Length)
	}
	s := newStore(l, path, f)
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

// OpenFetch opens or creates the file at path for downloading, makes sure that there is
// room for all of it, and checks which pieces are there already.
func OpenFetch(ctx context.Context, l Layout, path string) (_ *Store, err error) {
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
	if fi.Size() > l.Length {
		if err := f.Truncate(l.Length); err != nil {
			return nil, err
		}
	}
	had := fi.Size() > 0
	if err := makeRoom(f, path, l.Length); err != nil {
		if !had {
			os.Remove(path) // it is ours, and empty
		}
		return nil, err
	}
	s := newStore(l, path, f)
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

func newStore(l Layout, path string, f File) *Store {
	return &Store{layout: l, path: path, f: f, have: make([]atomic.Bool, l.Pieces()), came: make(chan struct{}, 1)}
}

// check hashes every piece and notes those that are right. A piece of sparse that was
// never written is not read.
func (s *Store) check(ctx context.Context, sparse *os.File) error {
	group, ctx := errgroup.WithContext(ctx)
	workers := min(4, runtime.GOMAXPROCS(0), len(s.have))
	for w := range workers {
		group.Go(func() error {
			h, buf := sha1.New(), make([]byte, 256<<10)
			for n := w; n < len(s.have); n += workers {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				off, length, want := s.layout.Piece(n)
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

// Over puts a file in the place of the store's: one that wraps it and, in a test, does what
// disks do. It is called before the engine has the store.
func (s *Store) Over(wrap func(File) File) { s.f = wrap(s.f) }

// Judged has f told what became of each piece that was downloaded. It is called before the engine
// has the store.
func (s *Store) Judged(f func(piece int, good bool)) { s.judged = f }

// Path returns where the file was when it was opened.
func (s *Store) Path() string { return s.path }

// Has reports whether piece n is here, and right.
func (s *Store) Has(n int) bool { return s.have[n].Load() }

// Verified returns how many bytes the pieces have that are here, and right.
func (s *Store) Verified() int64 { return s.verified.Load() }

// Sealed reports whether nothing is written any more: it was opened for seeding, or [Store.Seal] was
// called.
func (s *Store) Sealed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.readOnly
}

// mark notes whether piece n is right.
func (s *Store) mark(n int, ok bool) {
	if s.have[n].Swap(ok) != ok {
		_, length, _ := s.layout.Piece(n)
		if !ok {
			length = -length
		}
		s.verified.Add(length)
	}
}

// Complete reports whether all pieces are right.
func (s *Store) Complete() bool { return s.verified.Load() == s.layout.Length }

// Seal makes a complete download durable and ends all writing to it: from here on the
// descriptor is one for reading.
func (s *Store) Seal() error {
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

// Stat says which file it is.
func (s *Store) Stat() (fs.FileInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.f.Stat()
}

// Close closes the file. The engine calls it for a torrent that it was given.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f.Close()
}

// ReadAt reads bytes of the torrent. A piece that cannot be read is no longer offered.
func (s *Store) ReadAt(b []byte, off int64) (int, error) {
	s.mu.RLock()
	n, err := s.f.ReadAt(b, off)
	s.mu.RUnlock()
	if n < len(b) && !errors.Is(err, os.ErrClosed) {
		s.mark(int(off/s.layout.PieceLength), false)
	}
	return n, err
}

// WriteAt writes bytes of the torrent that no peer sent. It fails with [fs.ErrPermission] once the
// store is sealed.
func (s *Store) WriteAt(b []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.readOnly {
		return 0, fs.ErrPermission
	}
	return s.f.WriteAt(b, off)
}

// Give is told which piece a webseed gives from now on; -1 is none. Blocks of it that are
// on their way from peers must not be written over it, while it is hashed or afterwards.
func (s *Store) Give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = n + 1
}

// OpenTorrent implements storage.ClientImpl.
func (s *Store) OpenTorrent(_ context.Context, info *metainfo.Info, _ metainfo.Hash) (storage.TorrentImpl, error) {
	if info.PieceLength != s.layout.PieceLength || info.TotalLength() != s.layout.Length {
		return storage.TorrentImpl{}, fmt.Errorf("%q: %w: the engine has another info dict", s.path, ErrContent)
	}
	return storage.TorrentImpl{
		PieceWithHash: func(p metainfo.Piece, _ g.Option[[]byte]) storage.PieceImpl {
			return s.Piece(p.Index())
		},
		NewReader: func() storage.TorrentReader { return reader{s} },
		Close:     s.Close,
	}, nil
}

// Piece returns piece n as the engine writes and hashes it.
func (s *Store) Piece(n int) storage.PieceImpl { return piece{s, n} }

// reader reads for upload.
type reader struct{ *Store }

func (reader) Close() error { return nil }

// A piece is one piece, as the engine writes and hashes it.
type piece struct {
	s *Store
	n int
}

func (p piece) ReadAt(b []byte, off int64) (int, error) {
	return p.s.ReadAt(b, int64(p.n)*p.s.layout.PieceLength+off)
}

// WriteAt writes what came from a peer. What is here already stays as it is.
func (p piece) WriteAt(b []byte, off int64) (int, error) {
	p.s.mu.RLock()
	defer p.s.mu.RUnlock()
	switch {
	case p.s.readOnly:
		return 0, fs.ErrPermission
	case p.s.given == p.n+1 || p.s.have[p.n].Load():
		return len(b), nil
	}
	return p.s.f.WriteAt(b, int64(p.n)*p.s.layout.PieceLength+off)
}

var hashBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// WriteTo implements io.WriterTo, for hashing.
func (p piece) WriteTo(w io.Writer) (int64, error) {
	off, length, _ := p.s.layout.Piece(p.n)
	buf := hashBuffers.Get().(*[256 << 10]byte)
	defer hashBuffers.Put(buf)
	p.s.mu.RLock()
	defer p.s.mu.RUnlock()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(p.s.f, off, length)}, buf[:])
}

func (p piece) MarkComplete() error    { return p.judge(true) }
func (p piece) MarkNotComplete() error { return p.judge(false) }

func (p piece) judge(good bool) error {
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
func (p piece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: p.s.have[p.n].Load()}
}
