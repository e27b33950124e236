package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"shoal/internal/contextio"
	"shoal/internal/fault"
)

const copyBuffer = 64 << 10

// binary is one executable file. Both swappers share it, but for the swap itself.
type binary struct {
	place
	staged File // held open from verify to swap, so that its inode cannot be another file's
}

func newBinary(fsys FS, target string) binary {
	return binary{place: place{fs: fsys, names: names{target}, at: hashAt(fsys)}}
}

// hashAt tells artifacts that are files by their content.
func hashAt(fsys FS) at {
	return func(path string) (digest, int64, error) {
		f, err := fsys.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return digest{}, 0, nil
		}
		if err != nil {
			return digest{}, 0, err
		}
		defer f.Close()
		i, err := f.Stat()
		if err != nil {
			return digest{}, 0, err
		}
		d, err := hashFile(f)
		return d, i.Size, err
	}
}

func hashFile(f File) (digest, error) {
	h := sha256.New()
	err := copyAll(h, reading(context.Background(), f, 1<<62))
	return digest(h.Sum(nil)), err
}

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// copyAll copies r to w, through a buffer of a fixed size whatever r's length is.
func copyAll(w io.Writer, r io.Reader) error {
	b := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(b)
	_, err := io.CopyBuffer(w, r, b[:])
	return err
}

// reading reads the first n bytes of r until ctx ends. It has no WriteTo, so that
// io.CopyBuffer keeps to its buffer.
func reading(ctx context.Context, r io.ReaderAt, n int64) io.Reader {
	return contextio.Reader(ctx, io.NewSectionReader(r, 0, n))
}

func (b *binary) stage(ctx context.Context, j *journal, src io.ReaderAt, kept string) error {
	var keep *Meta
	if kept != "" {
		f, err := b.fs.Open(kept)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := f.Meta()
		if err != nil {
			return err
		}
		src, keep = f, &m // it comes back as it was
	}
	if !j.From.absent() {
		f, err := b.fs.Open(b.target)
		if err != nil {
			return err
		}
		m, err := f.Meta()
		f.Close()
		if err != nil {
			return err
		}
		keep = &m
	}
	got, err := b.copy(ctx, j.Staged, reading(ctx, src, j.ToRelease.Length), func(f File) (Meta, error) {
		if keep != nil {
			return *keep, nil
		}
		m, err := f.Meta()
		m.Mode = j.ToRelease.Mode
		return m, err
	})
	if err == nil && got != j.To {
		err = fault.New(fault.ContentMismatch, "the downloaded file is not the signed one").
			Line("expected sha256 %s, copied %s", j.To, got)
	}
	return err
}

// copy makes the file at path from r, with 0600 until it is complete and then the
// metadata that meta gives, and makes it durable but for its name.
func (b *binary) copy(ctx context.Context, path string, r io.Reader, meta func(File) (Meta, error)) (d digest, err error) {
	f, err := b.fs.Create(path)
	if err != nil {
		return d, err
	}
	defer func() {
		// A delayed write error can come as late as this.
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	h := sha256.New()
	if err := copyAll(io.MultiWriter(f, h), r); err != nil {
		return d, err
	}
	m, err := meta(f)
	if err != nil {
		return d, err
	}
	if err := b.setMeta(f, m); err != nil {
		return d, err
	}
	return digest(h.Sum(nil)), f.Sync()
}

// setMeta gives f the metadata m, all of it: an update that loses a setuid bit or a
// capability breaks the program in a way that no hash shows.
func (b *binary) setMeta(f File, m Meta) error {
	err := f.SetMeta(m)
	got, gerr := f.Meta()
	if err == nil {
		err = gerr
	}
	if err == nil && got.equal(m) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.ENOTSUP) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	e := fault.New(fault.Permission, "cannot keep owner, mode and attributes of %q", b.target).
		Line("it has owner %d:%d, mode %v, attributes %q", m.UID, m.GID, m.Mode, attributeNames(m)).
		Line("the new file could get owner %d:%d, mode %v, attributes %q", got.UID, got.GID, got.Mode, attributeNames(got)).
		Do("run the agent as root, or give the program to the agent's user without setuid bit and capabilities")
	if err != nil {
		e.Line("%v", err)
	}
	e.Err = err
	return e
}

func attributeNames(m Meta) []string {
	names := make([]string, 0, len(m.Xattrs))
	for n := range m.Xattrs {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (b *binary) backup(j *journal) error {
	if !j.From.absent() {
		err := b.fs.Link(b.target, j.Backup)
		if cannotLink(err) {
			err = b.backupCopy(j)
		}
		if err != nil {
			return err
		}
	}
	return b.fs.SyncDir(b.dir()) // also for the staged file
}

// cannotLink reports whether err says that this file cannot have a second name here:
// FAT, some network file systems, too many names already, or a rule that only the
// owner of a file may link it.
func cannotLink(err error) bool {
	for _, e := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.EMLINK, syscall.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (b *binary) backupCopy(j *journal) error {
	f, err := b.fs.Open(b.target)
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.room(i.Size, 1); err != nil {
		return err
	}
	ctx := context.Background()
	got, err := b.copy(ctx, j.Backup, reading(ctx, f, i.Size+1), func(File) (Meta, error) { return f.Meta() })
	if err == nil && got != j.From {
		err = errTargetChanged
	}
	return err
}

func (b *binary) verify(j *journal) error {
	b.release()
	f, err := b.fs.Open(j.Staged)
	if err != nil {
		return err
	}
	b.staged = f
	got, err := hashFile(f)
	if err != nil {
		return err
	}
	if got != j.To {
		return fault.New(fault.ContentMismatch, "the staged file %q is not the signed one any more", j.Staged).
			Line("expected sha256 %s, found %s", j.To, got)
	}
	i, err := f.Stat()
	b.stagedID = i.ID
	return err
}

// stillSame fails unless the staged name leads to the file that verify saw, and the
// target to the one that unchanged saw: to be authorized can take a while. It gives up
// the hold on the staged file.
func (b *binary) stillSame(j *journal) error {
	i, err := b.fs.Lstat(j.Staged)
	if err == nil && (b.staged == nil || i.ID != b.stagedID) {
		err = fault.New(fault.ContentMismatch, "the staged file %q was replaced after it was checked", j.Staged)
	}
	b.release()
	if err != nil {
		return err
	}
	now, err := b.id(b.target)
	if err == nil && now != b.oldID {
		err = errTargetChanged
	}
	return err
}

func (b *binary) release() {
	if b.staged != nil {
		b.staged.Close()
		b.staged = nil
	}
}

func (b *binary) swapped(j *journal) (bool, error) {
	same, err := b.sameFile(j.Staged, b.target)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return same, err
}

func (b *binary) clean(j *journal, keepBackup bool) error {
	b.release()
	paths := []string{j.Staged}
	if !keepBackup && j.Backup != "" {
		paths = append(paths, j.Backup)
	}
	return b.remove(paths...)
}
