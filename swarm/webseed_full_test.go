package swarm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/swarm/disk"
)

// inMemory is a webseed that has it all.
type inMemory []byte

func (w inMemory) Open(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(w[offset:])), offset, nil
}

func (inMemory) Failed(error) {}

func TestDiskFillsUpFromAWebseed(t *testing.T) {
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
	o := FetchOptions{Webseeds: []Webseed{inMemory(data)}, WebseedAfter: time.Millisecond, IdleTimeout: time.Second}
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
	var space *SpaceError
	if !errors.As(err, &space) || space.Need == 0 {
		t.Fatalf("%v, want a SpaceError", err)
	}
	if _, err := n.Fetch(t.Context(), i, dst, o); err != nil { // there is room now
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
