// Package archive reads the tar of a tree artifact, plain or compressed with zstd.
//
// Whatever the bytes are, the entries it hands out, made one after the other, stay
// inside the directory they are made in, are directories, files and links only, and
// are no more and no larger than the limits say; it needs little memory for them.
package archive

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"shoal/internal/fault"
)

// Limits of every archive. Reading one needs less than 48 MiB, whatever is in it.
const (
	MaxEntries = 100_000
	MaxBytes   = 16 << 30 // of all files, unpacked

	maxNames  = 8 << 20 // bytes of all names
	maxName   = 1024    // of one
	maxPart   = 255     // of one element of a name
	maxWindow = 8 << 20 // of zstd, which RFC 8878 asks every decoder for
	// maxStream bounds the tar itself, headers and padding included.
	maxStream = MaxBytes + 4<<30
)

// Type is what an entry is.
type Type byte

// The types of entries.
const (
	Dir      Type = 'd'
	File     Type = 'f'
	Symlink  Type = 'l'
	Hardlink Type = 'h'
)

// Entry is one thing in an archive.
type Entry struct {
	Name string // relative, with slashes, without "." and ".."
	Type Type
	Mode fs.FileMode // permissions; nobody but the owner may write
	Size int64       // of a File
	Link string      // what a Symlink says, or the Name of the earlier File that a Hardlink is one with
}

// Summary is what an archive comes to.
type Summary struct {
	Entries int
	Bytes   int64 // of all files
}

// Walk calls visit for each entry of the archive in r, in its order. A directory
// comes before what is in it, made up if need be; r gives a File's content and is
// valid until visit returns.
//
// Errors are *fault.Error, but for those of r and visit: unsafe_path when an entry could
// reach out of the tree or is nothing a tree has, decode_limit when there is too much of
// something, malformed when it is no archive.
func Walk(r io.Reader, visit func(e Entry, r io.Reader) error) (Summary, error) {
	src := &source{r: r}
	plain, closer, err := decompress(src)
	if err != nil {
		return Summary{}, src.explain(err)
	}
	defer closer()
	w := walker{kinds: map[string]Type{".": Dir}, visit: visit}
	tr := tar.NewReader(&bounded{plain, maxStream})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return w.sum, src.explain(err)
		}
		if err := w.entry(h, tr); err != nil {
			return w.sum, src.explain(err)
		}
	}
	if w.sum.Entries == 0 {
		return w.sum, fault.New(fault.Malformed, "the archive is empty").Line("a tree is a tar, plain or compressed with zstd")
	}
	return w.sum, nil
}

// source remembers what reading failed with: what goes wrong with the archive's own
// bytes, with what is in them, and with what they are made into are three things.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *source) explain(err error) error {
	var known *fault.Error
	var ours *visitError
	switch {
	case errors.As(err, &ours):
		return ours.error
	case s.err != nil:
		return s.err
	case errors.As(err, &known):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fault.New(fault.DecodeLimit, "the archive was compressed with too large a window").
			Line("at most %d MiB are read", maxWindow>>20).Do("publisher: compress with zstd -19 or less, without --long and --ultra")
	}
	return fault.New(fault.Malformed, "the archive cannot be read: %w", err).Line("a tree is a tar, plain or compressed with zstd")
}

// bounded fails, instead of ending, after n bytes.
type bounded struct {
	r io.Reader
	n int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.n <= 0 {
		return 0, tooMuch("it unpacks to more than %d bytes", int64(maxStream))
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.n)])
	b.n -= int64(n)
	return n, err
}

// visitError is what visit returned.
type visitError struct{ error }

var (
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	gzipMagic = []byte{0x1f, 0x8b}
)

// decompress returns the tar in r.
func decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case strings.HasPrefix(string(head), string(zstdMagic)):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	case strings.HasPrefix(string(head), string(gzipMagic)):
		return nil, nil, fault.New(fault.Malformed, "the archive is compressed with gzip").
			Line("a tree is a tar, plain or compressed with zstd").Do("publisher: zstd -19 FILE.tar, or publish the .tar itself")
	}
	return b, func() {}, nil
}

// walker checks entries one by one.
type walker struct {
	kinds map[string]Type // of every name there is
	names int
	sum   Summary
	visit func(Entry, io.Reader) error
}

func unsafe(h *tar.Header, why string) error {
	return fault.New(fault.UnsafePath, "the archive is not safe to unpack: %s", why).
		Line("its entry is %q", clip(h.Name)).Fact("entry", clip(h.Name))
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "�") }

func (w *walker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader { // a comment of the archive's maker
		return w.count(h, 0)
	}
	e := Entry{Name: path.Clean(h.Name)}
	if why := badName(h.Name); why != "" {
		return unsafe(h, why)
	}
	if h.Typeflag == tar.TypeReg && h.Mode&0o6000 != 0 {
		return unsafe(h, "a setuid or setgid file")
	}
	if _, caps := h.PAXRecords["SCHILY.xattr.security.capability"]; caps {
		return unsafe(h, "a file with capabilities")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type, e.Mode = Dir, fs.FileMode(h.Mode)&0o755|0o700
	case tar.TypeReg:
		e.Type, e.Mode, e.Size = File, fs.FileMode(h.Mode)&0o755|0o400, h.Size
	case tar.TypeSymlink:
		e.Type, e.Link = Symlink, h.Linkname
		if !staysInside(path.Dir(e.Name), h.Linkname) {
			return unsafe(h, "a link that leads out of the tree")
		}
	case tar.TypeLink:
		e.Type, e.Link = Hardlink, path.Clean(h.Linkname)
		if why := badName(h.Linkname); why != "" || w.kinds[e.Link] != File {
			return unsafe(h, "a hard link to something that is no earlier file of the archive")
		}
	default:
		return unsafe(h, "a device, a pipe, or another thing that trees do not have")
	}
	return w.hand(h, e, r)
}

// hand gives e to visit, with the directories that lead to it before.
func (w *walker) hand(h *tar.Header, e Entry, r io.Reader) error {
	if kind, twice := w.kinds[e.Name]; twice {
		if kind == Dir && e.Type == Dir {
			return nil // as "./", or listed again
		}
		return unsafe(h, "a name that was there before")
	}
	var missing []string
	for dir := path.Dir(e.Name); ; dir = path.Dir(dir) {
		kind, ok := w.kinds[dir]
		if ok && kind != Dir {
			return unsafe(h, "a name that leads through a file or a link")
		}
		if ok {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := w.add(h, Entry{Name: missing[i], Type: Dir, Mode: 0o755}, nil); err != nil {
			return err
		}
	}
	return w.add(h, e, r)
}

func (w *walker) add(h *tar.Header, e Entry, r io.Reader) error {
	if err := w.count(h, e.Size); err != nil {
		return err
	}
	if w.names += len(e.Name); w.names > maxNames {
		return tooMuch("its names have more than %d bytes together", maxNames)
	}
	w.kinds[e.Name] = e.Type
	content := &source{r: r}
	err := w.visit(e, content)
	switch {
	case content.err != nil:
		return content.err
	case err != nil:
		return &visitError{err}
	}
	return nil
}

func (w *walker) count(h *tar.Header, size int64) error {
	if w.sum.Entries++; w.sum.Entries > MaxEntries {
		return tooMuch("it has more than %d entries", MaxEntries)
	}
	if size < 0 || size > MaxBytes-w.sum.Bytes {
		return tooMuch("its files have more than %d bytes together", int64(MaxBytes))
	}
	w.sum.Bytes += size
	return nil
}

func tooMuch(format string, a ...any) error {
	return fault.New(fault.DecodeLimit, "the archive is too large to unpack").Line(format, a...)
}

// badName tells what is wrong with a name, if anything is.
func badName(name string) string {
	switch {
	case name == "" || len(name) > maxName:
		return "an empty name, or one that is too long"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		return "a name with a backslash, control characters or invalid UTF-8"
	case strings.HasPrefix(name, "/"):
		return "an absolute name"
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "a name that leads upwards"
		}
		if len(part) > maxPart {
			return "an empty name, or one that is too long"
		}
	}
	if clean := path.Clean(name); !filepath.IsLocal(filepath.FromSlash(clean)) || strings.EqualFold(clean, Reserved) {
		return "a name that means something else here"
	}
	return ""
}

// Reserved is a name that no entry at the top of a tree may have: whoever unpacks it
// notes there that it is complete.
const Reserved = ".complete"

// staysInside reports whether a symbolic link in dir, a real directory of the tree,
// stays in the tree. Its ".."s must all come first: behind the name of another link they
// would count from somewhere else.
func staysInside(dir, link string) bool {
	if link == "" || len(link) > maxName || strings.HasPrefix(link, "/") || strings.ContainsAny(link, "\\\x00:") {
		return false
	}
	depth := 0
	if dir != "." {
		depth = 1 + strings.Count(dir, "/")
	}
	below := false
	for part := range strings.SplitSeq(link, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; below || depth < 0 {
				return false
			}
		default:
			below = true
		}
	}
	return true
}
