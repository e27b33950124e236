package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"shoal/internal/contextio"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/bundle"
)

// Bundle is the tree in a bundle. What it says is as little believed as what any other
// source says.
type Bundle struct {
	path string
	f    *os.File
	in   *bundle.Bundle
}

// OpenBundle opens the bundle at path, until Close. Errors are those of package bundle,
// not_found and unreachable.
func OpenBundle(path string) (*Bundle, error) {
	b := &Bundle{path: path}
	fi, err := os.Stat(path) // a pipe would block the open
	if err != nil {
		return nil, b.failure(path, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Usage, "%q is not a file", path).Do("name the bundle itself, such as acme-stable-43" + bundle.Suffix)
	}
	if b.f, err = os.Open(path); err != nil {
		return nil, b.failure(path, err)
	}
	if fi, err = b.f.Stat(); err == nil {
		b.in, err = bundle.Open(b.f, fi.Size())
	}
	if err != nil {
		b.f.Close()
		return nil, b.failure(path, err)
	}
	return b, nil
}

// Close closes the file.
func (b *Bundle) Close() error { return b.f.Close() }

// Channels returns the channels that the bundle has a manifest of.
func (b *Bundle) Channels() []manifest.Channel { return b.in.Channels() }

// Name returns the path.
func (b *Bundle) Name() string { return b.path }

// Document implements [Source].
func (b *Bundle) Document(ctx context.Context, path string, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	doc, err := b.in.Document(path, limit)
	if err != nil {
		return nil, b.failure(path, err)
	}
	return doc, nil
}

// Data implements [Source].
func (b *Bundle) Data(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	f, err := b.in.File(path)
	if err != nil {
		return nil, 0, b.failure(path, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, 0, b.failure(path, err)
	}
	return io.NopCloser(&bundleReader{b, path, contextio.Reader(ctx, f)}), offset, nil
}

// bundleReader says of what a read failed, as when the stick is pulled out.
type bundleReader struct {
	b    *Bundle
	path string
	r    io.Reader
}

func (r *bundleReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.b.failure(r.path, err)
	}
	return n, err
}

func (b *Bundle) failure(path string, err error) error {
	var coded *fault.Error
	switch {
	case errors.As(err, &coded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist) && path != b.path:
		return notFound(path, b.path)
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "there is no file %q", b.path).Line("Nothing was changed; what is installed keeps running.")
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Permission, "reading the bundle: %w", err)
	}
	return unreachable("reading %q: %w", b.path, err).
		Line("Nothing was changed; what is installed keeps running. Is the stick still there?").Fact("source", b.path)
}
