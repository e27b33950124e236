package apply

import (
	"context"
	"errors"
	"io/fs"

	"shoal/agent/service"
	"shoal/internal/fault"
)

// install is the transaction, from nothing to its end.
func (s *session) install(ctx context.Context, u Update) (Result, error) {
	from, err := s.sw.current()
	if err != nil {
		return Result{To: u.To}, explain("reading the installed program", s.target, err)
	}
	if from == u.To.SHA256 {
		return Result{State: Confirmed, From: u.To, To: u.To, Unchanged: true}, nil
	}
	if err := s.preflight(from, u.To); err != nil {
		return Result{To: u.To}, err
	}
	if s.j, err = s.plan(ctx, from, u.To); err != nil {
		return Result{To: u.To}, err
	}
	s.j.Back = u.kept != ""
	if err := s.store.save(s.j); err != nil {
		return s.abort(explain("beginning the update", s.target, err))
	}
	s.reach(Staged)
	if err := s.prepare(ctx, u); err != nil {
		return s.abort(err)
	}
	return s.commit(ctx)
}

// commit swaps, and goes on from there.
func (s *session) commit(ctx context.Context) (Result, error) {
	if err := s.begun(); err != nil {
		return s.abort(err)
	}
	s.reach(Committing)
	if err := s.sw.swap(ctx, s.j); err != nil {
		return s.settle(ctx, explain("replacing the program", s.target, err))
	}
	return s.confirm(ctx)
}

// preflight refuses what cannot work before anything is touched.
func (s *session) preflight(from digest, to Release) error {
	t := s.p.Target
	if from.absent() && !t.AllowInstall {
		return fault.New(fault.Policy, "there is no program at %q to update", s.target).
			Line("this machine's configuration allows no first install of %s", t.name()).
			Do("install it, or set allow_install for this app")
	}
	if !t.AllowInsecureDir {
		if err := t.checkWay(s.fs, s.target); err != nil {
			return explain("checking the target's directory", s.target, err)
		}
	}
	if err := s.sw.room(to.Length, 1); err != nil {
		return explain("looking for space", s.target, err)
	}
	return nil
}

// plan decides all names and looks at the program that runs now.
func (s *session) plan(ctx context.Context, from digest, to Release) (*journal, error) {
	t := s.p.Target
	known, err := s.store.catalogue()
	if err != nil {
		return nil, explain("reading the history", s.target, err)
	}
	tx, n := s.newTx(), names{s.target}
	j := &journal{
		Schema: journalSchema, Tx: tx, App: t.name(), Kind: t.Kind, Swap: t.Swap, Target: s.target,
		Staged: n.staged(tx), State: Staged, From: from, To: to.SHA256,
		FromRelease: known.called(from), ToRelease: noteOf(to), Started: s.e.o.Now().UTC(), Self: s.p.Self,
	}
	if !from.absent() {
		kept, err := n.kept(s.fs)
		if err != nil {
			return nil, explain("looking for previous versions", s.target, err)
		}
		last := 0
		if len(kept) > 0 {
			last = kept[0].n
		}
		j.Backup = n.previous(last + 1)
	}
	if j.Service, err = s.p.Service.State(ctx); err != nil {
		return nil, explain("looking at the service", s.target, err)
	}
	// A service that a person stopped stays stopped. One that crashed is what an update
	// may be the cure for, and one without a program could not be started so far.
	j.Restart = j.Service.Running || j.Service.Enabled && (j.Service.Failed || from.absent())
	if !from.absent() {
		err := s.p.Health.Probe(ctx)
		if ctx.Err() != nil {
			return nil, explain("looking at the old version", s.target, ctx.Err())
		}
		if j.BaselineSick = err != nil; j.BaselineSick {
			s.log.Warn("the old version fails its health check already", "error", err)
		}
	}
	return j, nil
}

// prepare does everything up to the swap.
func (s *session) prepare(ctx context.Context, u Update) error {
	j := s.j
	if err := s.sw.stage(ctx, j, u.Source, u.kept); err != nil {
		return explain("staging the new version", s.target, err)
	}
	if err := s.try(ctx); err != nil {
		return err
	}
	h, err := s.store.history()
	if err != nil {
		return explain("reading the history", s.target, err)
	}
	if err := s.runHook(ctx, hookPre, h.abortedInARow(j.To)+1); err != nil {
		if ctx.Err() != nil {
			return explain("running the pre hook", s.target, ctx.Err())
		}
		return explain("preparing the update", s.target, err)
	}
	if err := s.sw.backup(j); err != nil {
		return explain("keeping the old version", s.target, err)
	}
	if err := s.sw.unchanged(j); err != nil {
		return explain("looking at the old version again", s.target, err)
	}
	if err := s.sw.verify(j); err != nil {
		return explain("looking at the staged file again", s.target, err)
	}
	if err := u.Authorize(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return explain("updating", s.target, ctx.Err())
	}
	return nil
}

// abort ends a transaction that changed nothing. Without a cause it was a crash.
func (s *session) abort(cause error) (Result, error) {
	res := s.result(Aborted)
	err := s.sw.clean(s.j, false)
	if err == nil {
		record := cause
		if record == nil {
			record = fault.New(fault.Interrupted, "the agent stopped before the swap")
		}
		err = s.finish(Aborted, record)
	}
	return s.ended(res, cause, err)
}

// leave ends a transaction because the target is somebody else's work by now. It is
// not touched, and the old version stays as a previous one.
func (s *session) leave(keepBackup bool) (Result, error) {
	cause := explain("updating", s.target, errTargetChanged)
	res := s.result(Aborted)
	err := s.sw.clean(s.j, keepBackup)
	if err == nil {
		err = s.finish(Aborted, cause)
	}
	return s.ended(res, cause, err)
}

// ended returns res and cause. That the cleaning up failed as well is worth a line
// only: recovery does it again. It is all there is to tell if there is no cause.
func (s *session) ended(res Result, cause, cleaning error) (Result, error) {
	if cleaning == nil {
		s.p.Progress(res.State)
		s.log.Info("update "+string(res.State), "tx", res.Tx, "error", cause)
		return res, cause
	}
	s.log.Warn("could not clean up after an update", "tx", res.Tx, "error", cleaning)
	if cause == nil {
		cause = explain("cleaning up after an update", s.target, cleaning)
	}
	return res, cause
}

// found is what a look at the target tells of a transaction.
type found int

const (
	foundOld   found = iota // as before; on a first install: nothing
	foundNew                // swapped
	foundNone               // nothing, where there was something
	foundOther              // somebody else's work
)

func (s *session) look() (found, error) {
	d, err := s.sw.current()
	switch {
	case notOurs(err):
		return foundOther, nil
	case err != nil:
		return 0, err
	case d == s.j.From:
		return foundOld, nil
	case d == s.j.To && s.j.State == Staged: // it could be somebody else's copy
		ours, err := s.sw.swapped(s.j)
		if err == nil && !ours {
			return foundOther, nil
		}
		return foundNew, err
	case d == s.j.To:
		return foundNew, nil
	case d.absent():
		return foundNone, nil
	}
	return foundOther, nil
}

// settle goes on from a transaction that is at most staged by its journal: after a
// crash (no cause), or after a swap that returned an error. The target tells.
func (s *session) settle(ctx context.Context, cause error) (Result, error) {
	if s.j.State == Committing {
		return s.settleRun(ctx, cause)
	}
	f, err := s.look()
	if err != nil {
		if cause == nil {
			cause = explain("looking at the target", s.target, err)
		}
		return s.result(Staged), cause
	}
	switch f {
	case foundOld:
		return s.abort(cause)
	case foundNew:
		if cause == nil {
			return s.confirm(ctx)
		}
		// It is there, but maybe not durably.
		return s.revert(ctx, cause)
	case foundNone:
		if _, err := s.fs.Lstat(s.j.Backup); errors.Is(err, fs.ErrNotExist) {
			return s.leave(true) // the swap comes after the backup: this was not ours
		}
		if cause == nil {
			cause = fault.New(fault.Reverted, "the agent stopped in the middle of the swap")
		}
		return s.revert(ctx, cause)
	}
	return s.leave(true)
}

// isNone reports whether there is nothing to restart.
func isNone(s service.Service) bool {
	_, none := s.(service.None)
	return none
}
