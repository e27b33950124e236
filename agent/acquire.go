package agent

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"shoal/agent/cache"
	"shoal/agent/source"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

const (
	// A payload of one piece cannot be shared before it is whole, so asking for it
	// directly is as kind to the publisher and quicker.
	smallPayload = 64 << 10
	// After this long without a byte from any peer the payload is taken from a web
	// server; each machine waits a different time, so that a fleet does not come at once.
	minIdle, maxIdle = 20 * time.Second, 40 * time.Second
	minRate          = 1 << 10 // bytes per second
	// A source that is only just fast enough must not keep a machine busy for days: after
	// this long, and a second for so many bytes, the next one is asked. What came is kept.
	directBase = 10 * time.Minute
	directRate = 16 << 10
	tellEvery  = 250 * time.Millisecond
)

// acquire returns the decided payload's file, verified, open at its start: from the
// cache, from peers, or at last from a source. It is given to others from then on.
func (a *Agent) acquire(ctx context.Context, j *job) (*os.File, error) {
	p := j.decision.payload
	f, err := a.cache.Open(ctx, p.SHA256, p.Length)
	if err == nil || ctx.Err() != nil {
		return f, err
	}
	if !errors.Is(err, fault.NotFound) {
		a.log.Warn("a file in the cache was dropped", "sha256", p.SHA256, "err", err)
	}
	info, infoErr := a.info(ctx, p)
	if errors.Is(infoErr, fault.BadInfo) || ctx.Err() != nil {
		return nil, infoErr
	}
	var failed verdict
	if p.Length <= smallPayload || info == nil {
		f, err := a.direct(ctx, j)
		if err == nil || final(err) {
			return f, err
		}
		failed.add(err)
	}
	if info == nil || len(a.cfg.Peers) == 0 && len(a.cfg.announceURLs()) == 0 {
		if failed.err != nil {
			return nil, failed.err
		}
		return a.direct(ctx, j) // there is nobody who could tell of a peer
	}
	f, err = a.fromPeers(ctx, j, info)
	if err == nil || final(err) {
		return f, err
	}
	a.log.Info("no peer delivers; asking the sources", "app", j.app.cfg.Name, "err", err)
	failed.add(err)
	f, err = a.direct(ctx, j)
	if err == nil || final(err) {
		return f, err
	}
	failed.add(err)
	return nil, failed.err
}

// verdict is the failure worth telling of several: what bytes turned out to be counts
// before bytes that did not come, and what was tried after counts as a detail.
type verdict struct{ err error }

func (v *verdict) add(err error) {
	var e *fault.Error
	switch {
	case v.err == nil || notAsSigned(err) && !notAsSigned(v.err):
		v.err = err
	case errors.Is(v.err, fault.NotFound):
		v.err = err
	case errors.Is(v.err, fault.Unreachable) && errors.As(v.err, &e):
		e.Line("sources    %v", err)
	}
}

// final reports whether asking elsewhere is pointless.
func final(err error) bool {
	switch fault.CodeOf(err) {
	case fault.Unreachable, fault.NotFound, fault.ContentMismatch, fault.LengthExceeded:
		return false
	}
	return true
}

// info returns the payload's info dict, checked, from the cache or a source.
func (a *Agent) info(ctx context.Context, p *manifest.Payload) (*swarm.Info, error) {
	ref := swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length}
	kept := a.cache.Info(p.InfoSHA256)
	if b, err := readLimited(kept, swarm.MaxInfoSize); err == nil {
		if info, err := swarm.OpenInfo(b, ref); err == nil {
			return info, nil
		}
	}
	var bad, missing error
	for _, s := range a.sources {
		b, err := s.Document(ctx, tree.Info(p.InfoSHA256), swarm.MaxInfoSize)
		if err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		info, err := swarm.OpenInfo(b, ref)
		if err != nil {
			a.log.Warn("refused an info dict", "source", s.Name(), "err", err)
			bad = fault.New(fault.BadInfo, "the info dict from %s is not as signed: %w", s.Name(), err).
				Line("Nothing was fetched, and nothing was changed.").
				Do("publisher: compare that source with the repository").
				Fact("source", s.Name()).Fact("info_sha256", p.InfoSHA256.String())
			continue
		}
		if err := durable.WriteFile(kept, b, 0o600); err != nil {
			return nil, coded(err, "keeping the info dict")
		}
		return info, nil
	}
	if bad != nil {
		return nil, bad
	}
	return nil, fault.New(fault.Unreachable, "no source has the info dict of this release: %w", missing)
}

// fromPeers fetches the payload from the swarm.
func (a *Agent) fromPeers(ctx context.Context, j *job, info *swarm.Info) (*os.File, error) {
	p := j.decision.payload
	node, err := a.swarmForUpdate()
	if err != nil {
		return nil, err
	}
	dst := a.cache.Unverified(p.SHA256)
	idle := minIdle + rand.N(maxIdle-minIdle)
	if a.cfg.idle > 0 {
		idle = a.cfg.idle
	}
	if len(a.sources) == 0 {
		idle = 0 // nowhere else to go: wait for peers
	}
	got, err := node.Fetch(ctx, info, dst, swarm.FetchOptions{
		Trackers: a.cfg.announceURLs(), Peers: a.cfg.Peers, IdleTimeout: idle, MinRate: minRate,
		Progress: func(s swarm.Progress) {
			a.told(j, func(p *Progress) {
				p.Done, p.Rate, p.Peers, p.Bytes = s.Done, s.Rate, s.Peers, countBytes(s.Bytes)
			})
		},
	})
	j.tell(func(p *Progress) { p.Bytes = countBytes(got) })
	if err != nil {
		return nil, a.fetchFailed(j, err)
	}
	f, err := a.cache.Accept(ctx, dst, p.SHA256, p.Length)
	if err != nil {
		node.Drop(p.Infohash) // pieces and info dict agree, and still it is not the signed file
		return nil, err
	}
	j.tell(func(pr *Progress) { pr.Done = p.Length })
	a.do(ctx, func() { a.shared[p.Infohash] = p.SHA256 })
	return f, nil
}

// swarmForUpdate is the node. A single update without a running agent does not insist
// on the configured port.
func (a *Agent) swarmForUpdate() (*swarm.Node, error) {
	node, err := a.swarm(a.cfg.Listen)
	if errors.Is(err, fault.PortInUse) && !a.serving.Load() {
		return a.swarm(anyPort(a.cfg.Listen))
	}
	return node, err
}

func (a *Agent) fetchFailed(j *job, err error) error {
	version := j.app.cfg.Name + " " + j.decision.held.Manifest.Release.Version
	var space *swarm.SpaceError
	var deadline *swarm.DeadlineError
	switch {
	case errors.As(err, &space):
		return cache.NoSpace(space.Dir, space.Need, space.Have)
	case errors.As(err, &deadline):
		e := fault.New(fault.Unreachable, "no source for %s", version)
		e.Line("peers      nothing came in time (%s)", deadline.Which)
		for _, t := range a.cfg.announceURLs() {
			e.Line("tracker    %s", t)
		}
		if deadline.Done > 0 {
			e.Line("have       %d of %d bytes; they are kept", deadline.Done, deadline.Total)
		}
		return e.Do("the agent tries again by itself; to find out what is wrong here: shoal doctor").
			Fact("done", deadline.Done).Fact("total", deadline.Total)
	case errors.Is(err, swarm.ErrBusy):
		return fault.New(fault.Unreachable, "%s is being fetched for another app", version).Do("the agent tries again by itself")
	case errors.Is(err, swarm.ErrBadInfo):
		return fault.New(fault.BadInfo, "%w", err)
	}
	return coded(err, "fetching "+version)
}

// direct takes the payload from the first source that has it, resuming what an earlier
// attempt left.
func (a *Agent) direct(ctx context.Context, j *job) (*os.File, error) {
	p := j.decision.payload
	failed := verdict{}
	for _, s := range a.sources {
		f, resumed, err := a.directFrom(ctx, j, s, p)
		if resumed && notAsSigned(err) {
			// What was there before may have been the bad part, from a source that lies: it
			// must not be able to spoil what an honest one adds, again and again.
			f, _, err = a.directFrom(ctx, j, s, p)
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
func (a *Agent) directFrom(ctx context.Context, j *job, s source.Source, p *manifest.Payload) (_ *os.File, resumed bool, _ error) {
	path := a.cache.Direct(p.SHA256)
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
	if at > p.Length {
		at = 0
	}
	limit := directFor(p.Length)
	if a.cfg.direct > 0 {
		limit = a.cfg.direct
	}
	timed, cancel := context.WithTimeoutCause(ctx, limit, fault.New(fault.Unreachable, "%s did not deliver within %s", s.Name(), limit).
		Line("What came is kept.").Do("the agent tries again by itself").Fact("source", s.Name()))
	defer cancel()
	if at < p.Length || p.Length == 0 {
		var body io.ReadCloser
		if body, at, err = s.Data(timed, tree.Data(p.SHA256), at); err != nil {
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
		w := &counted{w: dst, done: at, tell: func(done, added int64) {
			a.told(j, func(p *Progress) { p.Done, p.Bytes.Webseed = done, p.Bytes.Webseed+added })
		}}
		_, err = io.Copy(w, io.LimitReader(body, p.Length-at+1))
		w.flush()
		if late := context.Cause(timed); err != nil && errors.Is(late, fault.Unreachable) {
			return nil, at > 0, late
		}
		if err != nil {
			return nil, at > 0, a.writeFailed(err, p)
		}
	}
	f, err := a.cache.Accept(ctx, path, p.SHA256, p.Length)
	if err != nil {
		return nil, at > 0, fromSource(s, err)
	}
	return f, at > 0, nil
}

// directFor is how long a source may take for a whole payload.
func directFor(length int64) time.Duration {
	return directBase + time.Duration(length/directRate)*time.Second
}

// notAsSigned reports whether err says that bytes are not the signed ones.
func notAsSigned(err error) bool { return fault.CodeOf(err).Exit() == fault.ContentMismatch.Exit() }

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
func (a *Agent) writeFailed(err error, p *manifest.Payload) error {
	if cache.IsNoSpace(err) {
		return cache.NoSpace(a.cache.Dir(), p.Length, 0)
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

func countBytes(b swarm.Bytes) Bytes {
	return Bytes{LAN: b.LAN, WAN: b.WAN, Origin: b.Origin, Webseed: b.Webseed}
}
