// Package acquire brings payloads to a machine: out of its cache, from its peers, and at
// last from the sources its documents come from.
//
// What it returns is the signed content, hashed through the very descriptor that is handed
// over; what comes from peers is hashed on its way into that very file. Where it came from
// makes no difference: neither peer nor source is believed, and one that gives something
// else is named and left for the next.
package acquire

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
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
	// A payload of a piece or two can hardly be shared before it is whole, so asking for
	// it directly is nearly as kind to the publisher, and quicker.
	smallPayload = 64 << 10
	// After this long without anything from peers the sources may be asked; each machine
	// waits a different time. It is longer than finding peers takes where there are any.
	minAlone, maxAlone = 10 * time.Second, 20 * time.Second
	// After this long without anything from anybody the download ends, for now.
	maxIdle = time.Minute
	minRate = 1 << 10 // bytes per second
	// Peers that have an info dict give it at once.
	infoPatience = 30 * time.Second
)

// Acquirer knows where payloads are to be had. Its fields do not change once it is used;
// its methods may be called concurrently.
type Acquirer struct {
	// Cache is where they are put together, and kept.
	Cache *cache.Cache
	// Sources are asked for info dicts, and at last for payloads: for those the first, which
	// is the publisher's, after the others.
	Sources []source.Source
	// Node returns the machine's swarm node, made when it is first needed.
	Node func() (*swarm.Node, error)
	// Trackers and Peers are where peers are looked for.
	Trackers, Peers []string
	// Logger receives progress. It must be set.
	Logger *slog.Logger

	// Idle replaces the time without a byte from peers, and Direct the time a source may
	// take for a whole payload; zeros are defaults.
	Idle, Direct time.Duration
}

// Wanted is a payload and what people call the release it belongs to, such as "acme 2.4.1".
type Wanted struct {
	*manifest.Payload
	Release string
}

// Progress is a moment of a download.
type Progress struct {
	Done  int64 // bytes
	Rate  int64 // bytes per second
	Peers int
	Bytes swarm.Bytes // where they came from
}

// Open returns w's file, verified, open at its start: from the cache, from peers, or at
// last from a source. given says that the node gives it to others from then on. tell is
// called with how far it is, from one goroutine at a time.
func (a *Acquirer) Open(ctx context.Context, w Wanted, tell func(Progress)) (f *os.File, given bool, err error) {
	f, err = a.Cache.Open(ctx, w.SHA256, w.Length)
	if err == nil || ctx.Err() != nil {
		return f, false, err
	}
	if !errors.Is(err, fault.NotFound) {
		a.Logger.Warn("a file in the cache was dropped", "sha256", w.SHA256, "err", err)
	}
	info, infoErr := a.Info(ctx, w.Payload)
	if errors.Is(infoErr, fault.BadInfo) || ctx.Err() != nil {
		return nil, false, infoErr
	}
	t := &telling{tell: tell}
	var failed verdict
	asked := w.Length <= smallPayload || info == nil
	if asked {
		f, err := a.direct(ctx, w, t)
		if err == nil || final(err) {
			return f, false, err
		}
		failed.add(err)
	}
	// Those who were asked at once need not be asked again; peers may still be.
	if info != nil && (!asked || a.peersKnown()) {
		var told failures
		var fallback []swarm.Webseed
		if !asked {
			fallback = a.webseeds(w, &told)
		}
		f, err = a.fromPeers(ctx, w, info, t, fallback, &told)
		if err == nil || final(err) {
			return f, err == nil, err
		}
		failed.add(err)
	}
	return nil, false, failed.err
}

// telling adds up what several ways of getting a payload have brought.
type telling struct {
	tell func(Progress)
	last Progress
}

func (t *telling) set(p Progress) {
	t.last = p
	if t.tell != nil {
		t.tell(p)
	}
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

// notAsSigned reports whether err says that bytes are not the signed ones.
func notAsSigned(err error) bool { return fault.CodeOf(err).Exit() == fault.ContentMismatch.Exit() }

// Info returns the payload's info dict, checked, from the cache or a source. Codes:
// bad_info when all that have one have a wrong one, unreachable.
func (a *Acquirer) Info(ctx context.Context, p *manifest.Payload) (*swarm.Info, error) {
	ref := swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length}
	kept := a.Cache.Info(p.InfoSHA256)
	if b, err := readInfo(kept); err == nil {
		if info, err := swarm.OpenInfo(b, ref); err == nil {
			return info, nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(a.Sources))
	for _, s := range a.Sources {
		go func() {
			info, err := infoFrom(ctx, s, p.InfoSHA256, ref)
			answers <- answer{info, err}
		}()
	}
	var bad, missing error
	for range a.Sources {
		switch got := <-answers; {
		case got.err == nil:
			if err := durable.WriteFile(kept, got.info.Bytes(), 0o600); err != nil {
				return nil, coded(err, "keeping the info dict")
			}
			return got.info, nil
		case errors.Is(got.err, fault.BadInfo):
			a.Logger.Warn("refused an info dict", "err", got.err)
			bad = got.err
		default:
			missing = errors.Join(missing, got.err)
		}
	}
	info, err := a.infoFromPeers(ctx, ref)
	switch {
	case err == nil:
		return info, coded(durable.WriteFile(kept, info.Bytes(), 0o600), "keeping the info dict")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case bad != nil:
		return nil, bad
	}
	return nil, fault.New(fault.Unreachable, "nobody has the info dict of this release: %w", errors.Join(missing, err))
}

// peersKnown reports whether there is anybody who could be asked for peers, or is one.
func (a *Acquirer) peersKnown() bool {
	if len(a.Peers)+len(a.Trackers) > 0 {
		return true
	}
	node, err := a.Node()
	return err == nil && node.Acquainted()
}

// infoFromPeers asks peers, where no source has it.
func (a *Acquirer) infoFromPeers(ctx context.Context, ref swarm.Ref) (*swarm.Info, error) {
	if !a.peersKnown() {
		return nil, errors.New("no peer is known")
	}
	node, err := a.Node()
	if err != nil {
		return nil, err
	}
	patience := infoPatience
	if a.Idle > 0 {
		patience = a.Idle
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return node.FetchInfo(ctx, ref, swarm.FetchOptions{Trackers: a.Trackers, Peers: a.Peers})
}

// answer is what a source has for an info dict.
type answer struct {
	info *swarm.Info
	err  error
}

func infoFrom(ctx context.Context, s source.Source, d manifest.Digest, ref swarm.Ref) (*swarm.Info, error) {
	b, err := s.Document(ctx, tree.Info(d), swarm.MaxInfoSize)
	if err != nil {
		return nil, err
	}
	info, err := swarm.OpenInfo(b, ref)
	if err != nil {
		return nil, fault.New(fault.BadInfo, "the info dict from %s is not as signed: %w", s.Name(), err).
			Line("Nothing was fetched, and nothing was changed.").
			Do("publisher: compare that source with the repository").
			Fact("source", s.Name()).Fact("info_sha256", d.String())
	}
	return info, nil
}

func readInfo(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, swarm.MaxInfoSize+1)) // one too many is what OpenInfo refuses
}

// fromPeers fetches the payload from the swarm, and from the fallback when peers give
// nothing: at once when there is nobody who could tell of a peer. Without one it waits for
// peers no longer than the fallback would.
func (a *Acquirer) fromPeers(ctx context.Context, w Wanted, info *swarm.Info, t *telling, fallback []swarm.Webseed, told *failures) (*os.File, error) {
	node, err := a.Node()
	if err != nil {
		return nil, err
	}
	dst := a.Cache.Unverified(w.SHA256)
	alone, idle := minAlone+rand.N(maxAlone-minAlone), maxIdle
	if a.Idle > 0 {
		alone, idle = a.Idle, 2*a.Idle
	}
	switch {
	case len(a.Sources) == 0:
		idle = 0 // nowhere else to go: wait for peers
	case len(fallback) == 0:
		idle = alone
	case !a.peersKnown():
		alone, idle = 0, alone
	}
	var checked fs.FileInfo // the file, if what came into it was the signed content
	before := t.last.Bytes
	got, err := node.Fetch(ctx, info, dst, swarm.FetchOptions{
		Trackers: a.Trackers, Peers: a.Peers, Webseeds: fallback, WebseedAfter: alone,
		IdleTimeout: idle, MinRate: minRate,
		Read: func(r io.Reader, of fs.FileInfo) error {
			if cache.Check(ctx, r, w.SHA256, w.Length) == nil {
				checked = of
			}
			return nil // it is hashed again then, and that says what is wrong
		},
		Progress: func(s swarm.Progress) { t.set(Progress{s.Done, s.Rate, s.Peers, sum(before, s.Bytes)}) },
	})
	t.last.Bytes = sum(before, got)
	if err != nil {
		t.set(t.last)
		return nil, a.fetchFailed(w, err, told.first())
	}
	f, err := a.Cache.AcceptChecked(ctx, dst, checked, w.SHA256, w.Length)
	if err != nil {
		node.Drop(w.Infohash) // pieces and info dict agree, and still it is not the signed file
		return nil, err
	}
	t.set(Progress{Done: w.Length, Bytes: t.last.Bytes})
	return f, nil
}

func sum(a, b swarm.Bytes) swarm.Bytes {
	b.Webseed += a.Webseed
	return b
}

// fetchFailed says why a fetch ended; asked is how the sources that were asked failed.
func (a *Acquirer) fetchFailed(w Wanted, err, asked error) error {
	var space *swarm.SpaceError
	var deadline *swarm.DeadlineError
	switch {
	case errors.As(err, &space):
		return cache.NoSpace(space.Dir, space.Need, space.Have)
	case errors.As(err, &deadline) && asked != nil && notAsSigned(asked):
		return asked
	case errors.As(err, &deadline):
		e := fault.New(fault.Unreachable, "no source for %s", w.Release)
		e.Line("peers      nothing came in time (%s)", deadline.Which)
		for _, t := range a.Trackers {
			e.Line("tracker    %s", t)
		}
		if asked != nil {
			e.Line("sources    %v", asked)
		}
		if deadline.Done > 0 {
			e.Line("have       %d of %d bytes; they are kept", deadline.Done, deadline.Total)
		}
		return e.Do("to find out what is wrong here: shoal doctor network").
			Fact("done", deadline.Done).Fact("total", deadline.Total)
	case errors.Is(err, swarm.ErrBusy):
		return fault.New(fault.Unreachable, "%s is being fetched already", w.Release).Do("try again when that has ended")
	case errors.Is(err, swarm.ErrBadInfo):
		return fault.New(fault.BadInfo, "%w", err)
	}
	return coded(err, "fetching "+w.Release)
}

// coded gives an error that has no code the one that fits.
func coded(err error, doing string) error {
	var e *fault.Error
	switch {
	case err == nil, errors.As(err, &e), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Permission, "%s: %w", doing, err)
	}
	return fault.New(fault.IO, "%s: %w", doing, err)
}
