package follow

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

// A mirror over HTTP can do what it likes: the honest source is enough, and what was wrong
// is told with the mirror's name. Being away, or behind, is nothing to tell.
func TestMirrorsOverHTTP(t *testing.T) {
	rows := []struct {
		name   string
		handle func(honest http.Handler, old []byte) http.HandlerFunc
		want   fault.Code // that is told of it; ok: none
	}{
		{"captive-portal", func(http.Handler, []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>log in") }
		}, fault.Malformed},
		{"redirect-to-a-portal", func(http.Handler, []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/login" {
					http.Redirect(w, r, "/login", http.StatusFound)
					return
				}
				io.WriteString(w, "<html>log in")
			}
		}, fault.Malformed},
		{"without-end", func(http.Handler, []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}
		}, fault.TooLarge},
		{"half-a-document", func(honest http.Handler, _ []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				honest.ServeHTTP(rec, r)
				w.WriteHeader(rec.Code)
				w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
			}
		}, fault.Malformed},
		{"old", func(honest http.Handler, old []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/"+tree.Manifest(stable) {
					w.Write(old)
					return
				}
				honest.ServeHTTP(w, r)
			}
		}, fault.Rollback},
		{"status-500", func(http.Handler, []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
		}, fault.OK},
		{"hangs", func(http.Handler, []byte) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		}, fault.OK},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(t, 1)
			p := m.trees[0]
			old := p.Release(stable, 40, content)
			p.Release(stable, 41, content)
			m.cycle() // so that it is older than what is trusted, and not only behind the other
			p.Release(stable, 42, content)
			mirror := httptest.NewServer(r.handle(http.FileServer(http.Dir(p.Dir)), old))
			defer mirror.Close()
			var sources []source.Source
			for _, url := range []string{mirror.URL, p.Serve()} {
				s, err := source.Open(url, source.Options{})
				if err != nil {
					t.Fatal(err)
				}
				sources = append(sources, s)
			}
			store, err := state.Open(m.dir, filepath.Join(m.dir, "anchor.json"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			laggards := time.Minute // what is told of a mirror comes within it
			if r.name == "hangs" {
				laggards = 100 * time.Millisecond
			}
			f := New(Config{Store: store, Pin: m.pin, Channels: []manifest.Channel{stable}, Sources: sources,
				Options: p.Options(), Laggards: laggards})
			got, err := f.Cycle(t.Context(), Ask{Force: true}, stable)
			if err != nil || got.Err != nil || got.Outcomes[0].Err != nil || got.Outcomes[0].Verified.Manifest.Sequence != 42 {
				t.Fatalf("%+v, %v; want 42 from the honest one", got, err)
			}
			told := fault.OK
			for _, e := range got.Events {
				if strings.Contains(e.Detail, mirror.URL) {
					told = e.Code
				}
			}
			if told != r.want {
				t.Errorf("told %s of the mirror, want %s: %+v", told, r.want, got.Events)
			}
		})
	}
}

// endless never answers, and has no deadline of its own.
type endless struct{ silent }

func (endless) Name() string { return "endless" }
func (endless) Document(ctx context.Context, _ string, _ int64) ([]byte, error) {
	<-ctx.Done()
	return nil, fault.New(fault.Unreachable, "%w", context.Cause(ctx))
}

func TestNoSourceKeepsAMachineWaiting(t *testing.T) {
	for _, r := range []string{"root-is-pinned", "root-is-asked-for"} {
		t.Run(r, func(t *testing.T) {
			m := newMachine(t, 1)
			m.trees[0].Release(stable, 42, content)
			if r == "root-is-pinned" {
				m.pin.Root = m.trees[0].Roots[0]
			}
			store, err := state.Open(m.dir, filepath.Join(m.dir, "anchor.json"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			f := New(Config{Store: store, Pin: m.pin, Channels: []manifest.Channel{stable}, Laggards: time.Millisecond,
				Sources: []source.Source{&endless{}, source.Dir(m.trees[0].Dir)}, Options: m.trees[0].Options()})
			got, err := f.Cycle(t.Context(), Ask{Force: true}, stable)
			if err != nil || errors.Join(got.Err, got.Outcomes[0].Err) != nil || !got.Outcomes[0].New {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
