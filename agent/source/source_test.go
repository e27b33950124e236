package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/internal/fault"
)

const limit = 1 << 10

// tree writes files into a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, ref string, o Options) Source {
	t.Helper()
	s, err := Open(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hasty is for sources that do too little: how long those may is not waited for.
var hasty = Options{DocumentDeadline: 20 * time.Second, Window: 200 * time.Millisecond}

func serve(t *testing.T, h http.Handler, o Options) Source {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return open(t, srv.URL, o)
}

// Every kind of source keeps the same promises.
func TestConformance(t *testing.T) {
	dir := tree(t, map[string]string{
		"m/acme/stable.json": "a manifest",
		"big":                strings.Repeat("x", limit+1),
		"full":               strings.Repeat("x", limit),
		"data/1":             "0123456789",
	})
	kinds := map[string]Source{
		"directory": open(t, dir, Options{}),
		"file-url":  open(t, "file://"+filepath.ToSlash(dir), Options{}),
		"web":       serve(t, http.FileServer(http.Dir(dir)), Options{}),
	}
	for kind, s := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			if b, err := s.Document(ctx, "m/acme/stable.json", limit); err != nil || string(b) != "a manifest" {
				t.Errorf("Document = %q, %v", b, err)
			}
			if b, err := s.Document(ctx, "full", limit); err != nil || len(b) != limit {
				t.Errorf("a document of exactly the limit: %d bytes, %v", len(b), err)
			}
			if _, err := s.Document(ctx, "big", limit); !errors.Is(err, fault.TooLarge) {
				t.Errorf("a document over the limit: %v, want too_large", err)
			}
			if _, err := s.Document(ctx, "b/acme/stable.json", limit); !errors.Is(err, fault.NotFound) {
				t.Errorf("a missing document: %v, want not_found", err)
			}
			if _, _, err := s.Data(ctx, "data/2", 0); !errors.Is(err, fault.NotFound) {
				t.Errorf("missing data: %v, want not_found", err)
			}
			for _, offset := range []int64{0, 4} {
				r, at, err := s.Data(ctx, "data/1", offset)
				if err != nil || at != offset {
					t.Fatalf("Data from %d: at %d, %v", offset, at, err)
				}
				b, err := io.ReadAll(r)
				r.Close()
				if err != nil || string(b) != "0123456789"[offset:] {
					t.Errorf("Data from %d: %q, %v", offset, b, err)
				}
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := s.Document(ended, "m/acme/stable.json", limit); !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled read: %v, want context.Canceled", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, ref := range []string{"", "ftp://x/y", "https://", "file://elsewhere/x", "http:", "://", "s3://bucket"} {
		if _, err := Open(ref, Options{}); !errors.Is(err, fault.Config) {
			t.Errorf("Open(%q): %v, want config", ref, err)
		}
	}
}

// drip sends one byte at a time for as long as somebody listens.
func drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
		}
	}
}

func TestSlowSenderIsCutOff(t *testing.T) {
	s := serve(t, http.HandlerFunc(drip), hasty)
	if _, err := s.Document(t.Context(), "m", 1<<20); !errors.Is(err, fault.Unreachable) {
		t.Errorf("document from a slow sender: %v, want unreachable", err)
	}
	r, _, err := s.Data(t.Context(), "d", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, fault.Unreachable) || !strings.Contains(err.Error(), "bytes came in") {
		t.Errorf("data from a slow sender: %v, want unreachable and the bytes that came", err)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, "http://"+l.Addr().String(), hasty) // accepts, never answers
	if _, _, err := s.Data(t.Context(), "d", 0); !errors.Is(err, fault.Unreachable) {
		t.Errorf("a silent server: %v, want unreachable", err)
	}
}

// An endless document ends at its limit, with no more than that taken from the sender's hands.
func TestEndlessDocumentEndsAtItsLimit(t *testing.T) {
	var sent atomic.Int64
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := bytes.Repeat([]byte("x"), 32<<10)
		for {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}), Options{})
	b, err := s.Document(t.Context(), "m", limit)
	if !errors.Is(err, fault.TooLarge) || b != nil {
		t.Errorf("endless document: %d bytes, %v; want too_large", len(b), err)
	}
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("the sender got rid of %d bytes", n)
	}
}

func TestUnchangedDocumentIsNotSentAgain(t *testing.T) {
	content, sent := "one", 0
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tag := fmt.Sprintf("%q", content)
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent++
		io.WriteString(w, content)
	}), Options{})
	want := func(body string, bodies int) {
		t.Helper()
		b, err := s.Document(t.Context(), "m", limit)
		if err != nil || string(b) != body || sent != bodies {
			t.Errorf("Document = %q, %v after %d bodies; want %q after %d", b, err, sent, body, bodies)
		}
	}
	want("one", 1)
	want("one", 1)
	content = "two"
	want("two", 2)
	want("two", 2)
	if _, err := s.Document(t.Context(), "m", 2); !errors.Is(err, fault.TooLarge) {
		t.Errorf("a remembered document over a smaller limit: %v, want too_large", err)
	}
}

// Documents come over one connection, also after one that is not there.
func TestConnectionIsUsedAgain(t *testing.T) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.Error(w, "not found", http.StatusNotFound)
		}
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	for i, path := range []string{"there", "elsewhere", "there", "elsewhere", "there"} {
		s := open(t, srv.URL, Options{}) // each time anew
		if _, err := s.Document(t.Context(), path, limit); (err != nil) != (path == "elsewhere") {
			t.Errorf("document %d: %v", i, err)
		}
		if _, _, err := s.Data(t.Context(), "elsewhere", 0); err == nil {
			t.Error("payload that is not there was opened")
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

func TestServerWithoutRangesBeginsAtZero(t *testing.T) {
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "whole") }), Options{})
	r, at, err := s.Data(t.Context(), "d", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _ := io.ReadAll(r); at != 0 || string(b) != "whole" {
		t.Errorf("begins at %d with %q, want all of it from 0", at, b)
	}
}

func TestAnswersThatAreNoDocument(t *testing.T) {
	rows := []struct {
		name   string
		answer http.HandlerFunc
		want   fault.Code
	}{
		{"server-error", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, fault.Unreachable},
		{"forbidden", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, fault.Unreachable},
		{"gone", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(410) }, fault.NotFound},
		{"not-modified-unasked", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, fault.Unreachable},
		{"redirected-in-a-circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/m", http.StatusFound) }, fault.Unreachable},
		{"cut-short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
		}, fault.Unreachable},
		{"claims-more-than-the-limit", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1073741824")
		}, fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if b, err := serve(t, r.answer, Options{}).Document(t.Context(), "m", limit); !errors.Is(err, r.want) {
				t.Errorf("Document = %q, %v; want %s", b, err, r.want)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := open(t, "http://"+l.Addr().String(), Options{}).Document(t.Context(), "m", limit); !errors.Is(err, fault.Unreachable) {
		t.Errorf("nobody listens: %v, want unreachable", err)
	}
}

func TestEncryptedSourceIsNotRedirectedToPlain(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") }))
	defer plain.Close()
	tls := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer tls.Close()
	s, err := Open(tls.URL, Options{Transport: tls.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.Document(t.Context(), "m", limit); !errors.Is(err, fault.Unreachable) {
		t.Errorf("Document = %q, %v; want unreachable", b, err)
	}
}
