package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"shoal/internal/fault"
)

const (
	copyBuffer  = 64 << 10
	spareBytes  = 1 << 20 // asked for besides the file itself
	sparePart   = 20      // and one part in so many of it
	spareInodes = 8
)

// errTargetChanged is somebody else at work on the same file: a package manager, an
// operator. What they did is left as it is.
var errTargetChanged = errors.New("somebody else changed the program meanwhile")

// binary is one executable file. Both swappers share it, but for the swap itself.
type binary struct {
	fs     FS
	target string
	names
	staged   File // held open from verify to swap, so that its inode cannot be another file's
	stagedID [2]uint64
	oldID    [2]uint64 // of the target that unchanged saw; zero for none
}

func (b *binary) current() (digest, error) { return b.hash(b.target) }

// hash returns the SHA-256 of the file at path, zero when there is none.
func (b *binary) hash(path string) (digest, error) {
	f, err := b.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return digest{}, nil
	}
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	return hashFile(f)
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
	return &contextReader{ctx, io.NewSectionReader(r, 0, n)}
}

type contextReader struct {
	ctx context.Context // of the one copy this reader is made for
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (b *binary) room(size int64) error {
	s, err := b.fs.Space(b.dir())
	if err != nil {
		return err
	}
	if need := uint64(size + size/sparePart + spareBytes); s.Bytes < need {
		return fault.New(fault.NoSpace, "not enough disk space beside %q", b.target).
			Line("%q needs %d bytes, has %d", b.dir(), need, s.Bytes).
			Do("free space there, or lower keep: previous versions are kept beside the program").
			Fact("dir", b.dir()).Fact("need", need).Fact("have", s.Bytes)
	}
	if s.Inodes && s.Files < spareInodes {
		return fault.New(fault.NoSpace, "no free inodes beside %q", b.target).
			Line("the file system of %q has %d left", b.dir(), s.Files).
			Do("remove small files there").Fact("dir", b.dir()).Fact("inodes", s.Files)
	}
	return nil
}

func (b *binary) stage(ctx context.Context, j *journal, src io.ReaderAt) error {
	var keep *Meta
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
	} else if f, ok := src.(File); ok { // a previous version: it comes back as it was
		m, err := f.Meta()
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
	if err := b.room(i.Size); err != nil {
		return err
	}
	ctx := context.Background()
	got, err := b.copy(ctx, j.Backup, reading(ctx, f, i.Size+1), func(File) (Meta, error) { return f.Meta() })
	if err == nil && got != j.From {
		err = errTargetChanged
	}
	return err
}

func (b *binary) unchanged(j *journal) error {
	var err error
	if b.oldID, err = b.id(b.target); err != nil {
		return err
	}
	now, err := b.current()
	if err != nil {
		return err
	}
	if now != j.From {
		return errTargetChanged
	}
	if j.From.absent() {
		return nil
	}
	same, err := b.sameFile(b.target, j.Backup)
	if err != nil || same {
		return err
	}
	kept, err := b.hash(j.Backup)
	if err == nil && kept != j.From {
		err = errTargetChanged
	}
	return err
}

func (b *binary) sameFile(path, other string) (bool, error) {
	p, err := b.fs.Lstat(path)
	if err != nil {
		return false, err
	}
	o, err := b.fs.Lstat(other)
	return p.ID == o.ID, err
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

// id tells the file at path from every other; it is zero when there is none.
func (b *binary) id(path string) ([2]uint64, error) {
	i, err := b.fs.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [2]uint64{}, nil
	}
	return i.ID, err
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

// restore renames the backup over the target: one step that needs no space, no
// second link and leaves nothing behind.
func (b *binary) restore(j *journal) error {
	now, err := b.current()
	if err != nil && !errors.Is(err, errNotRegular) {
		return err
	}
	switch {
	case now == j.From && err == nil: // a crash came after the rename
	case j.From.absent():
		if now == j.To {
			if err := b.fs.Remove(b.target); err != nil {
				return err
			}
		}
	default:
		kept, err := b.hash(j.Backup)
		if err != nil {
			return err
		}
		if kept.absent() {
			return fmt.Errorf("the previous version %q is gone", j.Backup)
		}
		if kept != j.From {
			return fmt.Errorf("the previous version %q is spoilt: expected sha256 %s, found %s", j.Backup, j.From, kept)
		}
		if err := b.fs.Rename(j.Backup, b.target); err != nil {
			return err
		}
	}
	return b.fs.SyncDir(b.dir())
}

func (b *binary) clean(j *journal, keepBackup bool) error {
	b.release()
	paths := []string{j.Staged}
	if !keepBackup && j.Backup != "" {
		paths = append(paths, j.Backup)
	}
	return b.remove(paths...)
}

// remove removes files that may be gone already, durably.
func (b *binary) remove(paths ...string) error {
	any := false
	for _, p := range paths {
		err := b.fs.Remove(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		any = any || err == nil
	}
	if !any {
		return nil
	}
	return b.fs.SyncDir(b.dir())
}

// previous is a previous version that is kept.
type previous struct {
	n    int
	path string
}

// previous returns the previous versions of the target, latest first.
func (n names) kept(fsys FS) ([]previous, error) {
	list, err := fsys.ReadDir(n.dir())
	if err != nil {
		return nil, err
	}
	var kept []previous
	for _, name := range list {
		path := filepath.Join(n.dir(), name)
		if i, ok := n.isPrevious(path); ok {
			kept = append(kept, previous{i, path})
		}
	}
	slices.SortFunc(kept, func(a, b previous) int { return b.n - a.n })
	return kept, nil
}

func (b *binary) prune(keep int) error {
	now, err := b.current()
	if err != nil {
		return err
	}
	all, err := b.kept(b.fs)
	if err != nil {
		return err
	}
	seen := []digest{now} // a previous version with the same content is none
	var drop []string
	for _, p := range all {
		d, err := b.hash(p.path)
		if err != nil { // a bad disk, or none of ours: it must not stop all updates to come
			continue
		}
		if len(seen) > keep || slices.Contains(seen, d) {
			drop = append(drop, p.path)
			continue
		}
		seen = append(seen, d)
	}
	return b.remove(drop...)
}
