package source

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/bundle"
	names "shoal/manifest/tree"
)

var (
	stable = manifest.Channel{App: "acme", Name: "stable"}
	data   = names.Data(manifest.Sum([]byte("0123456789")))
)

func newBundle(t *testing.T) *Bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.shoalbundle")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var files []bundle.File
	for name, content := range map[string]string{names.Root(1): "a root", names.Manifest(stable): "a manifest", data: "0123456789"} {
		files = append(files, bundle.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}})
	}
	if err := bundle.Write(f, files); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// A bundle keeps the promises of every source.
func TestBundle(t *testing.T) {
	b, ctx := newBundle(t), t.Context()
	if doc, err := b.Document(ctx, names.Manifest(stable), limit); err != nil || string(doc) != "a manifest" {
		t.Errorf("Document = %q, %v", doc, err)
	}
	if _, err := b.Document(ctx, names.Manifest(stable), 3); !errors.Is(err, fault.TooLarge) {
		t.Errorf("a document over the limit: %v, want too_large", err)
	}
	if _, err := b.Document(ctx, names.Beacon(stable), limit); !errors.Is(err, fault.NotFound) {
		t.Errorf("a missing document: %v, want not_found", err)
	}
	if _, _, err := b.Data(ctx, names.Data(manifest.Sum(nil)), 0); !errors.Is(err, fault.NotFound) {
		t.Errorf("missing data: %v, want not_found", err)
	}
	for _, offset := range []int64{0, 4} {
		r, at, err := b.Data(ctx, data, offset)
		if err != nil || at != offset {
			t.Fatalf("Data from %d: at %d, %v", offset, at, err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "0123456789"[offset:] {
			t.Errorf("Data from %d: %q, %v", offset, got, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Document(ended, names.Manifest(stable), limit); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled read: %v, want context.Canceled", err)
	}
}

// A stick that is pulled out in the middle is unreachable, and not a bad document.
func TestBundleThatGoesAway(t *testing.T) {
	b := newBundle(t)
	r, _, err := b.Data(t.Context(), data, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, fault.Unreachable) {
		t.Errorf("data: %v, want unreachable", err)
	}
	if _, err := b.Document(t.Context(), names.Manifest(stable), limit); !errors.Is(err, fault.Unreachable) {
		t.Errorf("a document: %v, want unreachable", err)
	}
}

func TestOpenBundleRefuses(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page")
	if err := os.WriteFile(page, []byte("<!doctype html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fault.Code{
		filepath.Join(dir, "none"): fault.NotFound,
		dir:                        fault.Usage,
		page:                       fault.Malformed,
	} {
		if _, err := OpenBundle(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}
