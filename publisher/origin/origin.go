// Package origin serves a repository's tree of static files over HTTP.
//
// It hands out the names that package tree knows and nothing else, follows no link out
// of the tree and lists no directory. Whatever is served has a strong ETag, so that a
// machine which asks again for what it has gets no bytes, and a download that broke off
// goes on where it was. Readers that are too slow are let go.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/gate"
)

const (
	// maxHashed is the largest file that is hashed for its ETag when it is asked for;
	// larger ones have their hash in their name, or are told apart by time and size.
	maxHashed = manifest.MaxManifest

	// A reader must take a chunk in the time, which is about 4 KiB/s.
	chunk     = 256 << 10
	chunkTime = time.Minute

	// Downloads at a time, in all and for one address; more are asked to come back.
	maxDownloads     = 256
	maxDownloadsFrom = 32
)

// Tree is an http.Handler for the files in a directory. Its methods may be called
// concurrently.
type Tree struct {
	root      *os.Root
	limit     *rate.Limiter // nil: none
	given     atomic.Int64
	chunkTime time.Duration

	mu        sync.Mutex // guards what follows
	downloads int
	from      map[netip.Addr]int
}

// Open returns a handler for the tree in dir that gives away at most up bytes of
// payload per second; zero is no bound.
func Open(dir string, up int64) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root, chunkTime: chunkTime, from: map[netip.Addr]int{}}
	if up > 0 {
		t.limit = rate.NewLimiter(rate.Limit(up), chunk)
	}
	return t, nil
}

// Close releases the directory.
func (t *Tree) Close() error { return t.root.Close() }

// Given is how many bytes of payload were sent: data, and the same under a release's name.
func (t *Tree) Given() int64 { return t.given.Load() }

func (t *Tree) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/")
	if !ok || !tree.Valid(name) {
		http.NotFound(w, r)
		return
	}
	f, fi, err := t.open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
		return
	case err != nil:
		http.Error(w, "this file cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	tag, err := etag(name, f, fi)
	if err != nil {
		http.Error(w, "this file cannot be read", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	if payload(name) && r.Method == http.MethodGet {
		source := gate.Source(r.RemoteAddr)
		if !t.begin(source) {
			h.Set("Retry-After", "10")
			http.Error(w, "too many downloads at once; the swarm has it too", http.StatusServiceUnavailable)
			return
		}
		defer t.end(source)
		w = &download{ResponseWriter: w, t: t, ctx: r.Context()}
	}
	h.Set("ETag", tag)
	h.Set("Content-Type", tree.ContentType(name))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", tree.CacheControl(name))
	http.ServeContent(w, r, "", modTime(name, fi), f)
}

// begin takes a place among the downloads, if there is one for that address.
func (t *Tree) begin(source netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.downloads >= maxDownloads || t.from[source] >= maxDownloadsFrom {
		return false
	}
	t.downloads++
	t.from[source]++
	return true
}

func (t *Tree) end(source netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.downloads--
	if t.from[source]--; t.from[source] == 0 {
		delete(t.from, source)
	}
}

// open opens a regular file of the tree. The root keeps links from leading out of it.
func (t *Tree) open(name string) (*os.File, fs.FileInfo, error) {
	path := filepath.FromSlash(name)
	// Asked before opening: a pipe among the files would block.
	fi, err := t.root.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := t.root.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if fi, err = f.Stat(); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// etag is the SHA-256 of the content: from the name where the name is the hash, else of
// the bytes. Only a release under its name for people is too large for that.
func etag(name string, f *os.File, fi fs.FileInfo) (string, error) {
	dir, base, _ := strings.Cut(name, "/")
	switch {
	case dir == "data" || dir == "info":
		return `"` + base + `"`, nil
	case payload(name) || fi.Size() > maxHashed:
		return fmt.Sprintf(`"%x-%x"`, fi.ModTime().UnixNano(), fi.Size()), nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxHashed))
	if err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return `"` + manifest.Sum(b).String() + `"`, nil
}

// payload reports whether name holds what releases are made of, and not a document.
func payload(name string) bool {
	return strings.HasPrefix(name, "data/") || strings.HasPrefix(name, "releases/") &&
		!strings.HasSuffix(name, tree.Torrent) && !strings.HasSuffix(name, tree.Magnet)
}

// modTime is zero, and so not sent, for documents: two of them within one second differ
// in their ETag alone.
func modTime(name string, fi fs.FileInfo) time.Time {
	if payload(name) {
		return fi.ModTime()
	}
	return time.Time{}
}

// download is the body of one payload: counted, limited, and given up when its reader
// stalls. It passes whole chunks on, so that the kernel can send them from the file.
type download struct {
	http.ResponseWriter
	t      *Tree
	ctx    context.Context // the request's
	failed bool            // what is written is a message and no payload
}

func (d *download) WriteHeader(status int) {
	d.failed = status >= http.StatusBadRequest
	d.ResponseWriter.WriteHeader(status)
}

func (d *download) count(n int64) {
	if !d.failed {
		d.t.given.Add(n)
	}
}

func (d *download) Write(p []byte) (int, error) {
	var sent int
	for sent < len(p) {
		part := p[sent:min(len(p), sent+chunk)]
		if err := d.before(len(part)); err != nil {
			return sent, err
		}
		n, err := d.ResponseWriter.Write(part)
		sent += n
		d.count(int64(n))
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// ReadFrom is what http.ServeContent copies with.
func (d *download) ReadFrom(src io.Reader) (int64, error) {
	to, ok := d.ResponseWriter.(io.ReaderFrom)
	file, limited := src.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(struct{ io.Writer }{d}, src)
	}
	var sent int64
	for file.N > 0 {
		want := min(chunk, file.N)
		if err := d.before(int(want)); err != nil {
			return sent, err
		}
		n, err := to.ReadFrom(&io.LimitedReader{R: file.R, N: want})
		sent += n
		file.N -= n
		d.count(n)
		if err != nil || n < want {
			return sent, err
		}
	}
	return sent, nil
}

// Unwrap lets http.ResponseController reach the connection.
func (d *download) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// before waits until n more bytes may go, and gives them a deadline of their own: a
// download as a whole may take as long as it needs.
func (d *download) before(n int) error {
	if d.t.limit != nil {
		if err := d.t.limit.WaitN(d.ctx, n); err != nil {
			return err
		}
	}
	err := http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(d.t.chunkTime))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
