package apply

import (
	"context"
	"errors"
	"io/fs"

	"shoal/internal/fault"
)

// recover goes on from the journal and the target as they are found.
func (s *session) recover(ctx context.Context) (Result, error) {
	if s.j == nil {
		return Result{}, s.sweep()
	}
	if s.j.State == Failed {
		return s.result(Failed), needsOperator(s.j)
	}
	if err := s.work(s.j.Target, s.j.Kind, s.j.Swap); err != nil {
		return s.result(s.j.State), explain("finishing an interrupted update", s.j.Target, err)
	}
	s.log.Info("finishing an interrupted update", "tx", s.j.Tx, "state", s.j.State)
	switch s.j.State {
	case Confirming:
		return s.reconfirm(ctx)
	case Reverting:
		return s.putBack(ctx)
	case Confirmed:
		return s.confirmed(ctx)
	case Reverted:
		return s.reverted(ctx)
	}
	return s.settle(ctx, nil)
}

// reconfirm goes on with a new version that was being confirmed.
func (s *session) reconfirm(ctx context.Context) (Result, error) {
	f, err := s.look()
	if err != nil {
		return s.result(Confirming), explain("looking at the target", s.target, err)
	}
	switch f {
	case foundNew:
		return s.confirm(ctx)
	case foundNone:
		return s.revert(ctx, fault.New(fault.Reverted, "the program was removed while it was being confirmed"))
	case foundOld:
		return s.leave(false) // somebody reverted it, and there is nothing to add
	}
	return s.leave(true)
}

// sweep removes what can be left only by a transaction whose journal is gone. There
// should be none.
func (s *session) sweep() error {
	target, err := s.p.Target.locate(s.fs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explain("resolving the target", s.p.Target.Path, err)
	}
	sw, err := newSwapper(s.fs, s.p.Target.Kind, s.p.Target.Swap, target)
	if err != nil {
		return err
	}
	litter, err := sw.leftovers()
	if err != nil {
		return explain("looking for leftovers", target, err)
	}
	if len(litter) == 0 {
		return nil
	}
	// Under the target's lock it cannot be another agent's transaction.
	if err = s.work(target, s.p.Target.Kind, s.p.Target.Swap); err == nil {
		s.log.Warn("removing leftovers", "files", litter)
		err = s.sw.sweep(litter)
	}
	if err != nil {
		return explain("removing leftovers", target, err)
	}
	return nil
}
