package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/internal/contextio"
	"shoal/internal/fault"
)

// Dir is a tree in a directory: a mounted stick, a mirror's document root. Names
// never lead out of it, through symbolic links neither.
type Dir string

// Name returns the directory.
func (d Dir) Name() string { return string(d) }

// Document implements [Source].
func (d Dir) Document(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, err := d.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAtMost(contextio.Reader(ctx, f), limit, path, d.Name())
	return b, d.failure(path, err)
}

// Data implements [Source].
func (d Dir) Data(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	f, err := d.open(path)
	if err != nil {
		return nil, 0, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, 0, d.failure(path, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{contextio.Reader(ctx, f), f}, offset, nil
}

func (d Dir) open(path string) (*os.File, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, unreachable("opening the source: %w", err).Fact("source", d.Name())
	}
	defer root.Close()
	name := filepath.FromSlash(path)
	// A pipe or a device among the files would block the open or feed us for ever.
	fi, err := root.Stat(name)
	if err != nil {
		return nil, d.failure(path, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, unreachable("%q in %s is not a regular file", path, d.Name()).Fact("source", d.Name())
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, d.failure(path, err)
	}
	return f, nil
}

func (d Dir) failure(path string, err error) error {
	var coded *fault.Error
	switch {
	case err == nil, errors.As(err, &coded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return notFound(path, d.Name())
	}
	return unreachable("reading %q: %w", path, err).Fact("source", d.Name())
}
