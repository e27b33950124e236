package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"shoal/internal/contextio"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

// Writer is the one process that may change a repository.
type Writer struct {
	r      *Repo
	lock   *flock.Flock
	before func(step string) error
}

// Lock takes the repository for writing. It waits a few seconds for another writer, who
// may be about done; the code is locked when it is not. It removes what a writer that died
// had left unfinished. Before each change on the disk before is asked, unless it is nil;
// with an error the writer stops there.
func (r *Repo) Lock(ctx context.Context, before func(step string) error) (*Writer, error) {
	l, err := turn.Command(ctx, r.take)
	if err != nil {
		return nil, err
	}
	w := &Writer{r: r, lock: l, before: before}
	if err = os.RemoveAll(filepath.Join(r.dir, tmpDir)); err == nil {
		err = mkdirAll(filepath.Join(r.dir, tmpDir))
	}
	if err != nil {
		w.Close()
		return nil, failure("making room for new files", err)
	}
	return w, nil
}

// take takes the lock, or fails at once.
func (r *Repo) take() (*flock.Flock, error) {
	name := filepath.Join(r.dir, lockFile)
	l := flock.New(name, flock.SetPermissions(0o644))
	ok, err := l.TryLock()
	if err != nil {
		return nil, failure("locking the repository", err)
	}
	if !ok {
		holder := "another process"
		if b, err := os.ReadFile(name); err == nil && len(b) > 0 && len(b) < 16 {
			holder = "process " + strings.TrimSpace(string(b))
		}
		return nil, fault.New(fault.Locked, "%s is publishing to %q", holder, r.dir).
			Line("Nothing was changed.").Do("try again when it is done")
	}
	// For the message above only; the lock itself ends with the process.
	os.WriteFile(name, fmt.Appendln(nil, os.Getpid()), 0o644)
	return l, nil
}

// Close lets others write.
func (w *Writer) Close() error { return w.lock.Close() }

// AddData stores the file src, which must have length bytes and hash to sum. What is
// stored is the repository's own copy, never a second name of the caller's file: a build
// that overwrites its output in place must not change what was published. Where the
// filesystem can share the blocks of a copy, it does. The copy is hashed again.
func (w *Writer) AddData(ctx context.Context, src *os.File, length int64, sum manifest.Digest) error {
	name := tree.Data(sum)
	if f, err := os.Open(w.r.path(name)); err == nil {
		defer f.Close()
		if got, n, err := hash(ctx, f); err == nil && n == length && got == sum {
			return nil
		}
		// What has this name is not this content: a bad disk. It is replaced.
	}
	return w.put(name, 0o444, func(f *os.File) error {
		if err := copyFile(ctx, f, src, length+1); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		got, n, err := hash(ctx, f)
		if err != nil {
			return err
		}
		if n != length || got != sum {
			return fault.New(fault.ContentMismatch, "a file changed while it was being published").
				Line("It had sha256 %s and %d bytes; its copy in the repository has %s.", sum, length, got).
				Line("Nothing was published.").Do("publish again when the build is done")
		}
		return nil
	})
}

// AddInfo stores an info dict.
func (w *Writer) AddInfo(i *swarm.Info) error {
	return w.file(tree.Info(i.Ref().InfoSHA256), i.Bytes())
}

// AddRelease gives an artifact's payload its names for people: the file itself, and a
// .torrent and a magnet link for stock clients.
func (w *Writer) AddRelease(app, version string, p manifest.Platform, data manifest.Digest, torrent []byte, magnet string) error {
	name := tree.Release(app, version, p)
	if !tree.Valid(name) {
		return fault.New(fault.UnsafePath, "%q is no name of the tree", name)
	}
	if err := w.link(tree.Data(data), name); err != nil {
		return err
	}
	if err := w.file(name+tree.Torrent, torrent); err != nil {
		return err
	}
	return w.file(name+tree.Magnet, []byte(magnet+"\n"))
}

// Publish makes env the channel's manifest. Everything it names must be stored.
func (w *Writer) Publish(ch manifest.Channel, o manifest.Order, env []byte) error {
	if err := w.write(w.r.historyPath(ch, o), env); err != nil {
		return err
	}
	return w.write(w.r.path(tree.Manifest(ch)), env)
}

// PublishRoot makes env the root of that version: what Read has found good to follow
// the newest one.
func (w *Writer) PublishRoot(version int64, env []byte) error {
	return w.file(tree.Root(version), env)
}

// file stores b in the tree under name, unless it is there already.
func (w *Writer) file(name string, b []byte) error {
	if have, err := w.r.read(name, int64(len(b))); err == nil && bytes.Equal(have, b) {
		return nil
	}
	return w.write(w.r.path(name), b)
}

func (w *Writer) write(to string, b []byte) error {
	return w.putAt(to, 0o644, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

func (w *Writer) put(name string, perm fs.FileMode, fill func(*os.File) error) error {
	return w.putAt(w.r.path(name), perm, fill)
}

// putAt makes a file that has its name only when it is complete and on the disk.
func (w *Writer) putAt(to string, perm fs.FileMode, fill func(*os.File) error) (err error) {
	doing := "storing " + w.short(to)
	if err := w.ask("create", to); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(w.r.dir, tmpDir), path.Base(filepath.ToSlash(to))+"-*")
	if err != nil {
		return failure(doing, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return failure(doing, err)
	}
	if err := f.Chmod(perm); err != nil {
		return failure(doing, err)
	}
	if err := f.Sync(); err != nil {
		return failure(doing, err)
	}
	return w.name(f.Name(), to)
}

// name renames a complete file to its place.
func (w *Writer) name(from, to string) error {
	doing := "storing " + w.short(to)
	if err := mkdirAll(filepath.Dir(to)); err != nil {
		return failure(doing, err)
	}
	if err := w.ask("rename", to); err != nil {
		return err
	}
	return failure(doing, durable.Rename(from, to))
}

// link gives a stored file a second name. Both are read-only and the repository's own.
func (w *Writer) link(from, to string) error {
	doing := "storing " + to
	if same, err := sameFile(w.r.path(from), w.r.path(to)); err != nil || same {
		return failure(doing, err)
	}
	tmp := filepath.Join(w.r.dir, tmpDir, path.Base(to))
	if err := w.ask("link", w.r.path(to)); err != nil {
		return err
	}
	if err := os.Link(w.r.path(from), tmp); err == nil {
		defer os.Remove(tmp) // a rename onto a name of the same file leaves both
		return w.name(tmp, w.r.path(to))
	}
	// No hard links here: a copy serves.
	src, err := os.Open(w.r.path(from))
	if err != nil {
		return failure(doing, err)
	}
	defer src.Close()
	return w.put(to, 0o444, func(f *os.File) error {
		_, err := io.Copy(f, src)
		return err
	})
}

// copyFile copies at most limit bytes of src, from its beginning, in the kernel where
// that is possible.
func copyFile(ctx context.Context, dst, src *os.File, limit int64) error {
	const chunk = 16 << 20 // how much is copied between two looks at ctx
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for limit > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(dst, src, min(chunk, limit))
		limit -= n
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sameFile reports whether b is there and is a itself.
func sameFile(a, b string) (bool, error) {
	fa, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	fb, err := os.Stat(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(fa, fb), err
}

func (w *Writer) ask(what, to string) error {
	if w.before == nil {
		return nil
	}
	return w.before(what + " " + w.short(to))
}

// short is a path as people know it: below the repository.
func (w *Writer) short(to string) string {
	if rel, err := filepath.Rel(w.r.dir, to); err == nil {
		return filepath.ToSlash(rel)
	}
	return to
}

// mkdirAll is os.MkdirAll whose new names survive a power cut.
func mkdirAll(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}

func hash(ctx context.Context, f io.Reader) (sum manifest.Digest, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, contextio.Reader(ctx, f))
	return manifest.Digest(h.Sum(nil)), n, err
}
