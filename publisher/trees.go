package publisher

import (
	"context"
	"errors"
	"io"

	"shoal/internal/archive"
	"shoal/internal/contextio"
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
		_, err := archive.Walk(contextio.Reader(ctx, r), func(archive.Entry, io.Reader) error { return ctx.Err() })
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
