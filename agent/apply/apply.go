// Package apply replaces an installed program with a staged one.
//
// At every instant, after any crash or power cut, the old program or the new one is
// installed, whole, with its owner, mode and capabilities; a bad one is put back by
// itself; nothing is lost.
package apply

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"shoal/agent/health"
	"shoal/agent/service"
)

// Target is where a machine has an app installed.
type Target struct {
	App  string // the app's name, for messages and hooks
	Path string // absolute; a symbolic link is resolved, and the file it leads to is replaced
	Kind string // of the artifacts it takes: "binary" (also when empty); others are refused with fault.Policy
	// Keep is how many previous versions stay beside the target once a new one is
	// confirmed; zero means 2, negative none.
	Keep int
	// AllowInstall lets Apply make a target that is not there.
	AllowInstall bool
	// AllowInsecureDir accepts a directory in which other users could replace files.
	AllowInsecureDir bool
	// Swap is how the file is replaced: "rename" (also when empty) or "selfupdate".
	Swap string
}

// Release is one version of a program, as the manifest that brought it says.
type Release struct {
	Version         string
	SHA256          [32]byte // of the program; all zero means no program
	Length          int64
	Epoch, Sequence int64       // of the manifest, for the record only
	Retry           int64       // rollout.retry of the manifest
	Mode            fs.FileMode // of a first install: 0755 or 0555; zero means 0755
}

// Program is an installed program and how to treat it. The same values must be
// given to Recover as were given to Apply: they are configuration, not state.
type Program struct {
	Target  Target
	Service service.Service // nil means service.None
	Health  health.Check    // nil means health.None
	Hooks   Hooks
	// ConfirmWithin bounds restart and health check together; zero means 10 minutes.
	ConfirmWithin time.Duration
	// MaxAttempts is how often a new version may be started and checked when the
	// agent or the machine goes down meanwhile; zero means 3.
	MaxAttempts int
	// RequireHealthy reverts a new version that fails its check even if the old one
	// failed it too. Otherwise such a new version is confirmed if it stays up.
	RequireHealthy bool
	// Progress, if set, is told of every state reached, in the caller's goroutine.
	Progress func(State)
}

// Update is a new version to install.
type Update struct {
	To Release
	// Source holds the program's To.Length bytes. They are hashed again while they are
	// copied, so it should be the descriptor that was verified.
	Source io.ReaderAt
	// Authorize is asked right before the swap, after the last look at the staged
	// file: a block, a hold or a new epoch may have come since the download. An error
	// drops the staged file, changes nothing else and is returned as it is. It must be set.
	Authorize func(context.Context) error
}

// State is how far a transaction is.
type State string

// The states. A transaction ends as Confirmed, Reverted, Aborted or Failed.
const (
	Idle       State = ""
	Staged     State = "staged"     // the new file is being put beside the old
	Committing State = "committing" // about to swap
	Confirming State = "confirming" // swapped; the new version has to prove itself
	Confirmed  State = "confirmed"
	Reverting  State = "reverting" // putting the previous version back
	Reverted   State = "reverted"
	Aborted    State = "aborted" // nothing was changed
	Failed     State = "failed"  // neither version is well: nothing more happens until ClearFailed
)

// Result is what became of a transaction.
type Result struct {
	Tx        string // its name; empty when there was none
	State     State  // where it ended; Confirming when it was interrupted there and Recover will go on
	From, To  Release
	Unchanged bool // To was installed already
}

// Installed is what is at a target now.
type Installed struct {
	Release      // Version, Epoch and Sequence are known only of what this engine installed
	Present bool // whether there is a file at all
}

// Options are what an Engine needs.
type Options struct {
	// StateDir holds journals and histories, one directory a target. It must be set;
	// it is made with mode 0700 when it is not there.
	StateDir string
	// Now is the clock for records; nil means time.Now.
	Now func() time.Time
	// Logger receives progress. If nil, nothing is logged.
	Logger *slog.Logger
	// FS is where it all happens; nil means the real file system.
	FS FS
}

// Engine replaces programs. It is safe for concurrent use.
type Engine struct{ o Options }

// New returns an Engine.
func New(o Options) (*Engine, error) {
	if o.StateDir == "" {
		return nil, errors.New("apply: no state directory")
	}
	return &Engine{o: o}, nil
}

// FS is the file system as Apply needs it.
type FS interface{}

// Apply installs u.To at p's target: stages it beside the old file, swaps, restarts
// and checks, and puts the old one back if the new one is unwell. It recovers first.
//
// The error is nil only if u.To is installed and confirmed; otherwise it is a
// *fault.Error (or what Authorize returned) and Result.State says what is there now.
// When ctx ends before the swap the transaction is aborted; after it, it is left for
// Recover to finish.
func (e *Engine) Apply(ctx context.Context, p Program, u Update) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Recover finishes what a crash interrupted, and is a no-op otherwise: Result.State
// is then Idle. It must run at start, before anything else touches the program; a
// second run does nothing. The error is as Apply's, and nil for Aborted.
func (e *Engine) Recover(ctx context.Context, p Program) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Revert installs a previous version that is kept beside the target, by the same
// transaction as Apply: the one called version, or the latest one when version is
// empty. authorize is asked right before the swap, with the release to be put back.
func (e *Engine) Revert(ctx context.Context, p Program, version string, authorize func(context.Context, Release) error) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Installed looks at what is at the target. The file's hash is the truth; the
// version belonging to it is looked up in the history.
func (e *Engine) Installed(t Target) (Installed, error) {
	return Installed{}, errors.ErrUnsupported
}

// Previous returns the versions kept beside the target, latest first.
func (e *Engine) Previous(t Target) ([]Release, error) { return nil, errors.ErrUnsupported }

// Failed reports whether the artifact with that hash failed here and is not to be
// tried again: until a manifest's rollout.retry is above the one it failed with.
func (e *Engine) Failed(t Target, sha256 [32]byte, retry int64) (bool, error) {
	return false, errors.ErrUnsupported
}

// ClearFailed is an operator's word: artifacts that failed at t may be tried again,
// and a transaction that is Failed has been looked after.
func (e *Engine) ClearFailed(t Target) error { return errors.ErrUnsupported }

// History returns the finished transactions of t, oldest first.
func (e *Engine) History(t Target) ([]Record, error) { return nil, errors.ErrUnsupported }

// Record is one finished transaction.
type Record struct {
	Tx       string
	Ended    time.Time
	State    State
	From, To Release
	Attempts int    // how often the new version was started
	Code     string // of the failure, empty when confirmed
	Why      string // what was seen
	Hooks    []HookResult
}

// Hooks are commands run around a swap: argv lists, no shell. They run with a clean
// environment and SHOAL_* variables, and can run again after a crash: SHOAL_ATTEMPT
// tells, and they must be idempotent.
type Hooks struct {
	Pre      []string      // before the swap; failing it aborts
	Post     []string      // after the new version is confirmed; failing it is only recorded
	OnRevert []string      // after the old version is back; failing it is only recorded
	Timeout  time.Duration // for each; zero means 60 s. Then its whole process group is killed
}

// HookResult is what a hook did.
type HookResult struct {
	Hook   string // "pre", "post" or "on_revert"
	Exit   int    // exit status; -1 when it did not start, was killed or ran out of time
	Error  string // empty when it exited 0
	Output string // standard output and error, the last 64 KiB
}
