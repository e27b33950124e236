// Package contextio ends a long copy when its context ends, between two reads or two
// writes: hashing and copying files of gigabytes must not outlive who asked for it.
package contextio

import (
	"context"
	"io"
)

// Reader reads r until ctx ends, and from then on fails with ctx's error. A read that is
// under way is not interrupted. It has Read alone: io.Copy keeps to its own buffer.
func Reader(ctx context.Context, r io.Reader) io.Reader { return &reader{ctx, r} }

// Writer writes to w until ctx ends, and from then on fails with ctx's error.
func Writer(ctx context.Context, w io.Writer) io.Writer { return &writer{ctx, w} }

type reader struct {
	ctx context.Context // of the one copy this is made for
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

type writer struct {
	ctx context.Context // as in reader
	w   io.Writer
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}
