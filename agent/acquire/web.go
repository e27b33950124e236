package acquire

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"shoal/agent/source"
	"shoal/internal/fault"
	"shoal/manifest/tree"
	"shoal/swarm"
)

// web is a source as a fetch from peers falls back on it.
type web struct {
	s    source.Source
	w    Wanted
	a    *Acquirer
	told *failures
}

// Open implements swarm.Webseed.
func (w *web) Open(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	limit := directFor(w.w.Length)
	if w.a.Direct > 0 {
		limit = w.a.Direct
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, notWithin(w.s, limit))
	body, at, err := w.s.Data(ctx, tree.Data(w.w.SHA256), offset)
	if err != nil {
		cancel()
		return nil, 0, err
	}
	return &timedBody{body, ctx, cancel}, at, nil
}

func notWithin(s source.Source, limit time.Duration) *fault.Error {
	return fault.New(fault.Unreachable, "%s did not deliver within %s", s.Name(), limit).
		Line("What came is kept.").Do("the agent tries again by itself").Fact("source", s.Name())
}

// timedBody says that its time was up, when it was.
type timedBody struct {
	io.ReadCloser
	ctx    context.Context // of this one answer
	cancel context.CancelFunc
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if late := context.Cause(b.ctx); err != nil && errors.Is(late, fault.Unreachable) {
		err = late
	}
	return n, err
}

func (b *timedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Failed implements swarm.Webseed.
func (w *web) Failed(err error) {
	if errors.Is(err, swarm.ErrContent) {
		err = fault.New(fault.ContentMismatch, "what %s gives is not the signed file: %w", w.s.Name(), err).
			Line("It was dropped; nothing was installed.").
			Do("compare that source with the publisher's; other sources and peers are tried too").Fact("source", w.s.Name())
	}
	w.a.Logger.Warn("a source does not give a release", "source", w.s.Name(), "release", w.w.Release, "code", fault.CodeOf(err), "err", err)
	w.told.add(coded(err, "reading from "+w.s.Name()))
}

// failures is a verdict that several may add to.
type failures struct {
	mu sync.Mutex // guards v
	v  verdict
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.v.add(err)
}

func (f *failures) first() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.v.err
}

// webseeds are the sources: mirrors in an order of this machine's own, so that a fleet
// does not come to the same one first, and then the publisher.
func (a *Acquirer) webseeds(w Wanted, told *failures) []swarm.Webseed {
	if len(a.Sources) == 0 {
		return nil
	}
	var all []swarm.Webseed
	for _, i := range rand.Perm(len(a.Sources) - 1) {
		all = append(all, &web{a.Sources[1+i], w, a, told})
	}
	return append(all, &web{a.Sources[0], w, a, told})
}
