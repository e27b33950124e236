package apply

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

func (osFS) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755) // a umask may have taken something away
}

func (o osFS) MakeTree(path string) (Tree, error) {
	if err := o.Mkdir(path); err != nil {
		return nil, err
	}
	return o.OpenTree(path)
}

func (osFS) OpenTree(path string) (Tree, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &osTree{root: root}, nil
}

// RemoveAll works through os.Root, which no link leads out of.
func (osFS) RemoveAll(path string) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.RemoveAll(filepath.Base(path))
}

// osTree is a Tree on the real file system.
type osTree struct {
	root  *os.Root
	files []string // that were made
	dirs  []string
}

func (t *osTree) FS() fs.FS    { return t.root.FS() }
func (t *osTree) Close() error { return t.root.Close() }

func (t *osTree) Mkdir(name string, mode fs.FileMode) error {
	if err := t.root.Mkdir(name, mode); err != nil {
		return err
	}
	t.dirs = append(t.dirs, name)
	return t.root.Chmod(name, mode)
}

func (t *osTree) Create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	t.files = append(t.files, name)
	if err := setMode(f, mode); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (t *osTree) Symlink(to, name string) error  { return t.root.Symlink(to, name) }
func (t *osTree) Link(name, second string) error { return t.root.Link(name, second) }

// Sync writes everything at once where the system can, which is quick but on old kernels
// says nothing of what failed, and then asks for each file and directory by itself.
func (t *osTree) Sync() error {
	syncAll(t.root)
	for _, names := range [][]string{t.files, t.dirs, {"."}} {
		for _, name := range names {
			if err := t.syncOne(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *osTree) syncOne(name string) error {
	f, err := openToSync(t.root, name)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
