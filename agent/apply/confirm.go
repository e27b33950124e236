package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"shoal/agent/health"
	"shoal/agent/service"
	"shoal/internal/fault"
)

// confirm lets the new version, which is at the target, prove itself. It is also how
// recovery goes on after a crash, in this process or in another.
func (s *session) confirm(ctx context.Context) (Result, error) {
	j := s.j
	again := j.State == Confirming
	if j.Attempts >= s.p.MaxAttempts && !j.Self {
		return s.revert(ctx, fault.New(fault.Reverted, "it was started %d times, and each time the agent or the machine stopped before it was confirmed", j.Attempts))
	}
	// The wall clock may be moved meanwhile, by years; the boot's own clock is not. In
	// another boot only the attempts count, and so they do as long as the new version is
	// not known to have been started: it proved nothing in a time it did not run.
	boot, up := s.e.boot()
	sameBoot := again && boot != "" && boot == j.Boot && (j.Restarted || !j.Restart)
	before := *j
	j.State = Confirming
	if !again || !j.Self { // Started counts the starts of this very program
		j.Attempts++
	}
	if !sameBoot {
		j.Boot, j.Since, j.Within, j.Restarted = boot, up, s.p.ConfirmWithin, false
		j.Deadline = s.e.o.Now().UTC().Add(j.Within)
	}
	// Counted, durably, before it is started: it may take the machine down with it.
	if err := s.store.save(j); err != nil {
		*j = before
		err = explain("recording the swap", s.target, err)
		if again {
			return s.result(Confirming), err
		}
		return s.revert(ctx, err)
	}
	s.reach(Confirming)

	left := j.Within - (up - j.Since)
	late := left <= 0
	if late { // the agent was away: look once how the new version did, start nothing
		left = j.Within
	}
	within, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	var err error
	if !late {
		err = s.start(within)
	}
	if err == nil {
		err = s.check(within)
	}
	if errors.Is(err, service.ErrSelf) {
		return s.result(Confirming), err
	}
	if ctx.Err() != nil {
		return s.result(Confirming), explain("confirming the new version", s.target, ctx.Err())
	}
	if err != nil {
		if within.Err() != nil {
			err = fmt.Errorf("it was not confirmed within %v: %w", j.Within, err)
		}
		return s.revert(ctx, fault.New(fault.HealthFailed, "%w", err))
	}
	return s.confirmed(ctx)
}

// start has the service run the new version, unless it does already.
func (s *session) start(ctx context.Context) error {
	j := s.j
	if !j.Restart {
		return nil
	}
	if j.Restarted {
		st, err := s.p.Service.State(ctx)
		if err == nil && st.Running && !st.Failed && st.PID == j.PID {
			return nil
		}
	}
	if err := s.p.Service.Restart(ctx); err != nil {
		return err
	}
	j.Restarted, j.PID = true, 0
	if st, err := s.p.Service.State(ctx); err == nil {
		j.PID = st.PID
	}
	if err := s.store.save(j); err != nil { // then recovery restarts it once more
		s.log.Warn("could not record the restart", "error", err)
	}
	return nil
}

// check decides whether the new version is well.
func (s *session) check(ctx context.Context) error {
	j := s.j
	if !j.Restart && !isNone(s.p.Service) && (j.BaselineSick || j.From.absent()) {
		j.Why = "not checked: its service was stopped, and stays so"
		return nil
	}
	err := s.p.Health.Check(ctx)
	if err == nil || ctx.Err() != nil || !j.BaselineSick || s.p.RequireHealthy {
		return err
	}
	// The check says as little about this version as about the one before.
	j.Why = "inconclusive: the version before failed the check too: " + err.Error()
	stays, serr := health.StayUp(s.p.Service, s.e.stayUp, health.Policy{})
	if serr != nil { // no service, so there is nothing that could stay up
		return nil
	}
	if serr := stays.Check(ctx); serr != nil {
		return errors.Join(err, serr)
	}
	return nil
}

// confirmed ends a transaction whose new version is well.
func (s *session) confirmed(ctx context.Context) (Result, error) {
	j := s.j
	if j.State != Confirmed || len(s.p.Hooks.Post) > 0 {
		before := *j
		if j.State != Confirmed {
			j.State, j.HookRuns = Confirmed, 0
		}
		j.HookRuns++
		if err := s.store.save(j); err != nil {
			*j = before
			return s.result(j.State), explain("recording that the new version is well", s.target, err)
		}
	}
	s.reach(Confirmed)
	res := s.result(Confirmed)
	_ = s.runHook(ctx, hookPost, j.HookRuns) // recorded; the update is done
	if len(s.p.Hooks.Post) > 0 && ctx.Err() != nil {
		return res, nil // it was not let finish: recovery runs it again
	}
	err := s.sw.clean(j, true)
	if err == nil {
		err = s.sw.prune(s.p.Target.Keep)
	}
	if err == nil {
		err = s.finish(Confirmed, nil)
	}
	if err != nil { // recovery does it again
		s.log.Warn("could not clean up after an update", "tx", res.Tx, "error", err)
	}
	return res, nil
}

// revert puts the old version back, for that reason.
func (s *session) revert(ctx context.Context, cause error) (Result, error) {
	j := s.j
	s.log.Warn("reverting", "tx", j.Tx, "version", j.ToRelease.Version, "error", cause)
	s.p.Progress(Reverting)
	j.State, j.HookRuns = Reverting, 0
	j.Code, j.Why = string(fault.CodeOf(cause)), why(cause)
	s.cause = cause
	if err := s.store.save(j); err != nil {
		// The disk with the state is full or broken. The program is on another one, maybe,
		// and should not stay bad for that: one rename puts it right, and recovery sees by
		// the target's hash that it was done.
		s.log.Error("could not record the revert; reverting all the same", "error", err)
	}
	return s.putBack(ctx)
}

// putBack restores the old version and sees that it is well. All of it can be done
// again after a crash.
func (s *session) putBack(ctx context.Context) (Result, error) {
	j := s.j
	if err := s.mayUndo(); err != nil {
		return s.fail("nothing was put back", err)
	}
	// The end of ctx must not leave a bad version in place.
	must, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.p.ConfirmWithin)
	defer cancel()
	first := j.From.absent()
	if first && j.Restart && j.Attempts > 0 {
		if err := s.p.Service.Stop(must); err != nil {
			s.log.Warn("could not stop what is being removed", "error", err)
		}
	}
	if err := s.sw.restore(must, j); err != nil {
		return s.fail("the old version could not be put back", err)
	}
	if !first {
		err := s.restartOld(must)
		if errors.Is(err, service.ErrSelf) {
			return s.result(Reverting), err
		}
		if err != nil {
			return s.fail("the old version is back, but it could not be restarted", err)
		}
		// If the new version was never started, the old one was never stopped. And if it is
		// this program, it is the old one that has come as far as here.
		if j.Attempts > 0 && !j.BaselineSick && !j.Self {
			err := s.p.Health.Check(ctx)
			if ctx.Err() != nil {
				return s.result(Reverting), explain("looking at the old version again", s.target, ctx.Err())
			}
			if err != nil {
				return s.fail("the old version is back, but it is unwell too", err)
			}
		}
	}
	j.State = Reverted
	if err := s.store.save(j); err != nil {
		s.log.Warn("could not record that the old version is back", "error", err)
	}
	return s.reverted(ctx)
}

// restartOld has the service run the old version, unless it never did anything else.
func (s *session) restartOld(ctx context.Context) error {
	if !s.j.Restart {
		return nil
	}
	if s.j.Attempts == 0 {
		st, err := s.p.Service.State(ctx)
		if err == nil && st.Running && !st.Failed {
			return nil
		}
	}
	return s.p.Service.Restart(ctx)
}

// reverted ends a transaction whose old version is back.
func (s *session) reverted(ctx context.Context) (Result, error) {
	j := s.j
	s.reach(Reverted)
	j.HookRuns++
	if len(s.p.Hooks.OnRevert) > 0 {
		if err := s.store.save(j); err != nil {
			s.log.Warn("could not record the on_revert hook", "error", err)
		}
		_ = s.runHook(ctx, hookOnRevert, j.HookRuns) // recorded
	}
	res, outcome := s.result(Reverted), s.outcome()
	if len(s.p.Hooks.OnRevert) > 0 && ctx.Err() != nil {
		return res, outcome // it was not let finish: recovery runs it again
	}
	err := s.sw.clean(j, false)
	if err == nil {
		err = s.finish(Reverted, nil)
	}
	if err != nil { // recovery does it again
		s.log.Warn("could not clean up after an update", "tx", res.Tx, "error", err)
	}
	return res, outcome
}

// fail ends in the one state that only a person ends.
func (s *session) fail(what string, err error) (Result, error) {
	j := s.j
	j.State = Failed
	j.Why = strings.Join([]string{j.Why, what + ": " + why(err)}, "\n")
	j.Code = string(fault.ApplyFailed)
	if err := s.store.save(j); err != nil {
		s.log.Error("could not record a failed update", "error", err)
	}
	if err := s.remember(Failed, nil); err != nil {
		s.log.Error("could not write the history", "error", err)
	}
	s.p.Progress(Failed)
	s.log.Error("update failed and needs a person", "tx", j.Tx, "version", j.ToRelease.Version, "error", j.Why)
	return s.result(Failed), needsOperator(j)
}

// outcome tells why the old version is back.
func (s *session) outcome() error {
	j := s.j
	to, from := title(j.App, j.to()), cmp.Or(j.FromRelease.Version, title(j.App, j.from()))
	code := fault.Code(j.Code)
	var e *fault.Error
	switch {
	case code != fault.HealthFailed && j.From.absent():
		e = fault.New(code, "%s could not be installed, and was removed again", to)
	case code != fault.HealthFailed:
		e = fault.New(code, "%s could not be installed, so this machine is back on %s", to, from)
	case j.From.absent():
		e = fault.New(code, "%s was unwell, so it was removed again", to)
	default:
		e = fault.New(code, "%s was unwell, so this machine is back on %s", to, from)
	}
	for l := range strings.Lines(j.Why) {
		e.Line("%s", strings.TrimSpace(l))
	}
	if j.blames() {
		e.Line("this artifact is not tried here again until another one is offered, the publisher asks for a retry, or:").
			Do("shoal agent update --retry")
	}
	e.Err = s.cause
	return e
}
