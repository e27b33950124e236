package service

import (
	"context"
	"errors"
	"time"
)

// CommandConfig says how a program without a known supervisor is controlled. Each
// command is an argv list; no shell reads it.
type CommandConfig struct {
	// Restart must be set. It returns once it has started the program, which must
	// then live on by itself in a session of its own, as an init script does it, with
	// its standard output and error redirected away from the ones it was given.
	Restart []string
	// Stop and Start may be empty: then Restart serves for Start, and Stop does nothing.
	Stop, Start []string
	// Status exits 0 while the program runs. If the first line it prints is a number,
	// that is the process id (so `pgrep -o -x acme` will do). Without it the program is
	// taken to be running.
	Status []string
	// Timeout bounds each command; zero means 90 seconds.
	Timeout time.Duration
}

type command struct{ c CommandConfig }

// Command returns a service that is controlled by commands.
func Command(c CommandConfig) (Service, error) {
	if len(c.Restart) == 0 {
		return nil, errors.New("a command service needs a restart command")
	}
	return &command{c}, nil
}

func (s *command) State(ctx context.Context) (State, error) { return State{}, errors.ErrUnsupported }
func (s *command) Restart(ctx context.Context) error        { return errors.ErrUnsupported }
func (s *command) Stop(ctx context.Context) error           { return errors.ErrUnsupported }
func (s *command) Start(ctx context.Context) error          { return errors.ErrUnsupported }
