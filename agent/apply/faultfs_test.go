package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
)

// errDead is what every call returns once the process is dead.
var errDead = errors.New("this process is dead")

// faultFS counts the calls to a file system and does something at one of them: the
// process dies there, or the call fails. Nothing a dead process calls has an effect.
type faultFS struct {
	FS
	at     int   // the call, counted from 1; 0 is none
	err    error // what it fails with; nil means death
	sticky bool  // all later calls fail as well, but for closing and looking
	calls  int
	dead   bool
	trace  []string
	match  func(call string) bool // chooses the calls that fail, instead of at
	atCall func()                 // called instead of failing
}

// hit counts a call and says what becomes of it.
func (f *faultFS) hit(op, path string, changes bool) error {
	if f.dead {
		return errDead
	}
	f.calls++
	call := op + " " + filepath.Base(path)
	f.trace = append(f.trace, call)
	if f.match != nil && f.match(call) {
		return pathErr(op, path, f.err)
	}
	if f.at == 0 || f.calls < f.at || f.calls > f.at && !(f.sticky && changes) {
		return nil
	}
	if f.atCall != nil {
		f.atCall()
		return nil
	}
	if f.err == nil {
		f.dead = true
		return errDead
	}
	return pathErr(op, path, f.err)
}

func (f *faultFS) Resolve(path string) (string, error) {
	if err := f.hit("resolve", path, false); err != nil {
		return "", err
	}
	return f.FS.Resolve(path)
}

func (f *faultFS) Readlink(path string) (string, error) {
	if err := f.hit("readlink", path, false); err != nil {
		return "", err
	}
	return f.FS.Readlink(path)
}

func (f *faultFS) Lstat(path string) (Info, error) {
	if err := f.hit("lstat", path, false); err != nil {
		return Info{}, err
	}
	return f.FS.Lstat(path)
}

func (f *faultFS) ReadDir(dir string) ([]string, error) {
	if err := f.hit("readdir", dir, false); err != nil {
		return nil, err
	}
	return f.FS.ReadDir(dir)
}

func (f *faultFS) MkdirAll(dir string) error {
	if err := f.hit("mkdir", dir, true); err != nil {
		return err
	}
	return f.FS.MkdirAll(dir)
}

func (f *faultFS) Open(path string) (File, error) {
	if err := f.hit("open", path, false); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, path}, nil
}

func (f *faultFS) Create(path string) (File, error) {
	if err := f.hit("create", path, true); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, path}, nil
}

func (f *faultFS) Link(name, second string) error {
	if err := f.hit("link", second, true); err != nil {
		return err
	}
	return f.FS.Link(name, second)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.hit("rename", to, true); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *faultFS) Remove(path string) error {
	if err := f.hit("remove", path, true); err != nil {
		return err
	}
	return f.FS.Remove(path)
}

func (f *faultFS) Symlink(to, path string) error {
	if err := f.hit("symlink", path, true); err != nil {
		return err
	}
	return f.FS.Symlink(to, path)
}

func (f *faultFS) Mkdir(path string) error {
	if err := f.hit("mkdir", path, true); err != nil {
		return err
	}
	return f.FS.Mkdir(path)
}

func (f *faultFS) MakeTree(path string) (Tree, error) {
	if err := f.hit("maketree", path, true); err != nil {
		return nil, err
	}
	tree, err := f.FS.MakeTree(path)
	return faultTree{tree, f}, err
}

func (f *faultFS) OpenTree(path string) (Tree, error) {
	if err := f.hit("opentree", path, false); err != nil {
		return nil, err
	}
	tree, err := f.FS.OpenTree(path)
	return faultTree{tree, f}, err
}

// RemoveAll stops in the middle when it is to fail.
func (f *faultFS) RemoveAll(path string) error {
	if err := f.hit("removeall", path, true); err != nil {
		if f.calls == f.at {
			if list, lerr := f.FS.ReadDir(path); lerr == nil && len(list) > 0 {
				f.FS.RemoveAll(filepath.Join(path, list[0]))
			}
		}
		return err
	}
	return f.FS.RemoveAll(path)
}

type faultTree struct {
	Tree
	f *faultFS
}

func (t faultTree) Mkdir(name string, mode fs.FileMode) error {
	if err := t.f.hit("tree-mkdir", name, true); err != nil {
		return err
	}
	return t.Tree.Mkdir(name, mode)
}

func (t faultTree) Symlink(to, name string) error {
	if err := t.f.hit("tree-symlink", name, true); err != nil {
		return err
	}
	return t.Tree.Symlink(to, name)
}

func (t faultTree) Link(name, second string) error {
	if err := t.f.hit("tree-link", second, true); err != nil {
		return err
	}
	return t.Tree.Link(name, second)
}

func (t faultTree) Create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	if err := t.f.hit("tree-create", name, true); err != nil {
		return nil, err
	}
	w, err := t.Tree.Create(name, mode)
	return faultWriter{w, t.f, name}, err
}

func (t faultTree) Sync() error {
	if err := t.f.hit("tree-sync", "", true); err != nil {
		return err
	}
	return t.Tree.Sync()
}

func (t faultTree) Close() error {
	err := t.f.hit("tree-close", "", false)
	return errors.Join(err, t.Tree.Close())
}

type faultWriter struct {
	io.WriteCloser
	f    *faultFS
	name string
}

func (w faultWriter) Write(p []byte) (int, error) {
	if err := w.f.hit("write", w.name, true); err != nil {
		return 0, err
	}
	return w.WriteCloser.Write(p)
}

func (w faultWriter) Close() error {
	err := w.f.hit("close", w.name, false)
	return errors.Join(err, w.WriteCloser.Close())
}

func (f *faultFS) SyncDir(dir string) error {
	if err := f.hit("syncdir", dir, true); err != nil {
		return err
	}
	return f.FS.SyncDir(dir)
}

func (f *faultFS) Lock(path string) (io.Closer, error) {
	if err := f.hit("lock", path, true); err != nil {
		return nil, err
	}
	return f.FS.Lock(path) // whose Close the kernel does for a dead process
}

func (f *faultFS) Space(dir string) (Space, error) {
	if err := f.hit("statfs", dir, false); err != nil {
		return Space{}, err
	}
	return f.FS.Space(dir)
}

func (f *faultFS) CommitBinary(target, old string) error {
	if f.dead {
		return errDead
	}
	if _, real := f.FS.(osFS); real {
		if err := f.hit("commitbinary", target, true); err != nil {
			return err
		}
		return f.FS.CommitBinary(target, old)
	}
	return commitBinaryModel(f, target, old)
}

type faultFile struct {
	File
	f    *faultFS
	path string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.f.hit("read", f.path, false); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.f.hit("write", f.path, true); err != nil {
		if !errors.Is(err, errDead) || f.f.calls == f.f.at {
			n, _ := f.File.Write(p[:len(p)/2]) // some of it came through
			return n, err
		}
		return 0, err
	}
	return f.File.Write(p)
}

func (f *faultFile) Close() error {
	err := f.f.hit("close", f.path, false)
	return errors.Join(err, f.File.Close()) // closed in any case
}

func (f *faultFile) Stat() (Info, error) {
	if err := f.f.hit("stat", f.path, false); err != nil {
		return Info{}, err
	}
	return f.File.Stat()
}

func (f *faultFile) Sync() error {
	if err := f.f.hit("sync", f.path, true); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) Meta() (Meta, error) {
	if err := f.f.hit("getmeta", f.path, false); err != nil {
		return Meta{}, err
	}
	return f.File.Meta()
}

func (f *faultFile) SetMeta(m Meta) error {
	if err := f.f.hit("setmeta", f.path, true); err != nil {
		return err
	}
	return f.File.SetMeta(m)
}

// faults are the errors that disks and their owners produce.
var faults = []error{syscall.EIO, syscall.ENOSPC, syscall.EACCES, syscall.EXDEV, syscall.EROFS}

// where names the call at which something was done, for a test's report.
func (f *faultFS) where() string {
	if f.at == 0 || f.at > len(f.trace) {
		return "nowhere"
	}
	return fmt.Sprintf("call %d of %d (%s)", f.at, f.calls, f.trace[f.at-1])
}
