package publisher

import (
	"context"
	"errors"
	"io"

	"shoal/internal/archive"
	"shoal/internal/fault"
	"shoal/manifest"
)

// checkTrees reads the archives of a release as an agent will, so that nobody signs
// what every machine refuses.
func (bs builds) checkTrees(ctx context.Context) error {
	for _, b := range bs {
		if b.artifact.Kind != manifest.KindTree {
			continue
		}
		r := io.NewSectionReader(b.file, 0, b.artifact.Length)
		_, err := archive.Walk(untilEnd{ctx, r}, func(archive.Entry, io.Reader) error { return ctx.Err() })
		var bad *fault.Error
		if errors.As(err, &bad) {
			return bad.Line("the file is %q", b.path).Line("Nothing was published.").Fact("file", b.path)
		}
		if err != nil {
			return fault.New(codeOr(err, fault.IO), "reading %q: %w", b.path, err).Line("Nothing was published.").Fact("file", b.path)
		}
	}
	return nil
}

// untilEnd reads r until ctx ends.
type untilEnd struct {
	ctx context.Context // of the one reading this is made for
	r   io.Reader
}

func (u untilEnd) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
