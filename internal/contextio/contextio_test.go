package contextio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

// endless gives bytes for ever, and ends the context when enough were taken.
type endless struct {
	left   int
	cancel context.CancelFunc
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left -= len(p); e.left <= 0 {
		e.cancel()
	}
	return len(p), nil
}

func TestACopyEndsWithItsContext(t *testing.T) {
	for _, side := range []string{"reader", "writer"} {
		t.Run(side, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var src io.Reader = &endless{1 << 20, cancel}
			dst := io.Discard
			if side == "reader" {
				src = Reader(ctx, src)
			} else {
				dst = Writer(ctx, dst)
			}
			if n, err := io.Copy(dst, src); !errors.Is(err, context.Canceled) || n == 0 {
				t.Errorf("it ended after %d bytes with %v", n, err)
			}
		})
	}
}

func TestACopyIsWhole(t *testing.T) {
	var b bytes.Buffer
	if _, err := io.Copy(Writer(t.Context(), &b), Reader(t.Context(), bytes.NewReader([]byte("all of it")))); err != nil || b.String() != "all of it" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
