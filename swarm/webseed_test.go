package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// webPlace is a webseed over HTTP, as its users write it.
type webPlace struct {
	url string

	mu     sync.Mutex // guards failed
	failed error
}

func (w *webPlace) Open(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res.Body, 0, nil
	case http.StatusPartialContent:
		return res.Body, offset, nil
	}
	res.Body.Close()
	return nil, 0, errors.New(res.Status)
}

func (w *webPlace) Failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

func (w *webPlace) how() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

func newWebPlace(t *testing.T, h http.HandlerFunc) *webPlace {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &webPlace{url: srv.URL}
}

func serving(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(data))
	}
}

func flipped(data []byte) []byte {
	out := bytes.Clone(data)
	for i := range out {
		out[i] ^= 1
	}
	return out
}

const soon = 20 * time.Millisecond

func TestWebseedAlone(t *testing.T) {
	rows := []struct {
		name   string
		handle func(data []byte) http.HandlerFunc
	}{
		{"ranges", serving},
		{"no-ranges", func(data []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }
		}},
		{"longer-than-it-should-be", func(data []byte) http.HandlerFunc { return serving(append(bytes.Clone(data), data...)) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := newContent(t, 2<<20+5)
			w := newWebPlace(t, r.handle(c.data))
			n := newNode(t, swarm.Config{})
			dst := filepath.Join(t.TempDir(), "got")
			var last swarm.Progress
			got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
				Webseeds: []swarm.Webseed{w}, WebseedAfter: soon, IdleTimeout: time.Second,
				Progress: func(p swarm.Progress) { last = p },
			})
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, dst)
			if got.Webseed < c.info.Ref().Length || got.LAN+got.WAN+got.Origin != 0 || got.Webseed-got.Wasted != c.info.Ref().Length {
				t.Errorf("bytes %+v of %d", got, c.info.Ref().Length)
			}
			if r.name == "ranges" && got.Wasted != 0 {
				t.Errorf("bytes %+v, want none wasted", got)
			}
			if last.Done != last.Total || w.how() != nil {
				t.Errorf("last told %+v, failed %v", last, w.how())
			}
			// It is passed on like anything else.
			two := newNode(t, swarm.Config{})
			dst = filepath.Join(t.TempDir(), "two")
			if _, err := two.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{n.Addr().String()}}); err != nil {
				t.Fatal(err)
			}
			c.check(t, dst)
		})
	}
}

// What one place gives wrong is its own failure: it is named, and the next one is asked.
func TestBadWebseedIsLeft(t *testing.T) {
	rows := []struct {
		name   string
		handle func(data []byte) http.HandlerFunc
		want   error  // nil: something else than that it lies
		says   string // of the failure
	}{
		{"other-bytes", func(data []byte) http.HandlerFunc { return serving(flipped(data)) }, swarm.ErrContent, "piece"},
		{"captive-portal", func([]byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("<html>", 30000)) }
		}, swarm.ErrContent, "piece 0"},
		{"half", func(data []byte) http.HandlerFunc { return serving(data[:len(data)/2]) }, nil, ""},
		{"empty", func([]byte) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) {} }, nil, "ends after 0"},
		{"status-503", func([]byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
		}, nil, "503"},
		{"hangs-up", func([]byte) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, nil, "EOF"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := newContent(t, 2<<20)
			bad, good := newWebPlace(t, r.handle(c.data)), newWebPlace(t, serving(c.data))
			n := newNode(t, swarm.Config{})
			dst := filepath.Join(t.TempDir(), "got")
			if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
				Webseeds: []swarm.Webseed{bad, good}, WebseedAfter: soon, IdleTimeout: time.Second,
			}); err != nil {
				t.Fatal(err)
			}
			c.check(t, dst)
			if good.how() != nil || r.want != nil && !errors.Is(bad.how(), r.want) {
				t.Errorf("bad one: %v, good one: %v", bad.how(), good.how())
			}
			// Alone, it ends the fetch when its time is up, and what it gave is kept.
			m := newNode(t, swarm.Config{})
			_, err := m.Fetch(withPatience(t), c.info, filepath.Join(t.TempDir(), "got"), swarm.FetchOptions{
				Webseeds: []swarm.Webseed{bad}, WebseedAfter: soon, IdleTimeout: 2 * soon,
			})
			var late *swarm.DeadlineError
			if !errors.As(err, &late) || late.Which != "idle" || late.Done > late.Total/2 {
				t.Errorf("%v, want the idle deadline", err)
			}
			if how := bad.how(); how == nil || !strings.Contains(how.Error(), r.says) {
				t.Errorf("it failed with %v, want %q", how, r.says)
			}
		})
	}
}

// A webseed that has begun is no longer waited for when peers give everything.
func TestPeersTakeOverFromAWebseed(t *testing.T) {
	c := newContent(t, 2<<20)
	opened := make(chan struct{})
	w := newWebPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(c.data[:c.info.PieceLength()]) // without ranges: the first piece, and then nothing
		http.NewResponseController(w).Flush()
		close(opened)
		<-r.Context().Done()
	})
	peer := swarmtest.NewPeer(t, "127.0.0.1:0", c.info.Ref().Infohash, c.info.Pieces(), func(index, begin, length uint32) []byte {
		<-opened // until then it gives nothing
		at := int64(index)*c.info.PieceLength() + int64(begin)
		return c.data[at : at+int64(length)]
	})
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
		Webseeds: []swarm.Webseed{w}, WebseedAfter: soon, IdleTimeout: time.Minute, Peers: []string{peer.Addr},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if got.LAN < c.info.Ref().Length-c.info.PieceLength() || got.Webseed > c.info.PieceLength() {
		t.Errorf("bytes %+v", got)
	}
}

// While peers give, no webseed is asked.
func TestNoWebseedWhilePeersGive(t *testing.T) {
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 512 << 10}})
	w := newWebPlace(t, func(http.ResponseWriter, *http.Request) { t.Error("the webseed was asked") })
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
		Webseeds: []swarm.Webseed{w}, WebseedAfter: 30 * time.Second, IdleTimeout: time.Minute, Peers: []string{seed.Addr().String()},
	})
	if err != nil || got.Webseed != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	c.check(t, dst)
}
