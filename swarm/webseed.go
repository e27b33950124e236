package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A Webseed has the whole file, and gives ranges of it by something else than BitTorrent,
// such as HTTP. It is believed no more than a peer: every piece is hashed.
type Webseed interface {
	// Open returns the file's bytes from offset on. A place that cannot begin there begins
	// at zero: the second result says where. The reader must fail when it is too slow, and
	// end with ctx.
	Open(ctx context.Context, offset int64) (io.ReadCloser, int64, error)
	// Failed is told why this place is not asked any more in this fetch. The error is
	// ErrContent when what it gave is not the torrent's content.
	Failed(err error)
}

const (
	// A neighbourhood that lacks a piece lacks it together, and whoever gets it passes it
	// on: of this many machines one has to ask.
	mostAskers = 8
	// Peers that give less than this in a while give nothing.
	leastProgress = 64 << 10
	// A place that fails this often, and gives no piece between, is left.
	webFailures = 2
	webPause    = time.Second // between two attempts at places that fail
)

// fallback has webseeds give what peers do not, for one fetch. A machine asks when its
// peers have given nothing for a while, and stops when they give again. All of it belongs
// to the fetch but where it says otherwise.
type fallback struct {
	s      *share
	o      FetchOptions
	broken chan<- error // what a write failed with

	cancel  context.CancelFunc
	done    chan struct{} // closed when the one that asks has ended; nil if none does
	ctx     context.Context
	seeds   []*webseed // that may be asked; while one asks, they are its own
	enough  atomic.Bool
	useful  int64     // from peers, when they last gave enough
	moved   time.Time // and when that was
	decided time.Time // when a draw was last made
}

type webseed struct {
	Webseed
	failures int // since it last gave a piece that was missing
}

func newFallback(ctx context.Context, s *share, o FetchOptions, broken chan<- error) *fallback {
	f := &fallback{s: s, o: o, broken: broken, moved: time.Now()}
	f.ctx, f.cancel = context.WithCancel(ctx)
	for _, w := range o.Webseeds {
		f.seeds = append(f.seeds, &webseed{Webseed: w})
	}
	return f
}

// stop ends it, and waits until nothing is written any more.
func (f *fallback) stop() {
	f.cancel()
	if f.done != nil {
		<-f.done
	}
}

// asking reports whether a webseed is being asked, or one could still be: then a fetch to
// which nothing comes is not over.
func (f *fallback) asking() bool {
	if f.done == nil {
		return len(f.seeds) > 0
	}
	select {
	case <-f.done:
		return len(f.seeds) > 0
	default:
		return true
	}
}

// tick looks at what peers give, and begins to ask, or ends it.
func (f *fallback) tick(now time.Time) {
	if len(f.o.Webseeds) == 0 {
		return
	}
	sum, peers := f.s.count()
	useful := sum.useful.Sum() - sum.useful[ClassWebseed]
	if useful-f.useful >= leastProgress {
		f.useful, f.moved = useful, now
		f.enough.Store(true)
	}
	if f.done != nil {
		select {
		case <-f.done:
			f.done, f.moved = nil, now // peers get the next try
		default:
			return
		}
	}
	if len(f.seeds) == 0 || !f.mayAsk(now, peers) {
		return
	}
	f.enough.Store(false)
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		f.ask()
	}()
}

// mayAsk draws lots, more of them blanks the more peers there are who want the same, until
// the fetch would otherwise end.
func (f *fallback) mayAsk(now time.Time, peers int) bool {
	idle := now.Sub(f.moved)
	switch {
	case idle < f.o.WebseedAfter:
		return false
	case f.o.IdleTimeout > 0 && idle >= f.o.IdleTimeout:
		return true
	case now.Sub(f.decided) < f.o.WebseedAfter/4:
		return false
	}
	f.decided = now
	return rand.IntN(min(1+peers, mostAskers)) == 0
}

// ask takes missing pieces from one webseed after the other, until peers give again, or
// all is there, or none is left to ask.
func (f *fallback) ask() {
	for !f.enough.Load() && !f.s.store.Complete() && f.ctx.Err() == nil && len(f.seeds) > 0 {
		w := f.seeds[0]
		err := f.from(w)
		if err == nil || f.ctx.Err() != nil {
			continue
		}
		f.seeds = append(f.seeds[1:], w) // the others first
		if w.failures++; w.failures >= webFailures || errors.Is(err, ErrContent) {
			f.seeds = f.seeds[:len(f.seeds)-1]
			w.Failed(err)
		}
		f.s.n.log.Info("a webseed gave nothing", "error", err)
		if len(f.seeds) > 0 && f.seeds[0].failures > 0 {
			f.pause()
		}
	}
}

func (f *fallback) pause() {
	t := time.NewTimer(webPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.ctx.Done():
	}
}

// from takes a run of missing pieces from w. Where it begins is drawn, so that machines
// that ask at the same time have something to exchange afterwards.
func (f *fallback) from(w *webseed) error {
	s := f.s
	first := f.missing()
	if first < 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	offset, _, _ := s.info.piece(first)
	body, at, err := w.Open(ctx, offset)
	if err != nil {
		return err
	}
	defer body.Close()
	fromStart := at != offset // it can do no other, so all of it is looked through
	if at != 0 && at != offset {
		return fmt.Errorf("it was asked for the bytes from %d and gives those from %d", offset, at)
	}
	defer s.store.Give(-1)
	buf := make([]byte, s.info.pieceLength)
	for n := int(at / s.info.pieceLength); n < s.info.Pieces(); n++ {
		if s.store.Complete() || f.enough.Load() || !fromStart && s.store.Has(n) {
			return nil
		}
		off, length, want := s.info.piece(n)
		read, err := io.ReadFull(body, buf[:length])
		if err != nil {
			s.countWeb(int64(read), 0)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("its file ends after %d of %d bytes", off+int64(read), s.info.ref.Length)
			}
			return err
		}
		if sum := sha1.Sum(buf[:length]); string(sum[:]) != string(want) {
			s.countWeb(length, 0)
			return fmt.Errorf("%w: piece %d of %d", ErrContent, n, s.info.Pieces())
		}
		if s.store.Has(n) {
			s.countWeb(length, 0)
			continue
		}
		s.store.Give(n)
		if _, err := s.store.WriteAt(buf[:length], off); err != nil {
			return f.breaks(err)
		}
		s.countWeb(length, length) // now: the fetch may be over as soon as the engine knows
		// The engine hashes it again: it is the one that says what is here.
		if err := s.lib.Piece(n).VerifyDataContext(ctx); err != nil && !s.store.Has(n) {
			return err
		}
		// It does not wait for the store to be told, which is about to be.
		for marking := true; !s.store.Has(n); {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case !marking:
				s.countWeb(0, -length)
				return f.breaks(fmt.Errorf("piece %d: %w", n, errForgotten))
			}
			time.Sleep(time.Millisecond)
			marking = s.lib.PieceState(n).Marking
		}
		w.failures = 0
	}
	return nil
}

// breaks ends the fetch with what its file failed with.
func (f *fallback) breaks(err error) error {
	select {
	case f.broken <- err:
	default:
	}
	return err
}

// errForgotten says that the file does not have what was written to it.
var errForgotten = errors.New("it reads differently from what was written")

// missing draws a piece that is not here; -1 for none.
func (f *fallback) missing() int {
	pieces := f.s.info.Pieces()
	start := rand.IntN(pieces)
	for i := range pieces {
		if n := (start + i) % pieces; !f.s.store.Has(n) {
			return n
		}
	}
	return -1
}

// countWeb counts what came from a webseed.
func (s *share) countWeb(received, useful int64) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	s.pmu.Lock()
	defer s.pmu.Unlock()
	s.past.received[ClassWebseed] += received
	s.past.useful[ClassWebseed] += useful
}
