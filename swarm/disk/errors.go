package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// ErrContent says that a file is not the content its info dict describes.
var ErrContent = errors.New("file is not the content of this torrent")

// SpaceError says that a download does not fit where it should go. What had been
// downloaded is still there, and a later fetch to the same path goes on from it.
type SpaceError struct {
	Dir  string // the directory that is full
	Need int64  // bytes still to be allocated there
	Have int64  // bytes that are free for this user
	Err  error  // the operating system's error, if a write found out; may be nil
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("no room in %q: %d more bytes are needed, %d are free", e.Dir, e.Need, e.Have)
}
func (e *SpaceError) Unwrap() error { return e.Err }

// WriteError says what it means that a write to the store failed with err: a [*SpaceError]
// if there was no room.
func (s *Store) WriteError(err error) error {
	if isFull(err) {
		dir := filepath.Dir(s.path)
		free, _ := freeSpace(dir)
		return &SpaceError{Dir: dir, Need: s.layout.Length - s.Verified(), Have: free, Err: err}
	}
	return fmt.Errorf("writing %q: %w", s.path, err)
}

// isFull reports whether a file operation failed for want of space, quotas included.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota)
}
