package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"shoal/internal/fault"
	"shoal/manifest"
)

func open(t *testing.T, o Options) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "cache"), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheSignedContentGetsItsName(t *testing.T) {
	content := []byte("the signed bytes")
	d, length := manifest.Sum(content), int64(len(content))
	rows := []struct {
		name  string
		found []byte
		want  fault.Code
	}{
		{"right", content, fault.OK},
		{"one-bit-off", append([]byte("T"), content[1:]...), fault.ContentMismatch},
		{"cut-short", content[:5], fault.ContentMismatch},
		{"empty", nil, fault.ContentMismatch},
		{"one-byte-more", append(bytes.Clone(content), 'x'), fault.LengthExceeded},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := open(t, Options{})
			put(t, c.Unverified(d), r.found)
			f, err := c.Accept(t.Context(), c.Unverified(d), d, length)
			if fault.CodeOf(err) != r.want {
				t.Fatalf("Accept: %v, want %s", err, r.want)
			}
			if _, err := os.Lstat(c.Unverified(d)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the unverified file is still there: %v", err)
			}
			if r.want != fault.OK {
				if _, err := c.Open(t.Context(), d, length); !errors.Is(err, fault.NotFound) {
					t.Errorf("it counts as verified: %v", err)
				}
				return
			}
			defer f.Close()
			// The descriptor is the file, at its start, under its name.
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the descriptor has %q, %v", got, err)
			}
			mine, _ := f.Stat()
			named, err := os.Lstat(c.Path(d))
			if err != nil || !os.SameFile(mine, named) {
				t.Errorf("the descriptor is not the file of that name: %v", err)
			}
		})
	}
}

// What was hashed while it was written is not read again, and nothing else passes for it.
func TestAcceptChecked(t *testing.T) {
	content := []byte("the signed bytes")
	d, length := manifest.Sum(content), int64(len(content))
	rows := []struct {
		name      string
		change    func(path string) error
		unchecked bool
		want      fault.Code
	}{
		{"the-file", func(string) error { return nil }, false, fault.OK},
		{"not-checked", func(string) error { return nil }, true, fault.OK},
		{"not-checked-and-wrong", func(path string) error { return replace(path, []byte("another 16 bytes")) }, true, fault.ContentMismatch},
		{"replaced-by-the-same", func(path string) error { return replace(path, content) }, false, fault.OK},
		{"replaced", func(path string) error { return replace(path, []byte("another 16 bytes")) }, false, fault.ContentMismatch},
		{"cut", func(path string) error { return os.Truncate(path, 3) }, false, fault.ContentMismatch},
		{"longer", func(path string) error { return os.Truncate(path, length+1) }, false, fault.LengthExceeded},
		{"gone", os.Remove, false, fault.NotFound},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := open(t, Options{})
			path := c.Unverified(d)
			put(t, path, content)
			of, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.change(path); err != nil {
				t.Fatal(err)
			}
			if r.unchecked {
				of = nil
			}
			f, err := c.AcceptChecked(t.Context(), path, of, d, length)
			if fault.CodeOf(err) != r.want {
				t.Fatalf("AcceptChecked: %v, want %s", err, r.want)
			}
			if r.want != fault.OK {
				return
			}
			defer f.Close()
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the descriptor has %q, %v", got, err)
			}
			if _, err := os.Lstat(c.Path(d)); err != nil {
				t.Errorf("it has not got its name: %v", err)
			}
		})
	}
}

// replace puts another file in the place of the one at path.
func replace(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func TestChangedFileIsDropped(t *testing.T) {
	c := open(t, Options{})
	d := manifest.Sum([]byte("content"))
	put(t, c.Path(d), []byte("CONTENT"))
	if _, err := c.Open(t.Context(), d, 7); !errors.Is(err, fault.ContentMismatch) {
		t.Errorf("Open: %v, want content_mismatch", err)
	}
	if _, err := c.Open(t.Context(), d, 7); !errors.Is(err, fault.NotFound) {
		t.Errorf("Open again: %v, want not_found", err)
	}
}

// A link to somebody else's file is neither read nor renamed.
func TestLinksAreNotFollowed(t *testing.T) {
	c := open(t, Options{})
	content := []byte("content")
	d := manifest.Sum(content)
	victim := filepath.Join(t.TempDir(), "victim")
	put(t, victim, content)
	if err := os.Symlink(victim, c.Unverified(d)); err != nil {
		t.Skipf("skipped: no symbolic links here: %v", err)
	}
	if _, err := c.Accept(t.Context(), c.Unverified(d), d, 7); err == nil {
		t.Error("a link was accepted")
	}
	if got, err := os.ReadFile(victim); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file it leads to: %q, %v", got, err)
	}
}

func TestAdmit(t *testing.T) {
	d := manifest.Sum(nil)
	free, err := Free(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		o      Options
		length int64
		want   fault.Code

		besides int64
	}{
		{"small", Options{}, 1, fault.OK, 0},
		{"over-the-policy", Options{MaxFile: 100}, 101, fault.Quota, 0},
		{"at-the-policy", Options{MaxFile: 100}, 100, fault.OK, 0},
		{"larger-than-any-disk-is-policy-first", Options{MaxFile: 1 << 40}, 1 << 52, fault.Quota, 0},
		{"larger-than-the-disk", Options{}, 1 << 60, fault.NoSpace, 0},
		{"into-the-reserve", Options{Reserve: free * 2}, 1, fault.NoSpace, 0},
		{"with-what-goes-beside-it", Options{}, 1, fault.NoSpace, 1 << 60},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := open(t, r.o).Admit(d, r.length, r.besides); fault.CodeOf(err) != r.want {
				t.Errorf("Admit: %v, want %s", err, r.want)
			}
		})
	}
}

func TestPruneAndRemove(t *testing.T) {
	c := open(t, Options{})
	keep, drop := manifest.Sum([]byte("keep")), manifest.Sum([]byte("drop"))
	for _, path := range []string{c.Path(keep), c.Unverified(keep), c.Path(drop), c.Unverified(drop), c.Direct(drop), c.Info(drop)} {
		put(t, path, []byte("x"))
	}
	foreign := filepath.Join(c.Dir(), "README")
	put(t, foreign, []byte("not ours"))
	if err := c.Prune(func(d manifest.Digest) bool { return d == keep }); err != nil {
		t.Fatal(err)
	}
	got, err := c.Stored()
	for i := range got {
		if !got[i].Whole {
			got[i].Bytes = 1 // however much the file system says that one byte takes
		}
	}
	if want := []File{{keep, 1, true}, {keep, 1, false}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("stored %v, %v; want %v", got, err, want)
	}
	for _, path := range []string{c.Unverified(drop), c.Direct(drop)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
	if err := Remove(c.Dir()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.Dir())
	if err != nil || len(entries) != 1 || entries[0].Name() != "README" {
		t.Errorf("left %v, %v; want only what is not ours", entries, err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if err := Remove(c.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(c.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty cache is still there: %v", err)
	}
	if err := Remove(c.Dir()); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

func TestCheckReadsOneByteTooManyAtMost(t *testing.T) {
	endless := &counter{}
	err := Check(t.Context(), endless, manifest.Sum(nil), 1000)
	if !errors.Is(err, fault.LengthExceeded) || endless.n > 1<<20 {
		t.Errorf("%v after %d bytes, want length_exceeded soon after 1000", err, endless.n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ctx, endless, manifest.Sum(nil), 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type counter struct{ n int }

func (c *counter) Read(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func TestTake(t *testing.T) {
	c := open(t, Options{})
	content := []byte("the signed content")
	d, gone := manifest.Sum(content), errors.New("the stick is gone")
	for name, r := range map[string]struct {
		from io.Reader
		want error
	}{
		"other-content":       {strings.NewReader("some other content"), fault.ContentMismatch},
		"shorter":             {strings.NewReader("the signed"), fault.ContentMismatch},
		"longer":              {io.MultiReader(bytes.NewReader(content), strings.NewReader("x")), fault.LengthExceeded},
		"a-reader-that-fails": {io.MultiReader(strings.NewReader("the"), iotest.ErrReader(gone)), gone},
	} {
		if err := c.Take(t.Context(), r.from, d, int64(len(content))); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", name, err, r.want)
		}
		if files, err := filepath.Glob(c.Path(d) + "*"); err != nil || len(files) != 0 {
			t.Errorf("%s: left %v, %v", name, files, err)
		}
	}
	// What one that died left does not matter.
	put(t, c.Path(d)+".import"+unverified, []byte("the sig"))
	if err := c.Take(t.Context(), bytes.NewReader(content), d, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), d, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
