package apply

import (
	"context"
	"time"

	"shoal/internal/fault"
)

const (
	patience  = time.Minute // for a file that somebody else has open
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
)

// patience in the face of virus scanners and indexers: on Windows they open a file that
// has just been written, and it can be neither renamed nor removed meanwhile.
type patient struct {
	inUse func(error) bool // says that an error is of that sort
	now   func() time.Time
	wait  func(context.Context, time.Duration) error
}

func newPatient() patient {
	return patient{inUse: fileInUse, now: time.Now, wait: func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// try calls do until it fails for another reason than that, again says no, or a minute is
// over, and says so then.
func (p patient) try(ctx context.Context, path string, do func() error, again func() bool) error {
	began := p.now()
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := do()
		if err == nil || !p.inUse(err) || !again() {
			return err
		}
		if p.now().Sub(began) >= patience {
			return fault.New(fault.ApplyFailed, "%q is in use by another program: %w", path, err).
				Line("it was tried again for %v", patience).
				Do("see which program has it open: a virus scanner, an indexer, or itself").
				Do("the next update tries again")
		}
		if werr := p.wait(ctx, wait); werr != nil {
			return err
		}
	}
}
