//go:build linux || darwin

package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"shoal/internal/durable"
)

const (
	defaultSwap = SwapRename
	currentName = "current"      // a tree's link
	linkType    = fs.ModeSymlink // what it is

	maxXattr = 1024 // extended attributes of one file: far more than anybody sets
)

// osFS is the real file system.
type osFS struct{}

func (osFS) Resolve(path string) (string, error) {
	for range maxLinks {
		real, err := filepath.EvalSymlinks(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return real, err
		}
		// The last element, or what it leads to, is missing: resolve up to it.
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link: there is just no such file
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
}

func (osFS) Readlink(path string) (string, error) { return os.Readlink(path) }

func (osFS) Lstat(path string) (Info, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

func infoOf(fi fs.FileInfo) Info {
	i := Info{Mode: fi.Mode(), Size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.UID, i.GID = int(st.Uid), int(st.Gid)
		i.ID = [2]uint64{uint64(st.Dev), uint64(st.Ino)}
		i.Modified, i.Changed = fi.ModTime().UnixNano(), changed(st)
	}
	return i
}

func (osFS) ReadDir(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFS) Open(path string) (File, error) {
	// O_NONBLOCK: a named pipe in its place must not stop us for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) { // a symbolic link
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Link(name, second string) error { return os.Link(name, second) }
func (osFS) Rename(from, to string) error   { return os.Rename(from, to) }
func (osFS) Remove(path string) error       { return os.Remove(path) }
func (osFS) SyncDir(dir string) error       { return durable.SyncDir(dir) }
func (osFS) Symlink(to, path string) error  { return os.Symlink(to, path) }

// fileInUse is never true: what is open, or runs, can be renamed and removed.
func fileInUse(error) bool { return false }

func setMode(f *os.File, mode fs.FileMode) error { return f.Chmod(mode) }

func openToSync(root *os.Root, name string) (*os.File, error) { return root.Open(name) }

func (osFS) Lock(path string) (io.Closer, error) {
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, err
	}
	if !ok {
		l.Close()
		return nil, errLocked
	}
	return l, nil
}

func (osFS) Space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Space{Bytes: uint64(st.Bavail) * uint64(st.Bsize), Files: uint64(st.Ffree), Inodes: st.Files > 0}, nil
}

type osFile struct{ *os.File }

func (f osFile) Stat() (Info, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

func (f osFile) Meta() (Meta, error) {
	i, err := f.Stat()
	if err != nil {
		return Meta{}, err
	}
	m := Meta{Mode: i.Mode & metaBits, UID: i.UID, GID: i.GID}
	m.Xattrs, err = f.xattrs()
	return m, err
}

func (f osFile) SetMeta(m Meta) error {
	now, err := f.Meta()
	if err != nil {
		return err
	}
	if now.UID != m.UID || now.GID != m.GID {
		if err := f.Chown(m.UID, m.GID); err != nil {
			return err
		}
	}
	// Also when it looks the same: a change of owner clears setuid.
	if err := f.Chmod(m.Mode); err != nil {
		return err
	}
	fd := int(f.Fd())
	for name := range now.Xattrs {
		if _, ok := m.Xattrs[name]; ok {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil {
			return fmt.Errorf("removing attribute %q: %w", name, err)
		}
	}
	for name, value := range m.Xattrs {
		if old, ok := now.Xattrs[name]; ok && string(old) == string(value) && name != "security.capability" {
			continue
		}
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("setting attribute %q: %w", name, err)
		}
	}
	return nil
}

// boundXattr tells attributes that belong to one content or one download, not to
// whatever is installed at a place: they are not carried over.
func boundXattr(name string) bool {
	switch name {
	case "security.ima", "security.evm": // hashes of the content and metadata
		return true
	case "com.apple.quarantine", "com.apple.provenance": // where a download came from
		return true
	}
	return false
}

// xattrs returns the extended attributes that are to be kept.
func (f osFile) xattrs() (map[string][]byte, error) {
	fd := int(f.Fd())
	list, err := growing(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing attributes of %q: %w", f.Name(), err)
	}
	var m map[string][]byte
	for _, name := range strings.Split(string(list), "\x00") {
		if name == "" || boundXattr(name) {
			continue
		}
		if len(m) == maxXattr {
			return nil, fmt.Errorf("%q has more than %d extended attributes", f.Name(), maxXattr)
		}
		value, err := growing(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if err != nil {
			return nil, fmt.Errorf("reading attribute %q of %q: %w", name, f.Name(), err)
		}
		if m == nil {
			m = map[string][]byte{}
		}
		m[name] = value
	}
	return m, nil
}

// growing calls a system call that says how large a buffer it needs.
func growing(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = call(b)
		if errors.Is(err, unix.ERANGE) {
			continue // it grew in between
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
