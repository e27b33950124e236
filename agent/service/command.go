package service

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shoal/agent/internal/command"
)

// defaultTimeout is systemd's own for a start or a stop.
const defaultTimeout = 90 * time.Second

// CommandConfig says how a program without a known supervisor is controlled. Each
// command is an argv list; no shell reads it, and it runs with a clean environment.
type CommandConfig struct {
	// Restart must be set. It stops the program if it runs, starts it, and returns: the
	// program must then live on in a session of its own (setsid), as after an init
	// script, and must not keep the output it was given, which is closed two seconds
	// after Restart has ended.
	Restart []string
	// Stop and Start may be empty: then Restart serves for Start, and Stop does nothing.
	Stop, Start []string
	// Status exits 0 while the program runs. If the first line it prints is a number,
	// that is the process id, so `pgrep -o -x acme` will do. Without Status the program
	// is taken to be running.
	Status []string
	// Timeout bounds each command; zero means 90 seconds.
	Timeout time.Duration
}

type commands struct{ c CommandConfig }

// Command returns a service that is controlled by commands. Nobody starts its
// program again when it crashes, so after a crash it counts as stopped.
func Command(c CommandConfig) (Service, error) {
	if len(c.Restart) == 0 {
		return nil, errors.New("a command service needs a restart command")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return &commands{c}, nil
}

func (s *commands) run(ctx context.Context, argv []string) (command.Outcome, error) {
	return command.Run(ctx, command.Command{Argv: argv, Timeout: s.c.Timeout})
}

// State runs the status command. Any exit status but 0 means stopped: scripts do not
// agree on more.
func (s *commands) State(ctx context.Context) (State, error) {
	if len(s.c.Status) == 0 {
		return State{Running: true, Enabled: true, Detail: "taken to be running: there is no status command"}, nil
	}
	o, err := s.run(ctx, s.c.Status)
	if err != nil {
		if o.Exit <= 0 { // it did not end by itself, so it says nothing
			return State{}, fmt.Errorf("asking for the service's state: %w", err)
		}
		return State{Enabled: true, Detail: fmt.Sprintf("stopped (status exited %d)", o.Exit)}, nil
	}
	first, _, _ := strings.Cut(o.Output, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 0 {
		pid = 0
	}
	return State{Running: true, Enabled: true, PID: pid, Detail: "running"}, nil
}

func (s *commands) Restart(ctx context.Context) error {
	if _, err := s.run(ctx, s.c.Restart); err != nil {
		return fmt.Errorf("restarting the service: %w", err)
	}
	return nil
}

func (s *commands) Start(ctx context.Context) error {
	if len(s.c.Start) == 0 {
		return s.Restart(ctx)
	}
	if _, err := s.run(ctx, s.c.Start); err != nil {
		return fmt.Errorf("starting the service: %w", err)
	}
	return nil
}

func (s *commands) Stop(ctx context.Context) error {
	if len(s.c.Stop) == 0 {
		return nil
	}
	if _, err := s.run(ctx, s.c.Stop); err != nil {
		return fmt.Errorf("stopping the service: %w", err)
	}
	return nil
}
