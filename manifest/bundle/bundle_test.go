package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

var (
	stable  = manifest.Channel{App: "acme", Name: "stable"}
	payload = strings.Repeat("payload ", 1000)
	data    = tree.Data(manifest.Sum([]byte(payload)))
)

// good are files of a bundle; not their worth, but their shape is looked at here.
func good() []File {
	return []File{
		text(data, payload),
		text(tree.Manifest(stable), "a manifest"),
		text(tree.Root(2), "root two"),
		text(tree.Root(1), "root one"),
		text(tree.Beacon(stable), ""),
	}
}

func text(name, content string) File {
	return File{name, int64(len(content)), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

func written(t testing.TB, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(b []byte) (*Bundle, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func TestWhatIsWrittenIsRead(t *testing.T) {
	raw := written(t, good())
	b, err := open(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{tree.Root(1), tree.Root(2), tree.Manifest(stable), tree.Beacon(stable), data}
	if !slices.Equal(b.Names(), want) {
		t.Errorf("names %q, want %q", b.Names(), want)
	}
	if got := b.Channels(); !slices.Equal(got, []manifest.Channel{stable}) {
		t.Errorf("channels %v", got)
	}
	f, err := b.File(data)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != payload {
		t.Errorf("the payload: %d bytes, %v", len(got), err)
	}
	if got, err := b.Document(tree.Root(2), 100); err != nil || string(got) != "root two" {
		t.Errorf("the second root: %q, %v", got, err)
	}
	if _, err := b.Document(tree.Root(2), 3); !errors.Is(err, fault.TooLarge) {
		t.Errorf("a document over the limit: %v, want too_large", err)
	}
	if _, err := b.Document(tree.Root(3), 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	// The order in which files are given makes no difference.
	other := good()
	slices.Reverse(other)
	if !bytes.Equal(written(t, other), raw) {
		t.Error("the same files make another bundle")
	}
}

// A payload larger than a plain header can say has one record more.
func TestLargePayload(t *testing.T) {
	size := int64(9 << 30)
	var head bytes.Buffer
	tw := tar.NewWriter(&head)
	for _, f := range []File{text(tree.Root(1), "1"), text(tree.Manifest(stable), "m")} {
		if err := add(tw, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: data, Size: size, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	after := int64(head.Len()) + size + end
	b, err := Open(sparse{head.Bytes()}, after)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := b.File(data); err != nil || f.Size() != size {
		t.Errorf("%v, %v", f, err)
	}
}

// sparse is a file that has a beginning, and then zeros for ever.
type sparse struct{ head []byte }

func (s sparse) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	if at < int64(len(s.head)) {
		copy(p, s.head[at:])
	}
	return len(p), nil
}

func TestWriteRefuses(t *testing.T) {
	short := text(tree.Root(1), "root")
	short.Size = 5
	long := text(tree.Root(1), "root")
	long.Size = 3
	for name, f := range map[string]File{
		"a-name-that-leads-out":   text("../x", "x"),
		"a-name-for-people":       text("releases/acme/1.0.0/linux-amd64", "x"),
		"shorter-than-it-is-said": short,
		"longer-than-it-is-said":  long,
	} {
		if err := Write(io.Discard, []File{f}); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

// entry is a tar entry as an attacker writes it.
type entry struct {
	h       tar.Header
	content string
}

// forged is an archive of entries, and of the good ones before them.
func forged(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, f := range []File{text(tree.Root(1), "root one"), text(tree.Manifest(stable), "a manifest")} {
		if err := add(tw, f); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		h := e.h
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size, h.Mode = int64(len(e.content)), 0o644
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func named(name string) entry { return entry{tar.Header{Name: name}, "x"} }

// says changes what the header of the last file says, with its checksum.
func says(raw []byte, name string, change func(h []byte)) []byte {
	raw = bytes.Clone(raw)
	at := bytes.LastIndex(raw, []byte(name))
	h := raw[at : at+block]
	change(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return raw
}

func TestBadBundles(t *testing.T) {
	raw := written(t, good())
	size := func(n int64) func([]byte) {
		return func(h []byte) { copy(h[124:136], fmt.Sprintf("%011o\x00", n)) }
	}
	without := func(name string) []byte {
		return written(t, slices.DeleteFunc(good(), func(f File) bool { return f.Name == name }))
	}
	rows := []struct {
		name string
		raw  []byte
		want fault.Code
		says string
	}{
		{"empty", nil, fault.Malformed, "cut short"},
		{"no-archive", []byte(strings.Repeat("a stick has many files ", 100)), fault.Malformed, "no bundle"},
		{"html", []byte("<!doctype html><title>Sign in</title>"), fault.Malformed, "cut short"},
		{"compressed", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, raw...), fault.Malformed, "no bundle"},
		{"cut-in-a-header", raw[:block/2], fault.Malformed, "cut short"},
		{"cut-in-a-payload", raw[:len(raw)-end-block-1000], fault.Malformed, "cut short"},
		{"cut-between-two-files", raw[:2*block], fault.Malformed, "cut short"},
		{"cut-before-the-end", raw[:len(raw)-end], fault.Malformed, "cut short"},
		{"cut-in-the-end", raw[:len(raw)-1], fault.Malformed, "cut short"},
		{"something-behind-the-end", append(bytes.Clone(raw), "x"...), fault.Malformed, "follows the end"},
		{"zeros-behind-the-end", append(bytes.Clone(raw), make([]byte, block)...), fault.Malformed, "follows the end"},
		{"another-bundle-behind-it", append(bytes.Clone(raw), raw...), fault.Malformed, "follows the end"},
		{"upwards", forged(t, named("../etc/passwd")), fault.UnsafePath, "../etc/passwd"},
		{"upwards-in-between", forged(t, named("data/../../x")), fault.UnsafePath, "data/../../x"},
		{"absolute", forged(t, named("/root/000002.json")), fault.UnsafePath, "/root/000002.json"},
		{"backslash", forged(t, named(`root\000002.json`)), fault.UnsafePath, "root"},
		{"with-a-dot", forged(t, named("./root/000002.json")), fault.UnsafePath, "./root"},
		{"an-extra-file", forged(t, named("autorun.inf")), fault.UnsafePath, "autorun.inf"},
		{"a-release-for-people", forged(t, named("releases/acme/1.0.0/linux-amd64")), fault.UnsafePath, "releases"},
		{"a-long-name", forged(t, named("data/"+strings.Repeat("a", 4000))), fault.UnsafePath, "data/aaaa"},
		{"twice", forged(t, named(data), named(data)), fault.UnsafePath, "there before"},
		{"twice-the-manifest", forged(t, named(tree.Manifest(stable))), fault.UnsafePath, "there before"},
		{"a-directory", forged(t, entry{h: tar.Header{Name: "data/", Typeflag: tar.TypeDir}}), fault.UnsafePath, "no file"},
		{"a-symbolic-link", forged(t, entry{h: tar.Header{Name: data, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}), fault.UnsafePath, "no file"},
		{"a-hard-link", forged(t, entry{h: tar.Header{Name: data, Typeflag: tar.TypeLink, Linkname: tree.Root(1)}}), fault.UnsafePath, "no file"},
		{"a-device", forged(t, entry{h: tar.Header{Name: data, Typeflag: tar.TypeBlock, Devmajor: 8}}), fault.UnsafePath, "no file"},
		{"a-pipe", forged(t, entry{h: tar.Header{Name: data, Typeflag: tar.TypeFifo}}), fault.UnsafePath, "no file"},
		{"attributes", forged(t, entry{tar.Header{Name: data, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}, "x"}), fault.Malformed, "plain archive"},
		{"another-kind-of-archive", forged(t, entry{tar.Header{Name: data, Format: tar.FormatGNU}, "x"}), fault.Malformed, "ustar"},
		{"a-root-too-large", forged(t, entry{tar.Header{Name: tree.Root(2)}, strings.Repeat("x", manifest.MaxRoot+1)}), fault.TooLarge, "root/000002.json"},
		{"a-manifest-too-large", says(raw, tree.Manifest(stable), size(manifest.MaxManifest+1)), fault.TooLarge, "m/acme/stable.json"},
		{"a-beacon-too-large", says(raw, tree.Beacon(stable), size(manifest.MaxBeacon+1)), fault.TooLarge, "b/acme/stable.json"},
		{"a-payload-larger-than-the-file", says(raw, data, size(8<<30-1)), fault.Malformed, "cut short"},
		{"no-first-root", without(tree.Root(1)), fault.Malformed, "root/000001.json"},
		{"a-root-missing-in-between", forged(t, named(tree.Root(3))), fault.Malformed, "root/000002.json"},
		{"no-release", without(tree.Manifest(stable)), fault.Malformed, "no release"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, err := open(r.raw)
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != r.want {
				t.Fatalf("%v (%s), want %s", err, fault.CodeOf(err), r.want)
			}
			if text := e.Message + "\n" + strings.Join(e.Detail, "\n"); !strings.Contains(text, r.says) || !strings.Contains(text, "keeps running") {
				t.Errorf("it says %q; want %q, and what still works", text, r.says)
			}
		})
	}
}

// Every byte that is missing is missed.
func TestCutAnywhere(t *testing.T) {
	raw := written(t, good())
	for n := range len(raw) {
		if _, err := open(raw[:n]); !errors.Is(err, fault.Malformed) {
			t.Fatalf("cut to %d of %d bytes: %v, want malformed", n, len(raw), err)
		}
	}
}

func TestTooManyFiles(t *testing.T) {
	files := []File{text(tree.Root(1), "root"), text(tree.Manifest(stable), "m")}
	for i := range maxFiles {
		files = append(files, text(tree.Data(manifest.Sum(fmt.Append(nil, i))), ""))
	}
	if _, err := open(written(t, files)); !errors.Is(err, fault.DecodeLimit) {
		t.Errorf("%d files: %v, want decode_limit", len(files), err)
	}
}

// Headers without end, which no file follows, are not read to their end.
func TestEndlessHeaders(t *testing.T) {
	var one bytes.Buffer
	tw := tar.NewWriter(&one)
	long := "data/" + strings.Repeat("a", 300<<10)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: long, Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	record := one.Bytes()[:one.Len()-block] // the record alone, again and again
	r := &repeating{record: record}
	if _, err := Open(r, 1<<50); !errors.Is(err, fault.DecodeLimit) {
		t.Errorf("%v, want decode_limit", err)
	}
	if r.read > 2*maxHeaders {
		t.Errorf("%d bytes were read", r.read)
	}
}

type repeating struct {
	record []byte
	read   int64
}

func (r *repeating) ReadAt(p []byte, at int64) (int, error) {
	n := copy(p, r.record[at%int64(len(r.record)):])
	r.read += int64(n)
	return n, nil
}

// A stick that is pulled out is not a bundle that is wrong.
func TestReadErrorsAreTold(t *testing.T) {
	gone := errors.New("input/output error")
	if _, err := Open(broken{gone}, 10*block); !errors.Is(err, gone) {
		t.Errorf("%v, want the reader's own error", err)
	}
}

type broken struct{ err error }

func (b broken) ReadAt([]byte, int64) (int, error) { return 0, b.err }

// FuzzOpen: what is taken has names of the tree alone, once each, within the file, and
// makes a bundle again.
func FuzzOpen(f *testing.F) {
	f.Add(written(f, good()))
	f.Add(forged(f, named("../x")))
	f.Add(forged(f, entry{tar.Header{Name: data, PAXRecords: map[string]string{"VENDOR.x": "y"}}, "x"}))
	f.Add(forged(f, entry{tar.Header{Name: data, Format: tar.FormatGNU}, "x"}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := open(raw)
		if err != nil {
			var e *fault.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v has no code", err)
			}
			return
		}
		var again []File
		for _, name := range b.Names() {
			s, err := b.File(name)
			if err != nil || !tree.Valid(name) || strings.Contains(name, "..") {
				t.Fatalf("%q: %v", name, err)
			}
			content, err := io.ReadAll(s)
			if err != nil || int64(len(content)) != s.Size() {
				t.Fatalf("%q has %d of %d bytes: %v", name, len(content), s.Size(), err)
			}
			again = append(again, text(name, string(content)))
		}
		if b2, err := open(written(t, again)); err != nil || len(b2.Names()) != len(again) {
			t.Fatalf("written again: %v", err)
		}
	})
}
