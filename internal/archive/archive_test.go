package archive

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"shoal/internal/fault"
)

// pack makes a tar of headers; a header's size is that of the content made up for it.
func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func compress(t testing.TB, b []byte, o ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func walk(b []byte) ([]Entry, Summary, error) {
	var all []Entry
	sum, err := Walk(bytes.NewReader(b), func(e Entry, r io.Reader) error {
		all = append(all, e)
		if e.Type == File {
			n, err := io.Copy(io.Discard, r)
			if n != e.Size {
				return errors.Join(err, fmt.Errorf("%d bytes of %q, not %d", n, e.Name, e.Size))
			}
		}
		return nil
	})
	return all, sum, err
}

func TestEntriesAreHandedOutInOrderWithTheirDirectories(t *testing.T) {
	b := pack(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o2775},
		tar.Header{Name: "./bin/acme", Mode: 0o777, Size: 3},
		tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "bin/also", Typeflag: tar.TypeLink, Linkname: "./bin/acme"},
		tar.Header{Name: "lib/deep/er/x.so", Mode: 0o644, Size: 5},
		tar.Header{Name: "lib/x.so", Typeflag: tar.TypeSymlink, Linkname: "deep/er/x.so"},
		tar.Header{Name: "lib/deep/up", Typeflag: tar.TypeSymlink, Linkname: "../../bin/acme"},
		tar.Header{Name: "secret", Mode: 0o000},
	)
	want := []Entry{
		{Name: "bin", Type: Dir, Mode: 0o755},
		{Name: "bin/acme", Type: File, Mode: 0o755, Size: 3},
		{Name: "bin/also", Type: Hardlink, Link: "bin/acme"},
		{Name: "lib", Type: Dir, Mode: 0o755},
		{Name: "lib/deep", Type: Dir, Mode: 0o755},
		{Name: "lib/deep/er", Type: Dir, Mode: 0o755},
		{Name: "lib/deep/er/x.so", Type: File, Mode: 0o644, Size: 5},
		{Name: "lib/x.so", Type: Symlink, Link: "deep/er/x.so"},
		{Name: "lib/deep/up", Type: Symlink, Link: "../../bin/acme"},
		{Name: "secret", Type: File, Mode: 0o400},
	}
	for name, b := range map[string][]byte{
		"tar": b, "zstd": compress(t, b), "two-frames": append(compress(t, b[:700]), compress(t, b[700:])...),
		"level-19": compress(t, b, zstd.WithEncoderLevel(zstd.SpeedBestCompression)),
	} {
		got, sum, err := walk(b)
		if err != nil || sum != (Summary{Entries: len(want), Bytes: 8}) {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWhatCouldLeaveTheTreeIsRefused(t *testing.T) {
	file := tar.Header{Name: "bin/acme", Mode: 0o755, Size: 1}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	rows := map[string][]tar.Header{
		"absolute-name":                   {{Name: "/etc/passwd"}},
		"upwards":                         {{Name: "../x"}},
		"upwards-in-the-middle":           {{Name: "a/../../x"}},
		"upwards-and-back":                {{Name: "bin/../x"}},
		"backslashes":                     {{Name: `..\x`}},
		"newline":                         {{Name: "a\nb"}},
		"long-part":                       {{Name: strings.Repeat("x", 256)}},
		"long-name":                       {{Name: strings.Repeat("x/", 600) + "x"}},
		"the-mark-of-completeness":        {{Name: ".complete"}},
		"the-mark-in-capitals":            {{Name: "./.COMPLETE"}},
		"the-root-as-a-file":              {{Name: "."}},
		"absolute-link":                   {link("a", "/etc")},
		"link-upwards":                    {link("a", "..")},
		"link-out-of-a-directory":         {link("bin/a", "../../x")},
		"link-up-behind-a-name":           {link("x/y/z/a", "../../.."), link("b", "x/y/z/a/../..")},
		"file-through-a-link-to-here":     {link("a", "./"), link("a/b", "c")},
		"file-through-a-link":             {link("a", "bin"), {Name: "a/x"}},
		"file-through-a-file":             {file, {Name: "bin/acme/x"}},
		"file-over-a-link":                {link("a", "b"), {Name: "a"}},
		"file-over-a-directory":           {{Name: "a/b"}, {Name: "a"}},
		"a-name-twice":                    {file, file},
		"hard-link-upwards":               {{Name: "a", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}},
		"absolute-hard-link":              {{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}},
		"hard-link-to-a-link":             {link("a", "b"), {Name: "c", Typeflag: tar.TypeLink, Linkname: "a"}},
		"hard-link-to-what-comes-later":   {{Name: "c", Typeflag: tar.TypeLink, Linkname: "bin/acme"}, file},
		"hard-link-to-a-directory":        {file, {Name: "c", Typeflag: tar.TypeLink, Linkname: "bin"}},
		"hard-link-to-nothing":            {{Name: "c", Typeflag: tar.TypeLink, Linkname: "."}},
		"device":                          {{Name: "a", Typeflag: tar.TypeBlock}},
		"character-device":                {{Name: "a", Typeflag: tar.TypeChar}},
		"pipe":                            {{Name: "a", Typeflag: tar.TypeFifo}},
		"setuid":                          {{Name: "a", Mode: 0o4755}},
		"setgid":                          {{Name: "a", Mode: 0o2755}},
		"capabilities":                    {{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}}},
		"name-that-is-no-text":            {{Name: "a\xff", Format: tar.FormatGNU}},
		"link-with-a-drive":               {link("a", "c:evil")},
		"link-deeper-than-it-may-go-back": {link("d/e/a", "../../../x")},
	}
	for name, headers := range rows {
		t.Run(name, func(t *testing.T) {
			_, _, err := walk(pack(t, headers...))
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != fault.UnsafePath || e.Facts["entry"] == nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// header is a tar header with a size that nothing has to follow.
func header(t testing.TB, h tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBombsAreRefused(t *testing.T) {
	many := func(n int, name func(int) string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range n {
			if err := w.WriteHeader(&tar.Header{Name: name(i), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return compress(t, b.Bytes())
	}
	rows := map[string][]byte{
		"too-many-entries":   many(MaxEntries+1, func(i int) string { return fmt.Sprint(i) }),
		"too-many-in-depths": many(200, func(i int) string { return fmt.Sprint(i, strings.Repeat("/x", 500)) }),
		"too-long-names": many(maxNames/1000+1, func(i int) string {
			return fmt.Sprint(i, strings.Repeat("/"+strings.Repeat("x", 240), 4))
		}),
		"too-many-bytes":      header(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: MaxBytes + 1}),
		"largest-size-of-all": header(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 1<<63 - 1}),
		"too-large-a-window":  compress(t, make([]byte, 32<<20), zstd.WithWindowSize(16<<20), zstd.WithSingleSegment(false)),
	}
	for name, b := range rows {
		t.Run(name, func(t *testing.T) {
			_, _, err := walk(b)
			if fault.CodeOf(err) != fault.DecodeLimit {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestStreamIsBounded(t *testing.T) {
	b := &bounded{zeros{}, 10}
	if got, err := io.ReadAll(b); len(got) != 10 || fault.CodeOf(err) != fault.DecodeLimit {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestWhatIsNoArchiveIsMalformed(t *testing.T) {
	good := pack(t, tar.Header{Name: "a", Size: 2000})
	sparse, _ := hex.DecodeString("53") // GNU's old kind of sparse file
	odd := bytes.Clone(good)
	odd[156] = sparse[0]
	rows := map[string][]byte{
		"nothing": nil, "zeros": make([]byte, 1024), "text": []byte(strings.Repeat("no archive ", 200)),
		"cut": good[:1500], "cut-zstd": compress(t, good)[:30], "gzip": {0x1f, 0x8b, 8, 0}, "magic-alone": zstdMagic, "sparse": odd,
	}
	for name, b := range rows {
		if _, _, err := walk(b); fault.CodeOf(err) != fault.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a caller fails with, or its file, is not taken for a fault of the archive.
func TestErrorsOfOthersAreKept(t *testing.T) {
	b := pack(t, tar.Header{Name: "a", Size: 200 << 10})
	mine := errors.New("mine")
	if _, err := Walk(bytes.NewReader(b), func(Entry, io.Reader) error { return mine }); err != mine {
		t.Errorf("visit's: %v", err)
	}
	_, err := Walk(io.MultiReader(bytes.NewReader(b[:100<<10]), failing{mine}), func(_ Entry, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err != mine {
		t.Errorf("the source's: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Every archive that is accepted can be made inside a directory, and nothing appears
// outside of it.
func FuzzWalk(f *testing.F) {
	f.Add(pack(f, tar.Header{Name: "bin/acme", Mode: 0o755, Size: 3}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "bin/../x"}))
	f.Add(pack(f, tar.Header{Name: "a/b/c", Typeflag: tar.TypeSymlink, Linkname: "../.."}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}))
	f.Add(compress(f, pack(f, tar.Header{Name: "x", Size: 1 << 10}, tar.Header{Name: "y", Typeflag: tar.TypeLink, Linkname: "x"})))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var sum int64
		s, err := Walk(bytes.NewReader(b), func(e Entry, r io.Reader) error {
			if first, _, _ := strings.Cut(e.Name, "/"); first == ".." || path.IsAbs(e.Name) || path.Clean(e.Name) != e.Name {
				t.Fatalf("name %q", e.Name)
			}
			if e.Mode&^0o755 != 0 || e.Size < 0 {
				t.Fatalf("%+v", e)
			}
			sum += e.Size
			if e.Size > 1<<20 {
				return errors.New("enough")
			}
			switch e.Type {
			case Dir:
				return root.Mkdir(e.Name, 0o700)
			case Symlink:
				return root.Symlink(e.Link, e.Name)
			case Hardlink:
				return root.Link(e.Link, e.Name)
			}
			f, err := root.OpenFile(e.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := io.Copy(f, r)
			if err == nil && n != e.Size {
				t.Fatalf("%q has %d bytes, not %d", e.Name, n, e.Size)
			}
			return err
		})
		if err != nil {
			var pe *os.LinkError
			if errors.As(err, &pe) && errors.Is(err, os.ErrExist) {
				t.Fatalf("a name twice: %v", err)
			}
			return
		}
		if s.Bytes != sum {
			t.Fatalf("%+v, and %d bytes were handed out", s, sum)
		}
		err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			// Whatever a link leads to, if it is there, is inside.
			if real, err := filepath.EvalSymlinks(p); err == nil && real != dir && !strings.HasPrefix(real, dir+"/") {
				t.Fatalf("%q leads to %q", p, real)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
