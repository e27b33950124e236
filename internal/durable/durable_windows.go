package durable

import (
	"io/fs"
	"os"
	"path/filepath"
)

// replace gives path new content by one rename over it. renameio is not built for
// Windows, because there a rename over an existing file is not promised to be
// atomic; in practice, on NTFS, the name leads to the old file or to the new one.
func replace(path string, data []byte, perm fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SyncDir does nothing: a directory cannot be opened for syncing on Windows, and
// NTFS journals its names.
func SyncDir(string) error { return nil }
