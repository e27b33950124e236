package turn

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
)

var errHeld = fault.New(fault.Locked, "another process is at work")

// held is a lock that somebody holds for a while from now on.
func held(d time.Duration) func() (int, error) {
	free := time.Now().Add(d)
	return func() (int, error) {
		if time.Now().Before(free) {
			return 0, errHeld
		}
		return 7, nil
	}
}

func TestWaiting(t *testing.T) {
	type waiter func(context.Context, func() (int, error)) (int, error)
	dir := t.TempDir() // where nobody listens
	command := func(ctx context.Context, try func() (int, error)) (int, error) { return Command(ctx, try) }
	alone := func(ctx context.Context, try func() (int, error)) (int, error) { return Alone(ctx, dir, try) }
	service := func(ctx context.Context, try func() (int, error)) (int, error) { return Service(ctx, dir, try) }
	rows := []struct {
		name string
		wait waiter
		held time.Duration
		ends func(context.Context) (context.Context, context.CancelFunc) // of ctx
		want error
		most time.Duration // that it takes
	}{
		{name: "free", wait: command},
		{name: "a-command-for-a-command", wait: command, held: forCommand, most: forCommand + pause},
		{name: "a-command-for-longer", wait: command, held: time.Hour, want: fault.Locked, most: forCommand + pause},
		{name: "alone-for-a-command", wait: alone, held: forCommand, most: forCommand + pause},
		{name: "alone-for-longer", wait: alone, held: time.Hour, want: fault.Locked, most: forCommand + pause},
		{name: "a-service-for-a-command", wait: service, held: forService, most: forService + pause},
		{name: "a-service-for-longer", wait: service, held: time.Hour, want: fault.Locked, most: forService + pause},
		{name: "deadline", wait: service, held: time.Hour, want: fault.Locked, most: time.Second,
			ends: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			}},
		{name: "cancelled", wait: service, held: time.Hour, want: context.Canceled, most: time.Second,
			ends: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if r.ends != nil {
					var cancel context.CancelFunc
					ctx, cancel = r.ends(ctx)
					defer cancel()
				}
				began := time.Now()
				v, err := r.wait(ctx, held(r.held))
				if took := time.Since(began); !errors.Is(err, r.want) || (err == nil) != (v == 7) || took > r.most {
					t.Errorf("%d, %v after %v; want %v within %v", v, err, took, r.want, r.most)
				}
			})
		})
	}
}

func TestOtherFailuresAreNotWaitedFor(t *testing.T) {
	tries := 0
	_, err := Command(t.Context(), func() (int, error) { tries++; return 0, fault.New(fault.Permission, "no") })
	if !errors.Is(err, fault.Permission) || tries != 1 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// Beside a service nobody waits for its end; but a command waits for it to listen.
func TestBesideAService(t *testing.T) {
	dir := t.TempDir()
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tries := 0
	try := func() (int, error) { tries++; return 0, errHeld }
	for name, wait := range map[string]func() (int, error){
		"alone":   func() (int, error) { return Alone(t.Context(), dir, try) },
		"service": func() (int, error) { return Service(t.Context(), dir, try) },
	} {
		tries = 0
		if _, err := wait(); !errors.Is(err, fault.Locked) || tries != 1 {
			t.Errorf("%s: %v after %d tries, want locked at once", name, err, tries)
		}
	}
	tries = 0
	if v, err := Command(t.Context(), func() (int, error) {
		if tries++; tries < 3 {
			return 0, errHeld
		}
		return 7, nil
	}); v != 7 || err != nil {
		t.Errorf("a command: %d, %v", v, err)
	}
}
