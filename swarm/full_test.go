package swarm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"shoal/swarm/disk"
)

// newInfo returns an info dict of five pieces, the last one short, and its content.
func newInfo(t *testing.T) (*Info, []byte) {
	t.Helper()
	data := make([]byte, 4*firstPieceLength+100)
	for i := range data {
		data[i] = byte(i>>16 + i%251 + 1)
	}
	i, err := BuildInfo(t.Context(), bytes.NewReader(data), "content", int64(len(data)), false)
	if err != nil {
		t.Fatal(err)
	}
	return i, data
}

// fullDisk is a file on a disk that has no room after some bytes.
type fullDisk struct {
	*os.File
	room int64
}

func (f fullDisk) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.room {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return f.File.WriteAt(b, off)
}

func TestDiskFillsUpWhileFetching(t *testing.T) {
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	i, data := newInfo(t)
	dir := t.TempDir()
	source, dst := filepath.Join(dir, "source"), filepath.Join(dir, "dst")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes [2]*Node
	for n := range nodes {
		node, err := New(Config{Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		nodes[n] = node
	}
	seed, n := nodes[0], nodes[1]
	if err := seed.Seed(t.Context(), i, source, nil); err != nil {
		t.Fatal(err)
	}
	o := FetchOptions{Peers: []string{seed.Addr().String()}}
	s, done, err := n.open(t.Context(), i, func(ctx context.Context) (*disk.Store, error) {
		s, err := disk.OpenFetch(ctx, i.layout(), dst)
		if err == nil {
			s.Over(func(f disk.File) disk.File { return fullDisk{f.(*os.File), 3 * firstPieceLength} })
		}
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.fetch(t.Context(), time.Now(), o)
	s.end(err)
	done()
	var full *SpaceError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) || full.Dir != dir || full.Need < int64(len(data))-3*firstPieceLength {
		t.Fatalf("got %v, want a SpaceError for %s", err, dir)
	}
	// There is room again.
	had, err := disk.OpenFetch(t.Context(), i.layout(), dst)
	if err != nil {
		t.Fatal(err)
	}
	kept := had.Verified()
	had.Close()
	got, err := n.Fetch(t.Context(), i, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	if useful := got.LAN - got.Wasted; useful != int64(len(data))-kept {
		t.Errorf("%d bytes were downloaded, but %d of %d had been kept", useful, kept, len(data))
	}
}
