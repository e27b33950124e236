package swarm

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/anacrolix/torrent"

	"shoal/swarm/disk"
)

// FetchOptions say where to look for peers and when to give up.
type FetchOptions struct {
	// Trackers are announce URLs (BEP 3, BEP 15): http, https or udp. One that cannot be
	// used is left out and logged.
	Trackers []string
	// Peers are "host:port" known from elsewhere. They are dialled, and dialled again for
	// as long as the fetch runs, whenever they are not connected.
	Peers []string
	// Progress is called about four times a second at most, from one goroutine, and not
	// any more once Fetch has returned; Fetch waits for it. After success the last call
	// had Done equal to Total. Calls are left out while it is busy.
	Progress func(Progress)

	// Read is called once with a reader of the content from its first byte to its last,
	// which waits for what has not come yet, and gives nothing that has not matched its
	// SHA-1; of is the file, which is being downloaded. So what takes a look at all of it
	// need not wait for all of it. Fetch waits until Read has returned, and fails if it
	// does; when Fetch fails the reader does, too.
	Read func(r io.Reader, of fs.FileInfo) error

	// Webseeds are asked when peers have given nothing for WebseedAfter: at once by a
	// machine alone, by some of those that are connected to others, and no longer than
	// until peers give again.
	Webseeds     []Webseed
	WebseedAfter time.Duration

	// Deadlines; zero is none. Which one ended a fetch is in the *DeadlineError. While a
	// webseed is asked, or one could still be, only the total one counts.

	// IdleTimeout is how long the fetch goes on without receiving anything useful.
	IdleTimeout time.Duration
	// TotalTimeout is how long the fetch takes at most.
	TotalTimeout time.Duration
	// MinRate is the least number of useful bytes per second, over half a minute.
	MinRate int64
}

// Progress is a moment of a fetch.
type Progress struct {
	Done, Total int64 // bytes verified, of how many
	Bytes       Bytes // so far, in this fetch
	Peers       int   // connected
	Rate        int64 // useful bytes per second, over the last few seconds
}

const (
	fetchTick    = 250 * time.Millisecond
	rateWindow   = 5 * time.Second
	minRateAfter = 30 * time.Second

	// The engine thinks about requests when something happens. When nothing does, what
	// was asked of a peer that does not answer would stay with it for ever.
	nudgeAfter  = time.Second
	nudgePieces = 64
)

// Fetch downloads the torrent i to the file dst, in a directory that exists. It goes on
// from what an earlier fetch left there, as far as that hashes correctly, and needs room
// for the rest before it begins.
//
// After success every piece has matched its SHA-1, the file has been synced, nothing
// writes to it any more, and the node goes on serving it until Drop or Close, under
// whatever name it is given. The content is not to be believed yet: that takes a hash of
// the whole file which somebody signed.
//
// After a failure the file, with what had been downloaded, is left for the next attempt.
// The error is a *SpaceError, a *DeadlineError, ErrBusy, ErrClosed, the cause of ctx, or
// what a file operation failed with. The Bytes are right in either case.
func (n *Node) Fetch(ctx context.Context, i *Info, dst string, o FetchOptions) (Bytes, error) {
	began := time.Now()
	s, done, err := n.open(ctx, i, func(ctx context.Context) (*disk.Store, error) { return disk.OpenFetch(ctx, i.layout(), dst) })
	if err != nil {
		return Bytes{}, fmt.Errorf("fetching %q: %w", i.name, err)
	}
	defer done()
	ctx, cancel := s.within(ctx)
	defer cancel()
	err = s.fetch(ctx, began, o)
	if err != nil {
		s.end(err)
	}
	sum, _ := s.count()
	if err != nil {
		return sum.bytes(), fmt.Errorf("fetching %q: %w", i.name, err)
	}
	return sum.bytes(), nil
}

func (s *share) fetch(ctx context.Context, began time.Time, o FetchOptions) (err error) {
	readOut, err := s.read(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = readOut(err) }()
	failed := make(chan error, 1)
	s.lib.SetOnWriteChunkError(func(err error) {
		s.lib.DisallowDataDownload()
		select {
		case failed <- err:
		default:
		}
	})
	s.begin()
	s.addTrackers(o.Trackers)
	s.tellNeighbours()
	s.keep(o.Peers)

	web := newFallback(ctx, s, o, failed)
	defer web.stop()
	report, finish := reporter(o.Progress)
	defer finish()
	m := newMeter(began, o)
	nudged := began
	tick := time.NewTicker(fetchTick)
	defer tick.Stop()
	for {
		select {
		case <-s.lib.Complete().On():
			s.lib.DisallowDataDownload()
			web.stop()
			if err := s.store.Seal(); err != nil {
				return err
			}
			s.picking.end()
			s.seeding.Store(true)
			report(s.progress(m), true)
			return nil
		case err := <-failed:
			return s.store.WriteError(err)
		case <-s.wish.fresh:
			for _, p := range s.wish.take() {
				s.want(p, false)
			}
		case <-s.picking.fresh:
			s.picking.pick()
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			s.picking.pick()
			p := s.progress(m)
			report(p, false)
			if now.Sub(m.moved) >= nudgeAfter && now.Sub(nudged) >= nudgeAfter {
				s.nudge()
				nudged = now
			}
			web.tick(now)
			if which := m.late(now); which == "total" || which != "" && !web.asking() {
				return &DeadlineError{Which: which, Done: p.Done, Total: p.Total}
			}
		}
	}
}

func anyPriority() torrent.PiecePriority {
	return torrent.PiecePriorityNormal + torrent.PiecePriority(rand.IntN(5))
}

// nudge has the engine think again about whom to ask for what is missing.
func (s *share) nudge() {
	left := nudgePieces
	for p := range s.info.Pieces() {
		if s.store.Has(p) || !s.wish.announced(p) {
			continue
		}
		s.want(p, true)
		if left--; left == 0 {
			return
		}
	}
}

// progress looks at the counts and tells the meter.
func (s *share) progress(m *meter) Progress {
	sum, peers := s.count()
	m.add(time.Now(), sum.useful.Sum())
	return Progress{
		Done: s.store.Verified(), Total: s.info.ref.Length,
		Bytes: sum.bytes(), Peers: peers, Rate: m.rate(rateWindow),
	}
}

// read calls o.Read, if there is one. When the fetch is over, with err, readOut waits for
// it and returns how both ended.
func (s *share) read(ctx context.Context, o FetchOptions) (readOut func(err error) error, err error) {
	if o.Read == nil {
		return func(err error) error { return err }, nil
	}
	fi, err := s.store.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at %q: %w", s.store.Path(), err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	whole, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- o.Read(s.store.InOrder(ctx, whole), fi) }()
	return func(err error) error {
		defer stop(nil)
		if err != nil {
			stop(err)
			<-done
			return err
		}
		close(whole)
		return <-done
	}, nil
}

// reporter starts the goroutine that calls progress. report never waits, unless it must
// be heard; finish waits for the last call.
func reporter(progress func(Progress)) (report func(p Progress, must bool), finish func()) {
	if progress == nil {
		return func(Progress, bool) {}, func() {}
	}
	reports, done := make(chan Progress), make(chan struct{})
	go func() {
		defer close(done)
		for p := range reports {
			progress(p)
		}
	}()
	report = func(p Progress, must bool) {
		if must {
			reports <- p
			return
		}
		select {
		case reports <- p:
		default:
		}
	}
	return report, func() { close(reports); <-done }
}

// A meter watches how much useful payload has come, and knows the deadlines.
type meter struct {
	o       FetchOptions
	began   time.Time
	moved   time.Time // when something useful came last
	samples []sample  // oldest first, for minRateAfter
}

type sample struct {
	at     time.Time
	useful int64
}

// newMeter starts the deadlines: the total one at began, the others now.
func newMeter(began time.Time, o FetchOptions) *meter {
	now := time.Now()
	return &meter{o: o, began: began, moved: now, samples: []sample{{at: now}}}
}

// add notes how much had come by now.
func (m *meter) add(now time.Time, useful int64) {
	if useful > m.samples[len(m.samples)-1].useful {
		m.moved = now
	}
	m.samples = append(m.samples, sample{now, useful})
	// One sample beyond the window stays, to measure from.
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= minRateAfter {
		m.samples = m.samples[1:]
	}
}

// rate is bytes per second over the last window, or as long as there is anything to
// measure.
func (m *meter) rate(window time.Duration) int64 {
	last := m.samples[len(m.samples)-1]
	first := last
	for i := len(m.samples) - 1; i >= 0 && last.at.Sub(first.at) < window; i-- {
		first = m.samples[i]
	}
	if last.at.Equal(first.at) {
		return 0
	}
	return int64(float64(last.useful-first.useful) / last.at.Sub(first.at).Seconds())
}

// late names the deadline that has passed, if any.
func (m *meter) late(now time.Time) string {
	switch {
	case m.o.TotalTimeout > 0 && now.Sub(m.began) >= m.o.TotalTimeout:
		return "total"
	case m.o.IdleTimeout > 0 && now.Sub(m.moved) >= m.o.IdleTimeout:
		return "idle"
	case m.o.MinRate > 0 && now.Sub(m.samples[0].at) >= minRateAfter && m.rate(minRateAfter) < m.o.MinRate:
		return "rate"
	}
	return ""
}
