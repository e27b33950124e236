package swarm

import (
	"errors"
	"fmt"

	"shoal/swarm/disk"
)

var (
	// ErrBadInfo says that bytes are not the info dict a Ref names, or that the dict has
	// a shape that is not allowed here.
	ErrBadInfo = errors.New("info dict is not as signed or not of an allowed shape")

	// ErrContent says that a file is not the content its info dict describes.
	ErrContent = disk.ErrContent

	// ErrBusy says that the node is fetching this torrent, or serves it already.
	ErrBusy = errors.New("torrent is already in use by this node")

	// errBanned says that a peer is kept out for a while.
	errBanned = errors.New("banned for a while, for what it sent")

	// ErrClosed says that the node was closed, or the torrent dropped, before the call
	// could finish.
	ErrClosed = errors.New("swarm node is closed or the torrent was dropped")
)

// PortError says that the node cannot listen where it was told to.
type PortError struct {
	Addr string // as configured
	Err  error  // for example syscall.EADDRINUSE
}

func (e *PortError) Error() string { return fmt.Sprintf("listening on %q: %v", e.Addr, e.Err) }
func (e *PortError) Unwrap() error { return e.Err }

// SpaceError says that a download does not fit where it should go. What had been
// downloaded is still there, and a later fetch to the same path goes on from it.
type SpaceError = disk.SpaceError

// DeadlineError says which of the deadlines of [FetchOptions] ended a fetch. What had
// been downloaded is kept.
type DeadlineError struct {
	Which       string // "idle", "total" or "rate"
	Done, Total int64  // bytes verified, of how many
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("fetching: the %s deadline passed with %d of %d bytes done", e.Which, e.Done, e.Total)
}
