// Package bundle reads and writes bundles: the static tree as one file, for a stick.
//
// [Open] takes a bundle whole or not at all, and needs little memory for it: whatever the
// bytes are, what it hands out has names of package tree, once each, no document is larger
// than it may be, and nothing is missing at the end or behind it. That says nothing about
// what the files are worth: their reader verifies them as if they came over the network.
//
// A bundle is a POSIX ustar archive, not compressed, of regular files alone: root/, m/, b/,
// info/ and data/, with two blocks of zeros at its very end. [Write] makes the same bytes
// of the same files, always.
package bundle

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

// Suffix ends the names of bundles.
const Suffix = ".shoalbundle"

const (
	// A manifest names some eight thousand files at most, and an agent follows a thousand
	// roots.
	maxFiles = 16 << 10
	// maxHeaders bounds what is read to find the files, in bytes: a header is a block, and
	// a few more when its file is larger than 8 GiB; skipping a file reads a block of it.
	maxHeaders = maxFiles * 6 * block
	maxInfo    = 256 << 10 // of an info dict, as package swarm reads them

	block = 512
	end   = 2 * block // of zeros
)

// Bundle is an open bundle. Its methods may be called concurrently.
type Bundle struct {
	r     io.ReaderAt
	names []string // in the order of the bundle
	files map[string]place
}

type place struct{ at, size int64 }

// Open finds the files in a bundle of size bytes. Their content is not read.
//
// Errors are *fault.Error, but for those of r: unsafe_path for anything that is no file of
// a tree or is there twice, too_large for a document over the limit of its kind,
// decode_limit for too many files, malformed for the rest.
func Open(r io.ReaderAt, size int64) (*Bundle, error) {
	b := &Bundle{r: r, files: map[string]place{}}
	c := &cursor{r: r, size: size}
	after, err := b.index(c)
	var known *fault.Error
	switch {
	case c.err != nil:
		return nil, c.err
	case errors.As(err, &known):
		return nil, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, bad("the bundle is cut short").Line("It ends, after %d bytes, within %s.", size, b.last())
	case err != nil:
		return nil, bad("this is no bundle: %w", err)
	case size < after+end:
		return nil, bad("the bundle is cut short").Line("It has %d bytes of %d: its end is missing.", size, after+end).
			Fact("found", size).Fact("expected", after+end)
	case size > after+end:
		return nil, bad("something follows the end of the bundle").Line("It has %d bytes, and %d of them are the bundle.", size, after+end).
			Fact("found", size).Fact("expected", after+end)
	}
	return b, b.complete()
}

// index takes down where each file is, and returns where the last one ends.
func (b *Bundle) index(c *cursor) (after int64, err error) {
	tr := tar.NewReader(c)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return after, nil
		}
		if err != nil {
			return after, err
		}
		if err := b.check(h); err != nil {
			return after, err
		}
		if h.Size > c.size-c.at {
			return after, bad("the bundle is cut short").
				Line("Of %q, %d of %d bytes are there.", h.Name, c.size-c.at, h.Size).
				Fact("file", h.Name).Fact("found", c.size-c.at).Fact("expected", h.Size)
		}
		b.names = append(b.names, h.Name)
		b.files[h.Name] = place{c.at, h.Size}
		after = c.at + (h.Size+block-1)/block*block
	}
}

// check refuses an entry that does not belong in a bundle.
func (b *Bundle) check(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg {
		return unsafe(h, "a link, a directory, a device, or another thing that is no file")
	}
	dir, _, _ := strings.Cut(h.Name, "/")
	limit, known := limits[dir]
	if !known || !tree.Valid(h.Name) {
		return unsafe(h, "a name that bundles do not have")
	}
	if _, twice := b.files[h.Name]; twice {
		return unsafe(h, "a name that was there before")
	}
	for record := range h.PAXRecords {
		if record != "size" {
			return bad("this is no bundle: it was not written as a plain archive").Line("The entry %q has the record %q.", clip(h.Name), clip(record))
		}
	}
	if h.Format != tar.FormatUSTAR && h.Format != tar.FormatPAX {
		return bad("this is no bundle: it was not written as a POSIX ustar archive").Line("Its first other entry is %q.", clip(h.Name))
	}
	if limit > 0 && h.Size > limit {
		return fault.New(fault.TooLarge, "%q in the bundle is larger than the %d bytes it may have", h.Name, limit).
			Line("It says that it has %d bytes.", h.Size).Line(unchanged).
			Fact("file", h.Name).Fact("limit", limit).Fact("found", h.Size)
	}
	if len(b.files) == maxFiles {
		return fault.New(fault.DecodeLimit, "the bundle has more than %d files", maxFiles).Line(unchanged)
	}
	return nil
}

// limits are the directories of a bundle and how large a file in each may be; zero for
// payloads, whose lengths are signed.
var limits = map[string]int64{
	"root": manifest.MaxRoot,
	"m":    manifest.MaxManifest,
	"b":    manifest.MaxBeacon,
	"info": maxInfo,
	"data": 0,
}

// complete says what a bundle lacks to be of any use.
func (b *Bundle) complete() error {
	var roots int64
	channels := 0
	for _, name := range b.names {
		switch dir, _, _ := strings.Cut(name, "/"); dir {
		case "root":
			roots++
		case "m":
			channels++
		}
	}
	for v := int64(1); v <= max(roots, 1); v++ {
		if _, ok := b.files[tree.Root(v)]; !ok {
			return bad("the bundle has no %q", tree.Root(v)).Line("Without every root from the first one on, nothing in it can be verified.")
		}
	}
	if channels == 0 {
		return bad("the bundle has no release").Line("There is no m/APP/CHANNEL.json in it.")
	}
	return nil
}

// Names returns the names of the files, in their order.
func (b *Bundle) Names() []string { return append([]string(nil), b.names...) }

// Channels returns the channels that the bundle has a manifest of, in its order.
func (b *Bundle) Channels() []manifest.Channel {
	var all []manifest.Channel
	for _, name := range b.names {
		if rest, ok := strings.CutPrefix(name, "m/"); ok {
			if ch, err := manifest.ParseChannel(strings.TrimSuffix(rest, ".json")); err == nil {
				all = append(all, ch)
			}
		}
	}
	return all
}

// File returns a reader of the file; fs.ErrNotExist when it is not there.
func (b *Bundle) File(name string) (*io.SectionReader, error) {
	p, ok := b.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NewSectionReader(b.r, p.at, p.size), nil
}

// Document returns a whole file of at most limit bytes: too_large when it is longer,
// fs.ErrNotExist when it is not there.
func (b *Bundle) Document(name string, limit int64) ([]byte, error) {
	f, err := b.File(name)
	if err != nil {
		return nil, err
	}
	if f.Size() > limit {
		return nil, fault.New(fault.TooLarge, "%q in the bundle is larger than the %d bytes it may have", name, limit).
			Line(unchanged).Fact("file", name).Fact("limit", limit)
	}
	doc := make([]byte, f.Size())
	_, err = io.ReadFull(f, doc)
	return doc, err
}

// last is the file that was found last, for people.
func (b *Bundle) last() string {
	if len(b.names) == 0 {
		return "its beginning"
	}
	return b.names[len(b.names)-1] + " or what follows it"
}

const unchanged = "Nothing was changed; what is installed keeps running."

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.Malformed, format, args...).Line(unchanged).
		Do("copy it from where it was made once more; there: shoal bundle verify FILE")
}

func unsafe(h *tar.Header, why string) error {
	return fault.New(fault.UnsafePath, "the bundle has %s", why).
		Line("Its entry is %q; a bundle has files of a tree alone.", clip(h.Name)).Line(unchanged).
		Do("make it with shoal bundle create").Fact("entry", clip(h.Name))
}

func clip(s string) string {
	return filepath.ToSlash(strings.ToValidUTF8(s[:min(len(s), 200)], "�"))
}

// cursor reads forward, and counts: what is skipped costs nothing.
type cursor struct {
	r        io.ReaderAt
	at, size int64
	read     int64
	err      error // of r, which is not the bundle's fault
}

func (c *cursor) Read(p []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	if c.read >= maxHeaders {
		return 0, fault.New(fault.DecodeLimit, "the bundle has too much beside its files").Line(unchanged)
	}
	n, err := c.r.ReadAt(p[:min(int64(len(p)), c.size-c.at)], c.at)
	c.at, c.read = c.at+int64(n), c.read+int64(n)
	if n > 0 || err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		c.err = err
	}
	return 0, err
}

// Seek implements io.Seeker, relative to where it is.
func (c *cursor) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 || c.at+offset < c.at {
		return 0, errors.New("a bundle is read forward")
	}
	c.at += offset
	return c.at, nil
}
