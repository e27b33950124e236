package swarm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/swarm/disk"
)

// lateLiar is a file into whose pieces a peer's bad block is written as soon as they have
// been hashed: it was on its way when a webseed gave the piece.
type lateLiar struct {
	*os.File
	s *disk.Store
	i *Info
}

func (l lateLiar) ReadAt(b []byte, off int64) (int, error) {
	n, err := l.File.ReadAt(b, off)
	piece := int(off / l.i.pieceLength)
	at, length, _ := l.i.piece(piece)
	if off+int64(n) == at+length {
		l.s.Piece(piece).WriteAt(make([]byte, usualBlock), 0)
	}
	return n, err
}

func TestLateBlockSpoilsNothingFromAWebseed(t *testing.T) {
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	i, data := newInfo(t)
	dst := filepath.Join(t.TempDir(), "dst")
	n, err := New(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, done, err := n.open(t.Context(), i, func(ctx context.Context) (*disk.Store, error) {
		s, err := disk.OpenFetch(ctx, i.layout(), dst)
		if err == nil {
			s.Over(func(f disk.File) disk.File { return lateLiar{f.(*os.File), s, i} })
		}
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := s.fetch(t.Context(), time.Now(), FetchOptions{
		Webseeds: []Webseed{inMemory(data)}, WebseedAfter: time.Millisecond, IdleTimeout: 10 * time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, data) {
		t.Errorf("it is spoilt: %d bytes, %v", len(got), err)
	}
}

// A disk that does not keep what is written ends the fetch: a webseed is not asked for the
// same again and again.
func TestForgetfulDiskEndsTheFetch(t *testing.T) {
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	i, data := newInfo(t)
	n, err := New(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, done, err := n.open(t.Context(), i, func(ctx context.Context) (*disk.Store, error) {
		s, err := disk.OpenFetch(ctx, i.layout(), filepath.Join(t.TempDir(), "dst"))
		if err == nil {
			s.Over(func(f disk.File) disk.File { return forgetful{f.(*os.File)} })
		}
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = s.fetch(ctx, time.Now(), FetchOptions{
		Webseeds: []Webseed{inMemory(data)}, WebseedAfter: time.Millisecond, IdleTimeout: time.Millisecond,
	})
	s.end(err)
	if !errors.Is(err, errForgotten) {
		t.Errorf("%v, want that the file is another than what was written", err)
	}
}

type forgetful struct{ *os.File }

func (forgetful) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
