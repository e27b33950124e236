package service

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// scm is one service as Windows' service control manager has it.
type scm interface {
	query() (scmStatus, error)
	start() error
	stop() error
	Close() error
}

// scmStatus is what the manager says of it.
type scmStatus struct {
	state    uint32
	exit     uint32 // of its last run
	pid      uint32
	disabled bool
}

// States of a service, and the exit code of one that never ran (winsvc.h, winerror.h).
const (
	scmStopped      = 1
	scmStartPending = 2
	scmStopPending  = 3
	scmRunning      = 4
	neverStarted    = 1077
)

const scmPoll = 200 * time.Millisecond

type windowsService struct {
	name string
	open func(name string) (scm, error)
	wait func(context.Context, time.Duration) error
}

// Windows returns the Windows service of that name, controlled through the service
// control manager. Elsewhere its methods fail.
func Windows(name string) (Service, error) {
	// The manager's own rule: up to 256 characters, no slashes.
	if name == "" || len(name) > 256 || strings.ContainsAny(name, `/\`) {
		return nil, fmt.Errorf("%q is not the name of a Windows service", name)
	}
	return &windowsService{name, openSCM, sleep}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// with has f work on the service.
func (s *windowsService) with(doing string, f func(scm) error) error {
	m, err := s.open(s.name)
	if err == nil {
		err = f(m)
		m.Close()
	}
	if err != nil {
		return fmt.Errorf("%s service %q: %w", doing, s.name, err)
	}
	return nil
}

func (s *windowsService) State(context.Context) (State, error) {
	var st State
	err := s.with("asking for", func(m scm) error {
		q, err := m.query()
		st = State{Running: q.state != scmStopped && q.state != scmStopPending, Enabled: !q.disabled, PID: int(q.pid), Detail: q.String()}
		st.Failed = q.state == scmStopped && q.exit != 0 && q.exit != neverStarted
		return err
	})
	return st, err
}

// String is for people.
func (q scmStatus) String() string {
	names := []string{scmStopped: "stopped", scmStartPending: "starting", scmStopPending: "stopping", scmRunning: "running"}
	name := fmt.Sprintf("in state %d", q.state)
	if int(q.state) < len(names) && names[q.state] != "" {
		name = names[q.state]
	}
	if q.state == scmStopped && q.exit != 0 && q.exit != neverStarted {
		name += fmt.Sprintf(", exit code %d", q.exit)
	}
	return name
}

func (s *windowsService) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

func (s *windowsService) Start(ctx context.Context) error {
	return s.with("starting", func(m scm) error {
		q, err := m.query()
		if err != nil || q.state == scmRunning {
			return err
		}
		if err := m.start(); err != nil {
			return err
		}
		return s.until(ctx, m, scmRunning, scmStartPending)
	})
}

func (s *windowsService) Stop(ctx context.Context) error {
	return s.with("stopping", func(m scm) error {
		q, err := m.query()
		if err != nil || q.state == scmStopped {
			return err
		}
		if q.state != scmStopPending {
			if err := m.stop(); err != nil {
				return err
			}
		}
		return s.until(ctx, m, scmStopped, scmStopPending, scmRunning)
	})
}

// until waits until the service has the wanted state, as long as it is in one that comes
// before.
func (s *windowsService) until(ctx context.Context, m scm, want uint32, before ...uint32) error {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	for {
		q, err := m.query()
		if err != nil || q.state == want {
			return err
		}
		onTheWay := false
		for _, b := range before {
			onTheWay = onTheWay || q.state == b
		}
		if !onTheWay {
			return fmt.Errorf("it is %s", q)
		}
		if err := s.wait(ctx, scmPoll); err != nil {
			return fmt.Errorf("it is still %s: %w", q, err)
		}
	}
}
