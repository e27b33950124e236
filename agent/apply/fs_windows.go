package apply

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"golang.org/x/sys/windows"
)

const (
	defaultSwap = SwapSelfupdate // a running program can be renamed there, not replaced
	currentName = "current.txt"  // says what a link would: links take a privilege there
	linkType    = fs.FileMode(0) // a regular file
	maxLink     = 4 << 10
)

// osFS is the real file system. Owners and access control lists are what the
// directory gives.
type osFS struct{}

func (osFS) Resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

func (osFS) Readlink(path string) (string, error) {
	b, err := readFile(osFS{}, path, maxLink)
	return strings.TrimSpace(string(b)), err
}

func (o osFS) Symlink(to, path string) error {
	f, err := o.Create(path)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, to+"\r\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// fileInUse reports whether err says that somebody else has a file open, or runs it.
func fileInUse(err error) bool {
	return errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
}

func setMode(*os.File, fs.FileMode) error { return nil } // what one may do is in access control lists

func openToSync(root *os.Root, name string) (*os.File, error) {
	if i, err := root.Stat(name); err == nil && i.IsDir() {
		return os.OpenFile(os.DevNull, os.O_RDWR, 0) // NTFS journals its names
	}
	return root.OpenFile(name, os.O_RDWR, 0)
}

func (osFS) Lstat(path string) (Info, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return Info{}, err
	}
	i := Info{Mode: fi.Mode(), Size: fi.Size()}
	if !fi.Mode().IsRegular() {
		return i, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	return osFile{f}.Stat()
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
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Link(name, second string) error { return os.Link(name, second) }
func (osFS) Rename(from, to string) error   { return os.Rename(from, to) }
func (osFS) Remove(path string) error       { return os.Remove(path) }
func (osFS) SyncDir(string) error           { return nil } // NTFS journals its names

func (osFS) Lock(path string) (io.Closer, error) {
	l := flock.New(path, flock.SetPermissions(0o600))
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
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return Space{}, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(p, &free, nil, nil)
	return Space{Bytes: free}, err
}

type osFile struct{ *os.File }

func (f osFile) Stat() (Info, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return Info{}, err
	}
	i := Info{Mode: fi.Mode(), Size: fi.Size()}
	var d windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &d); err != nil {
		return Info{}, err
	}
	i.ID = [2]uint64{uint64(d.VolumeSerialNumber), uint64(d.FileIndexHigh)<<32 | uint64(d.FileIndexLow)}
	return i, nil
}

func (f osFile) Meta() (Meta, error) {
	i, err := f.Stat()
	return Meta{Mode: i.Mode & 0o222}, err // the read-only attribute
}

func (f osFile) SetMeta(m Meta) error { return f.Chmod(m.Mode) }
