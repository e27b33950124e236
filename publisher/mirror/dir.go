package mirror

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"shoal/internal/contextio"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest/tree"
)

const (
	dirLock = ".shoal-lock" // no name of a tree
	dirTemp = ".shoal-tmp-"
)

// Dir is a directory, such as the document root of a web server.
type Dir string

// Name implements [Place].
func (d Dir) Name() string { return string(d) }

// Lock implements [Place]. It makes the directory if its parent is there, and removes
// what a writer that died had left unfinished.
func (d Dir) Lock(context.Context) (func() error, error) {
	if err := os.Mkdir(string(d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	l := flock.New(filepath.Join(string(d), dirLock), flock.SetPermissions(0o644))
	ok, err := l.TryLock()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.Locked, "another process is pushing to %q", string(d)).
			Line("Nothing was written.").Do("try again when it is done")
	}
	left, err := filepath.Glob(filepath.Join(string(d), dirTemp+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l.Close, nil
}

func (d Dir) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

// Open implements [Place].
func (d Dir) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	fi, err := os.Stat(d.path(name)) // a pipe would block the open
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "open", Path: d.path(name), Err: errors.New("not a file")}
	}
	f, err := os.Open(d.path(name))
	return f, fi.Size(), err
}

// Put implements [Place].
func (d Dir) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	return d.put(name, func(f *os.File) error {
		n, err := io.Copy(f, contextio.Reader(ctx, io.LimitReader(r, size)))
		if err == nil && n != size {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

func (d Dir) put(name string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(string(d), dirTemp+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil { // it is for a web server to read
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return d.name(f.Name(), name)
}

// name gives a complete file its name.
func (d Dir) name(from, name string) error {
	dir := string(d)
	for _, part := range strings.Split(filepath.Dir(filepath.FromSlash(name)), string(filepath.Separator)) {
		parent := dir
		dir = filepath.Join(dir, part)
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = durable.SyncDir(parent)
		}
		if err != nil {
			return err
		}
	}
	return durable.Rename(from, d.path(name))
}

// Copy implements [Place]. Where the filesystem can, both names are of one file: it is
// not written to any more.
func (d Dir) Copy(ctx context.Context, from, to string) error {
	tmp := filepath.Join(string(d), dirTemp+"link")
	if err := os.Link(d.path(from), tmp); err == nil {
		defer os.Remove(tmp) // a rename onto a name of the same file leaves both
		return d.name(tmp, to)
	}
	r, size, err := d.Open(ctx, from)
	if err != nil {
		return err
	}
	defer r.Close()
	return d.Put(ctx, to, r, size)
}

// List implements [Place].
func (d Dir) List(ctx context.Context) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(string(d)), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && e.Type().IsRegular() && tree.Valid(name) {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

// Remove implements [Place].
func (d Dir) Remove(_ context.Context, name string) error { return os.Remove(d.path(name)) }
