package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/minio/selfupdate"

	"shoal/internal/fault"
)

// CommitBinary is the one call of minio/selfupdate that is used. Its OldSavePath and
// TargetPath are always set: without the first it deletes the file it has just
// moved away, without the second it updates whatever /proc/self/exe is by now. Its
// own staging, checksum, signature and patch code is never used: it syncs nothing,
// ignores the error of Close, follows a planted link, and loses owner and mode.
func (osFS) CommitBinary(target, old string) error {
	err := selfupdate.CommitBinary(selfupdate.Options{TargetPath: target, OldSavePath: old})
	if rerr := selfupdate.RollbackError(err); rerr != nil {
		return fmt.Errorf("%w (and moving the old program back: %w)", err, rerr)
	}
	return err
}

// selfupdater swaps by minio/selfupdate's two renames, which is the only way where a
// running program cannot be replaced. Between them there is no target: that is why
// the backup exists before and why recovery runs before anything else.
type selfupdater struct {
	binary
	patient
}

func (s *selfupdater) swap(ctx context.Context, j *journal) error {
	if j.From.absent() {
		return s.renameOver(j) // CommitBinary wants something to move away
	}
	if now, err := s.fs.Lstat(s.target); err != nil || !now.Mode.IsRegular() {
		// It would delete its only other copy of the old program first.
		return fmt.Errorf("%w (%v)", errTargetChanged, err)
	}
	if err := s.stillSame(j); err != nil {
		return err
	}
	if err := s.offer(j); err != nil {
		return err
	}
	// While the target is there nothing has happened yet, or it was undone; if it is not,
	// recovery has to put it back, and CommitBinary would first remove what is left of it.
	err := s.try(ctx, s.target, func() error { return s.fs.CommitBinary(s.target, s.old(j.Tx)) }, func() bool {
		now, err := s.id(s.target)
		return err == nil && now == s.oldID
	})
	if err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir())
}

// restore moves a program out of the way that cannot be replaced while it runs.
func (s *selfupdater) restore(ctx context.Context, j *journal) error {
	err := s.binary.restore(ctx, j)
	if !s.inUse(err) {
		return err
	}
	err = s.try(ctx, s.target, func() error { return s.fs.Rename(s.target, s.bad(j.Tx)) }, func() bool { return true })
	if err != nil {
		return err
	}
	return s.binary.restore(ctx, j)
}

// offer gives the staged file the name that CommitBinary looks for, and never takes
// that name from another file.
func (s *selfupdater) offer(j *journal) error {
	err := s.fs.Link(j.Staged, s.selfupdate())
	if cannotLink(err) {
		if _, serr := s.fs.Lstat(s.selfupdate()); errors.Is(serr, fs.ErrNotExist) {
			return s.fs.Rename(j.Staged, s.selfupdate())
		}
		err = fs.ErrExist
	}
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.ApplyFailed, "%q is in the way of the update", s.selfupdate()).
			Do("look what it is, and remove it")
	}
	return err
}

func (s *selfupdater) swapped(j *journal) (bool, error) {
	offered, err := s.offered(j)
	if err != nil || offered {
		return false, err // it would have been moved away
	}
	return s.binary.swapped(j)
}

// offered reports whether the new file waits under CommitBinary's name.
func (s *selfupdater) offered(j *journal) (bool, error) {
	d, _, err := s.at(s.selfupdate())
	if errors.Is(err, errNotRegular) {
		return false, nil
	}
	return d == j.To, err
}

func (s *selfupdater) clean(j *journal, keepBackup bool) error {
	offered, err := s.offered(j)
	if err == nil && offered {
		err = s.remove(s.selfupdate())
	}
	for _, path := range []string{s.old(j.Tx), s.bad(j.Tx)} {
		if err == nil {
			err = s.removeUnused(path)
		}
	}
	if err != nil {
		return err
	}
	return s.binary.clean(j, keepBackup)
}

// removeUnused leaves a program that still runs, for a later sweep.
func (s *selfupdater) removeUnused(path string) error {
	err := s.remove(path)
	if s.inUse(err) {
		return nil
	}
	return err
}

func (s *selfupdater) sweep(leftovers []string) error {
	for _, path := range leftovers {
		if err := s.removeUnused(path); err != nil {
			return err
		}
	}
	return nil
}
