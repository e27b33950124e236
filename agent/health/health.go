// Package health says whether an installed program is well.
//
// A check passes only after a number of successes in a row, within a time; what it
// returns otherwise says what was seen: the exit status, the last line of output.
package health

import (
	"context"
	"errors"
	"time"

	"shoal/agent/service"
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

// None is the check that every program passes.
type None struct{}

// Check returns nil.
func (None) Check(context.Context) error { return nil }

// Probe returns nil.
func (None) Probe(context.Context) error { return nil }

// Command passes while argv exits 0.
func Command(argv []string, p Policy) (Check, error) { return nil, errors.ErrUnsupported }

// HTTP passes while a GET of url answers 2xx. Redirects are not followed.
func HTTP(url string, p Policy) (Check, error) { return nil, errors.ErrUnsupported }

// TCP passes while addr ("host:port") accepts connections.
func TCP(addr string, p Policy) (Check, error) { return nil, errors.ErrUnsupported }

// StayUp passes once s has run for d with the same process id and no restart.
func StayUp(s service.Service, d time.Duration, p Policy) (Check, error) {
	return nil, errors.ErrUnsupported
}
