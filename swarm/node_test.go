package swarm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// patience is how long a test waits for what is about to happen.
const patience = 30 * time.Second

// content is a file that a seed has.
type content struct {
	info *swarm.Info
	data []byte
	path string
}

func newContent(t testing.TB, size int) *content {
	t.Helper()
	c := &content{data: make([]byte, size), path: filepath.Join(t.TempDir(), "content")}
	r := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	r.Read(c.data)
	if err := os.WriteFile(c.path, c.data, 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	c.info, err = swarm.BuildInfo(t.Context(), bytes.NewReader(c.data), "content.bin", int64(size), false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *content) check(t testing.TB, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, c.data) {
		t.Errorf("%s is not the content", path)
	}
}

func newNode(t testing.TB, c swarm.Config) *swarm.Node {
	t.Helper()
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	n, err := swarm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// newSeed is a node that serves c.
func newSeed(t testing.TB, c *content, conf swarm.Config, trackers ...string) *swarm.Node {
	t.Helper()
	n := newNode(t, conf)
	if err := n.Seed(t.Context(), c.info, c.path, trackers); err != nil {
		t.Fatal(err)
	}
	return n
}

func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestFetchFromSeed(t *testing.T) {
	c := newContent(t, 3<<20+5)
	seed := newSeed(t, c, swarm.Config{})
	n := newNode(t, swarm.Config{Origins: []string{seed.Addr().String()}})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if got.Origin-got.Wasted != int64(len(c.data)) || got.LAN+got.WAN+got.Webseed != 0 {
		t.Errorf("bytes are %+v, want %d of the origin", got, len(c.data))
	}
}

func TestFiveFetchTogether(t *testing.T) {
	c := newContent(t, 4<<20)
	tracker := swarmtest.NewTracker(t)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 4 << 20}}, tracker.URL)
	var wg sync.WaitGroup
	for range 5 {
		n := newNode(t, swarm.Config{Origins: []string{seed.Addr().String()}})
		dst := filepath.Join(t.TempDir(), "got")
		wg.Go(func() {
			got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Trackers: []string{tracker.URL}})
			if err != nil {
				t.Error(err)
				return
			}
			c.check(t, dst)
			t.Logf("%+v", got)
			if got.LAN == 0 {
				t.Errorf("bytes are %+v, nothing came from peers", got)
			}
		})
	}
	wg.Wait()
	t.Logf("seed: %+v", seed.Stats())
}
