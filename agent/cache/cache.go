// Package cache keeps downloaded files, each under the SHA-256 of its content.
//
// A file has that name only once it was hashed and synced: until then it ends in
// ".unverified", and the rename is the trust. Whoever is handed a file is handed the
// very descriptor it was hashed through.
package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"shoal/internal/contextio"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
)

const (
	unverified = ".unverified"
	infoDir    = "info"
)

// Cache is a directory of verified and of unfinished files.
type Cache struct {
	dir    string
	o      Options
	taking sync.Mutex // held by Take
}

// Options bound a cache. Zero is no bound.
type Options struct {
	MaxFile int64 // bytes of the largest file it takes
	Reserve int64 // bytes left free on its filesystem
}

// Open makes dir, readable by its owner alone, if it is not there.
func Open(dir string, o Options) (*Cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, infoDir), 0o700); err != nil {
		return nil, failure(err, "making the cache %q", dir)
	}
	return &Cache{dir: dir, o: o}, nil
}

// Dir returns the directory.
func (c *Cache) Dir() string { return c.dir }

// Path is where the file with this content is once it was verified.
func (c *Cache) Path(d manifest.Digest) string { return filepath.Join(c.dir, d.String()) }

// Unverified is where the file with this content is put together from pieces, in any order.
func (c *Cache) Unverified(d manifest.Digest) string { return c.Path(d) + unverified }

// Direct is where it is put together from its beginning on.
func (c *Cache) Direct(d manifest.Digest) string { return c.Path(d) + ".direct" + unverified }

// Info is where the info dict with this SHA-256 is kept. It is checked by whoever reads it.
func (c *Cache) Info(d manifest.Digest) string { return filepath.Join(c.dir, infoDir, d.String()) }

// Admit says whether a file of length bytes may come in: quota when it is larger
// than any may be, no_space when the disk is too full for it and besides more bytes that
// are to go there. What an earlier attempt at d left counts as there.
func (c *Cache) Admit(d manifest.Digest, length, besides int64) error {
	if c.o.MaxFile > 0 && length > c.o.MaxFile {
		return fault.New(fault.Quota, "the release is larger than this machine allows").
			Line("It has %d bytes; the cache takes files of at most %d.", length, c.o.MaxFile).
			Do("raise disk.cache in the configuration if this is right").
			Fact("need", length).Fact("limit", c.o.MaxFile)
	}
	free, err := Free(c.dir)
	if err != nil {
		return err
	}
	have := free - c.o.Reserve
	for _, path := range []string{c.Path(d), c.Unverified(d), c.Direct(d)} {
		if fi, err := os.Lstat(path); err == nil {
			have += allocated(fi)
		}
	}
	if need := length + besides; have < need {
		return NoSpace(c.dir, need, max(have, 0))
	}
	return nil
}

// Free is how many bytes this user may still write to dir's filesystem.
func Free(dir string) (int64, error) {
	free, err := freeSpace(dir)
	if err != nil {
		return 0, failure(err, "asking %q for its free space", dir)
	}
	return free, nil
}

// Room says whether dir has room for length bytes.
func Room(dir string, length int64) error {
	free, err := Free(dir)
	if err != nil {
		return err
	}
	if free < length {
		return NoSpace(dir, length, free)
	}
	return nil
}

// NoSpace is the error for a file that does not fit.
func NoSpace(dir string, need, have int64) error {
	return fault.New(fault.NoSpace, "not enough disk space").
		Line("%s needs %d bytes and has %d free for this. Nothing was changed.", dir, need, have).
		Do("free some space in %s, or set disk.reserve lower; the agent tries again by itself", dir).
		Fact("dir", dir).Fact("need", need).Fact("have", have)
}

// Accept hashes the file at path, one of d's unverified ones, and, when it has the
// content d, gives it its name and returns it, open at its start. A file that is not
// the signed one is deleted: content_mismatch or length_exceeded.
func (c *Cache) Accept(ctx context.Context, path string, d manifest.Digest, length int64) (*os.File, error) {
	f, err := hashed(ctx, path, d, length)
	if err != nil {
		if fault.CodeOf(err).Exit() == fault.ContentMismatch.Exit() {
			os.Remove(path)
		}
		return nil, err
	}
	return c.keep(f, path, d)
}

// AcceptChecked is Accept for content that [Check] has found right while it was written to
// the file of: if that is the one at path it is not read again. Where of is nil, none was.
func (c *Cache) AcceptChecked(ctx context.Context, path string, of fs.FileInfo, d manifest.Digest, length int64) (*os.File, error) {
	if f, err := openRegular(path); err == nil {
		is, err := f.Stat()
		if err == nil && os.SameFile(is, of) && is.Size() == length {
			return c.keep(f, path, d)
		}
		f.Close()
	}
	return c.Accept(ctx, path, d, length)
}

// keep gives f, the verified file at path, its name.
func (c *Cache) keep(f *os.File, path string, d manifest.Digest) (*os.File, error) {
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, failure(err, "syncing %q", path)
	}
	if err := durable.Rename(path, c.Path(d)); err != nil {
		f.Close()
		return nil, failure(err, "keeping the verified file")
	}
	return f, nil
}

// Take copies r, to its end, into the cache as the file d: content_mismatch or
// length_exceeded when it is not the content d, no_space when there is no room for it.
// The errors of r are returned as they are.
func (c *Cache) Take(ctx context.Context, r io.Reader, d manifest.Digest, length int64) error {
	c.taking.Lock()
	defer c.taking.Unlock()
	path := c.Path(d) + ".import" + unverified
	os.Remove(path) // what was left by one that died
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failure(err, "copying into the cache")
	}
	from := &source{r: contextio.Reader(ctx, r)}
	_, err = io.Copy(f, io.LimitReader(from, length+1)) // so that a longer file is seen to be longer
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	switch {
	case from.err != nil:
		return from.err
	case IsNoSpace(err):
		return NoSpace(c.dir, length, 0)
	case err != nil:
		return failure(err, "copying into the cache")
	}
	kept, err := c.Accept(ctx, path, d, length)
	if err != nil {
		os.Remove(path)
		return err
	}
	return kept.Close()
}

// Open returns the verified file d, hashed again and open at its start: not_found
// when it is not here. A file that changed since is deleted.
func (c *Cache) Open(ctx context.Context, d manifest.Digest, length int64) (*os.File, error) {
	f, err := hashed(ctx, c.Path(d), d, length)
	if err != nil && fault.CodeOf(err).Exit() == fault.ContentMismatch.Exit() {
		os.Remove(c.Path(d))
	}
	return f, err
}

func hashed(ctx context.Context, path string, d manifest.Digest, length int64) (_ *os.File, err error) {
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%q is not in the cache", d)
	}
	if err != nil {
		return nil, failure(err, "opening %q", path)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := Check(ctx, f, d, length); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, failure(err, "rewinding %q", path)
	}
	return f, nil
}

// Check reads r to its end and says whether it is the content signed as d: it reads
// no more than one byte beyond length.
func Check(ctx context.Context, r io.Reader, d manifest.Digest, length int64) error {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(contextio.Reader(ctx, r), length+1))
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return failure(err, "reading what was downloaded")
	}
	var got manifest.Digest
	h.Sum(got[:0])
	switch {
	case n > length:
		return fault.New(fault.LengthExceeded, "the download has more than the %d signed bytes", length).
			Line("It was dropped; nothing was installed.").
			Fact("sha256", d.String()).Fact("length", length)
	case n < length || got != d:
		return fault.New(fault.ContentMismatch, "the download is not the signed file").
			Line("Signed: %d bytes with sha256 %s.", length, d).
			Line("Found:  %d bytes with sha256 %s. It was dropped; nothing was installed.", n, got).
			Fact("want", d.String()).Fact("got", got.String()).Fact("length", n)
	}
	return nil
}

// File is one download.
type File struct {
	SHA256 manifest.Digest
	Bytes  int64 // on disk; of an unfinished one, as far as it has come
	Whole  bool  // verified; else unfinished
}

// Stored lists the downloads, by name; their content is not read.
func (c *Cache) Stored() ([]File, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, failure(err, "listing the cache")
	}
	all := []File{}
	for _, e := range entries {
		name, rest, _ := strings.Cut(e.Name(), ".")
		d, err := manifest.ParseDigest(name)
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // meanwhile
		}
		if err != nil {
			return nil, failure(err, "listing the cache")
		}
		f := File{SHA256: d, Bytes: fi.Size(), Whole: rest == ""}
		if !f.Whole {
			f.Bytes = min(f.Bytes, allocated(fi)) // put together in any order, it has holes
		}
		all = append(all, f)
	}
	return all, nil
}

// Remove removes a cache: the files it made, and the directory if nothing else is in it.
func Remove(dir string) error {
	c := &Cache{dir: dir}
	err := c.Prune(func(manifest.Digest) bool { return false })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		info := &Cache{dir: filepath.Join(dir, infoDir)}
		err = info.Prune(func(manifest.Digest) bool { return false })
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	os.Remove(filepath.Join(dir, infoDir))
	os.Remove(dir)
	return nil
}

// Prune deletes the files, unfinished ones too, that keep does not want. What it
// did not make it leaves alone.
func (c *Cache) Prune(keep func(manifest.Digest) bool) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return failure(err, "listing the cache")
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		d, err := manifest.ParseDigest(name)
		if err != nil || keep(d) {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure(err, "pruning the cache")
		}
	}
	return nil
}

// failure gives an error of the operating system its code.
func failure(err error, doing string, args ...any) error {
	code := fault.IO
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	case IsNoSpace(err):
		code = fault.NoSpace
	}
	return fault.New(code, "%s: %w", fmt.Sprintf(doing, args...), err)
}

// source remembers what reading failed with: writing can fail, too.
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
