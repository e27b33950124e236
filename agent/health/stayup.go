package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"shoal/agent/service"
)

type stayUp struct {
	s service.Service
	d time.Duration
	p Policy
}

// StayUp passes once s has run for d with the same process id and no restart. A
// crash starts the time anew, until the policy's timeout; that is d and a minute
// when it is zero. Successes do not matter.
func StayUp(s service.Service, d time.Duration, p Policy) (Check, error) {
	if _, none := s.(service.None); none || s == nil {
		return nil, errors.New("a stay-up check needs a service to look at")
	}
	if d <= 0 {
		return nil, errors.New("a stay-up check needs the time for which the service must run")
	}
	if p.Timeout == 0 {
		p.Timeout = d + time.Minute
	}
	p.Successes = 1
	if err := p.defaults(); err != nil {
		return nil, err
	}
	p.Interval = min(p.Interval, d)
	if p.Timeout <= d {
		return nil, fmt.Errorf("a service cannot run for %v within %v", d, p.Timeout)
	}
	return &stayUp{s: s, d: d, p: p}, nil
}

func (c *stayUp) look(ctx context.Context) (service.State, error) {
	try, cancel := context.WithTimeout(ctx, c.p.Try)
	defer cancel()
	st, err := c.s.State(try)
	if err != nil {
		return st, err
	}
	if !st.Running || st.Failed {
		return st, fmt.Errorf("the service is not running: %s", st.Detail)
	}
	return st, nil
}

// Probe looks whether the service runs now.
func (c *stayUp) Probe(ctx context.Context) error {
	_, err := c.look(ctx)
	return err
}

// Check waits until the service has stayed up.
func (c *stayUp) Check(ctx context.Context) error {
	whole, cancel := context.WithTimeout(ctx, c.p.Timeout)
	defer cancel()
	var first service.State
	var since time.Time // of first; zero while the service is not running
	seen := errors.New("it was not seen running")
	for {
		st, err := c.look(whole)
		switch {
		case whole.Err() != nil: // what was seen before that counts
		case err != nil:
			seen, since = err, time.Time{}
		case since.IsZero():
			first, since = st, time.Now()
		case st.PID != first.PID || st.Restarts != first.Restarts:
			seen = fmt.Errorf("the service did not stay up: process %d, now %d; restarted %d times, now %d", first.PID, st.PID, first.Restarts, st.Restarts)
			first, since = st, time.Now()
		case time.Since(since) >= c.d:
			return nil
		}
		if pause(whole, c.p.Interval) == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("not up for %v within %v: %w", c.d, c.p.Timeout, seen)
	}
}
