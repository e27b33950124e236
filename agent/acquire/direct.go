package acquire

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"shoal/agent/cache"
	"shoal/agent/source"
	"shoal/internal/fault"
	"shoal/manifest/tree"
)

const (
	// A source that is only just fast enough must not keep a machine busy for days: after
	// this long, and a second for so many bytes, the next one is asked. What came is kept.
	directBase = 10 * time.Minute
	directRate = 16 << 10
	tellEvery  = 250 * time.Millisecond
)

// direct takes the payload from the first source that has it, resuming what an earlier
// attempt left.
func (a *Acquirer) direct(ctx context.Context, w Wanted, t *telling) (*os.File, error) {
	failed := verdict{}
	for _, s := range a.Sources {
		f, resumed, err := a.directFrom(ctx, w, s, t)
		if resumed && notAsSigned(err) {
			// What was there before may have been the bad part, from a source that lies: it
			// must not be able to spoil what an honest one adds, again and again.
			f, _, err = a.directFrom(ctx, w, s, t)
		}
		if err == nil || final(err) {
			return f, err
		}
		failed.add(err)
	}
	if failed.err == nil {
		failed.add(fault.New(fault.Unreachable, "no source is configured"))
	}
	return nil, failed.err
}

// directFrom takes the payload from s; resumed says that it began with bytes that an
// earlier attempt left.
func (a *Acquirer) directFrom(ctx context.Context, w Wanted, s source.Source, t *telling) (_ *os.File, resumed bool, _ error) {
	path := a.Cache.Direct(w.SHA256)
	dst, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, coded(err, "downloading")
	}
	defer dst.Close()
	fi, err := dst.Stat()
	if err != nil {
		return nil, false, coded(err, "downloading")
	}
	at := fi.Size()
	if at > w.Length {
		at = 0
	}
	limit := directFor(w.Length)
	if a.Direct > 0 {
		limit = a.Direct
	}
	timed, cancel := context.WithTimeoutCause(ctx, limit, notWithin(s, limit))
	defer cancel()
	if at < w.Length || w.Length == 0 {
		var body io.ReadCloser
		if body, at, err = s.Data(timed, tree.Data(w.SHA256), at); err != nil {
			return nil, false, err
		}
		defer body.Close()
		if err := dst.Truncate(at); err != nil {
			return nil, false, coded(err, "downloading")
		}
		if _, err := dst.Seek(at, io.SeekStart); err != nil {
			return nil, false, coded(err, "downloading")
		}
		// One byte more than is signed, so that a longer file is seen to be longer.
		to := &counted{w: dst, done: at, tell: func(done, added int64) {
			p := t.last
			p.Done, p.Rate, p.Peers, p.Bytes.Webseed = done, 0, 0, p.Bytes.Webseed+added
			t.set(p)
		}}
		_, err = io.Copy(to, io.LimitReader(body, w.Length-at+1))
		to.flush()
		if late := context.Cause(timed); err != nil && errors.Is(late, fault.Unreachable) {
			return nil, at > 0, late
		}
		if err != nil {
			return nil, at > 0, a.writeFailed(err, w)
		}
	}
	f, err := a.Cache.Accept(ctx, path, w.SHA256, w.Length)
	if err != nil {
		return nil, at > 0, fromSource(s, err)
	}
	return f, at > 0, nil
}

// directFor is how long a source may take for a whole payload.
func directFor(length int64) time.Duration {
	return directBase + time.Duration(length/directRate)*time.Second
}

// fromSource says whose file is not the signed one.
func fromSource(s source.Source, err error) error {
	var e *fault.Error
	if errors.As(err, &e) && notAsSigned(e) {
		e.Line("It came from %s.", s.Name()).Do("compare that source with the publisher's; other sources and peers are tried too")
		e.Fact("source", s.Name())
	}
	return err
}

// writeFailed tells a full disk from a source that went away.
func (a *Acquirer) writeFailed(err error, w Wanted) error {
	if cache.IsNoSpace(err) {
		return cache.NoSpace(a.Cache.Dir(), w.Length, 0)
	}
	return coded(err, "downloading")
}

// counted counts what is written, and tells of it a few times a second.
type counted struct {
	w           io.Writer
	done, added int64
	told        time.Time
	tell        func(done, added int64)
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.done, c.added = c.done+int64(n), c.added+int64(n)
	if err != nil || time.Since(c.told) > tellEvery {
		c.flush()
	}
	return n, err
}

func (c *counted) flush() {
	c.tell(c.done, c.added)
	c.added, c.told = 0, time.Now()
}
