// Package health says whether an installed program is well.
//
// A check passes only after a number of successes in a row, within a time; what it
// returns otherwise says what was seen: the exit status, the last line of output.
package health

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Check looks whether a program is well.
type Check interface {
	// Check waits until the program is well: enough successes in a row before the
	// check's timeout. It returns nil, ctx's error, or what was seen last.
	Check(ctx context.Context) error
	// Probe tries once.
	Probe(ctx context.Context) error
}

// Policy is how often and how long a check tries.
type Policy struct {
	Successes int           // in a row; zero means 1
	Interval  time.Duration // between two tries; zero means 2 s
	Timeout   time.Duration // for the whole check; zero means 60 s
	Try       time.Duration // for one try; zero means 10 s
}

func (p *Policy) defaults() error {
	if p.Successes < 0 || p.Interval < 0 || p.Timeout < 0 || p.Try < 0 {
		return errors.New("a health check's numbers cannot be negative")
	}
	if p.Successes == 0 {
		p.Successes = 1
	}
	if p.Interval == 0 {
		p.Interval = 2 * time.Second
	}
	if p.Timeout == 0 {
		p.Timeout = time.Minute
	}
	if p.Try == 0 {
		p.Try = 10 * time.Second
	}
	if least := time.Duration(p.Successes-1) * p.Interval; least >= p.Timeout {
		return fmt.Errorf("a health check of %d successes, %v apart, cannot pass within %v", p.Successes, p.Interval, p.Timeout)
	}
	return nil
}

// None is the check that every program passes.
type None struct{}

// Check returns nil.
func (None) Check(context.Context) error { return nil }

// Probe returns nil.
func (None) Probe(context.Context) error { return nil }

// repeated is a check that looks at one moment only, and so looks often.
type repeated struct {
	p     Policy
	probe func(context.Context) error // returns after Policy.Try at the latest
}

// Probe tries once, for at most Policy.Try.
func (r *repeated) Probe(ctx context.Context) error {
	err := r.probe(ctx)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Check tries until there are enough successes in a row.
func (r *repeated) Check(ctx context.Context) error {
	end := time.Now().Add(r.p.Timeout)
	whole, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var tries, failed, inRow int
	var seen error
	for {
		err := r.probe(whole)
		// A try that the end of the whole check cut short says less than one before it.
		if err == nil || seen == nil || time.Now().Before(end) {
			tries++
			if err == nil {
				inRow++
			} else {
				failed, inRow, seen = failed+1, 0, err
			}
		}
		if inRow == r.p.Successes {
			return nil
		}
		if pause(whole, r.p.Interval) == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if seen == nil {
			return fmt.Errorf("only %d of %d successes in %v", inRow, r.p.Successes, r.p.Timeout)
		}
		return fmt.Errorf("%d of %d tries failed in %v, the last: %w", failed, tries, r.p.Timeout, seen)
	}
}

// pause waits for d, or returns ctx's error when that ends sooner.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return ctx.Err()
	}
}
