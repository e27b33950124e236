// Package service starts, stops and looks at the program that is being kept up to
// date, whoever supervises it.
//
// A service that a person stopped stays stopped: nothing here decides to start
// one, and [State] says enough for the caller to know which is which.
package service

import (
	"context"
	"errors"
)

// maxName is how long the name of a unit or a job is at most. The expressions for them do
// not say so: as a repetition it would take every start of the program two milliseconds.
const maxName = 255

// ErrSelf is the answer of a service that is the asking process: only the next process
// can run what is at the program's place, and goes on from there.
var ErrSelf = errors.New("this process has to end first")

// Service controls one long-living program. Every method returns when the thing is
// done or ctx ends; each implementation also has a timeout of its own.
type Service interface {
	// State looks, and changes nothing.
	State(ctx context.Context) (State, error)
	// Restart stops the program if it runs and starts it from the file that is now
	// at its place. It starts a stopped one too: ask State first.
	Restart(ctx context.Context) error
	Stop(ctx context.Context) error
	Start(ctx context.Context) error
}

// State is what a service looks like at one moment.
type State struct {
	Running  bool   `json:"running"`            // its process is there, or is being started again by its supervisor
	Failed   bool   `json:"failed,omitempty"`   // it ended by itself and should not have
	Enabled  bool   `json:"enabled,omitempty"`  // nobody took it out of service
	PID      int    `json:"pid,omitempty"`      // main process; 0 when not known
	Restarts int    `json:"restarts,omitempty"` // how often its supervisor started it again by itself
	Detail   string `json:"detail,omitempty"`   // for people: "active (running)"
}

// None is the service of a program that nothing has to restart.
type None struct{}

// State returns the zero State: a program without a service is never restarted.
func (None) State(context.Context) (State, error) { return State{}, nil }

// Restart does nothing.
func (None) Restart(context.Context) error { return nil }

// Stop does nothing.
func (None) Stop(context.Context) error { return nil }

// Start does nothing.
func (None) Start(context.Context) error { return nil }
