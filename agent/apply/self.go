package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"shoal/agent/service"
	"shoal/internal/fault"
)

// Started is for a program that is replaced by itself, and which therefore nobody
// checks but its next process. It must be called with the program's own file, links
// resolved, before anything that a bad version could break: it counts a start of a
// version that is not confirmed yet. After too many it puts the previous one back, and
// returns true: then the caller has to start that in its own stead.
//
// The rest is as for other programs, with a Service that answers [service.ErrSelf] when
// it is asked to restart into a file that is not the one that runs: Apply and Recover
// return that error, the process ends, and the next one calls Started and Recover.
func (e *Engine) Started(exe string) (reverted bool, err error) {
	s, err := e.openSelf()
	if s == nil {
		return false, err
	}
	defer s.close()
	j := s.j
	if j.Target != exe || j.State != Staged && j.State != Confirming {
		return false, nil
	}
	if f, err := s.look(); err != nil || f != foundNew {
		return false, err // for Recover
	}
	if j.State == Staged { // the swap was the last thing that was done
		j.State, j.Attempts = Confirming, 1
	}
	if j.Attempts > s.p.MaxAttempts {
		res, err := s.revert(context.Background(), fault.New(fault.Reverted, "it was started %d times, and each time it ended before it was confirmed", s.p.MaxAttempts))
		return res.State == Reverting && errors.Is(err, service.ErrSelf), err
	}
	j.Attempts++
	return false, s.store.save(j)
}

// RevertSelf puts the previous version of the program back that was replacing itself
// when the new one stopped starting at all, for that reason. It returns the program's
// file, empty when no such update is unconfirmed, which is no error. The version put
// back finishes the rest when it recovers.
func (e *Engine) RevertSelf(cause error) (target string, err error) {
	s, err := e.openSelf()
	if s == nil {
		return "", err
	}
	defer s.close()
	ctx := context.Background()
	f, err := s.look()
	if err != nil {
		return "", explain("looking at the target", s.target, err)
	}
	switch s.j.State {
	case Staged:
		if f != foundOld {
			_, err = s.settle(ctx, cause)
		}
	case Confirming:
		if f == foundNew || f == foundNone {
			_, err = s.revert(ctx, cause)
		}
	case Reverting:
		_, err = s.putBack(ctx)
	}
	if errors.Is(err, service.ErrSelf) {
		return s.target, nil
	}
	return "", err
}

// Unconfirmed reports whether the version at t has still to prove itself.
func (e *Engine) Unconfirmed(t Target) (bool, error) {
	t, err := t.defaults()
	if err != nil {
		return false, err
	}
	j, err := e.store(t).load()
	if err != nil {
		return false, explain("looking for an update under way", t.Path, err)
	}
	return j != nil && j.State == Confirming, nil
}

// openSelf opens the transaction in which this machine's agent replaces itself; nil
// when there is none. The configuration may be what is broken, so it is not needed.
func (e *Engine) openSelf() (*session, error) {
	dirs, err := e.o.FS.ReadDir(e.o.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for an update of the agent: %w", err)
	}
	var unread error
	for _, name := range dirs {
		st := store{e.o.FS, filepath.Join(e.o.StateDir, name)}
		j, err := st.load()
		if err != nil {
			unread = errors.Join(unread, err)
		}
		if err != nil || j == nil || !j.Self {
			continue
		}
		p, err := Program{Target: Target{App: j.App, Path: j.Target, Kind: j.Kind, Swap: j.Swap}, Service: nextProcess{}, Self: true}.defaults()
		if err != nil {
			return nil, err
		}
		s, _, err := e.openAt(st, p)
		if err != nil {
			return nil, err
		}
		if s.j == nil { // finished before it was locked
			s.close()
			continue
		}
		if err := s.work(s.j.Target, s.j.Kind, s.j.Swap); err != nil {
			s.close()
			return nil, explain("opening the update of the agent", s.j.Target, err)
		}
		return s, nil
	}
	return nil, unread
}

// nextProcess is the service of a program whose next process runs what was put back.
type nextProcess struct{ service.None }

// Restart leaves it to that process.
func (nextProcess) Restart(context.Context) error { return service.ErrSelf }

// try runs the trial of the staged file.
func (s *session) try(ctx context.Context) error {
	if s.p.Trial == nil {
		return nil
	}
	err := s.p.Trial(ctx, s.j.Staged)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return explain("trying the new version", s.target, ctx.Err())
	}
	s.unfit = true
	return fault.New(fault.HealthFailed, "%s cannot run on this machine: %w", title(s.p.Target.name(), s.j.to()), err).
		Line("nothing was changed; it is not tried here again until another one is offered, the publisher asks for a retry, or:").
		Do("shoal agent update --retry")
}
