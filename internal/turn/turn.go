// Package turn has processes that want the same lock wait for each other, as long as that
// is sensible.
//
// What a command holds is free in a moment, and who wants it meanwhile must not fail for
// that. What a service holds stays held, and nobody waits for it. All of it is about the
// code locked: any other outcome is returned at once. When ctx is cancelled the error is
// ctx's; a deadline that comes first changes nothing, and the code is locked.
package turn

import (
	"context"
	"errors"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
)

const (
	// forCommand is how long a command waits: for another one, or for a service that has
	// begun to listen for commands.
	forCommand = 5 * time.Second
	// forService is how long a service that starts waits for a command. It may be one that
	// verifies everything again, from sources that are slow.
	forService = 15 * time.Second

	pause = 100 * time.Millisecond
)

// Command tries again for about 5 s while another process holds what try needs.
func Command[T any](ctx context.Context, try func() (T, error)) (T, error) {
	return wait(ctx, forCommand, func() bool { return false }, try)
}

// Alone is Command for what cannot be done beside the service that listens for commands in
// dir: while that runs it fails at once.
func Alone[T any](ctx context.Context, dir string, try func() (T, error)) (T, error) {
	return wait(ctx, forCommand, func() bool { return served(ctx, dir) }, try)
}

// Service is Alone for a service that starts in dir. It waits for about 15 s: it must not
// fail because somebody asked how it stands.
func Service[T any](ctx context.Context, dir string, try func() (T, error)) (T, error) {
	return wait(ctx, forService, func() bool { return served(ctx, dir) }, try)
}

// served reports whether a process listens for commands in dir, this user's or not.
func served(ctx context.Context, dir string) bool {
	_, err := control.Dial(ctx, dir, "running process")
	return err == nil || errors.Is(err, fault.Permission)
}

func wait[T any](ctx context.Context, within time.Duration, hopeless func() bool, try func() (T, error)) (T, error) {
	for began := time.Now(); ; {
		v, err := try()
		if !errors.Is(err, fault.Locked) || hopeless() || time.Since(began) > within {
			return v, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.Canceled) {
				err = ctx.Err()
			}
			return v, err
		}
	}
}
