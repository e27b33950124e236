// Package apply replaces an installed program with a staged one.
//
// At every instant, after any crash or power cut, the old program or the new one is
// installed, whole, with its owner, mode and capabilities; a bad one is put back by
// itself; nothing is lost.
//
// It rests on this order of steps, each durable before the next:
//
//	staged      journal names both hashes; the new file is copied beside the target,
//	            hashed, given the old one's metadata, synced; the pre hook runs; the
//	            old file gets a second name
//	committing  the staged file is hashed again, Authorize asked, and then one rename
//	            puts it over the target
//	confirming  an attempt is counted; the service restarts; the health check runs
//	confirmed   the post hook runs; all but Target.Keep previous versions go
//	reverting   else: the second name is renamed over the target, the service
//	            restarts, and the old version is checked too
//	reverted    the artifact is marked as failed; the on_revert hook runs
//	failed      or, if the old one is unwell as well, nothing more happens until a
//	            person has looked
//
// What a crash interrupts, [Engine.Recover] finishes: it compares the hash of the
// target, which is the truth, with the two in the journal.
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
	"shoal/internal/fault"
)

const (
	defaultWithin   = 10 * time.Minute
	defaultAttempts = 3
)

// Release is one version of a program, as the manifest that brought it says.
type Release struct {
	Version         string
	SHA256          [32]byte // of the program; all zero means no program
	Length          int64
	Epoch, Sequence int64       // of the manifest, for the record only
	Retry           int64       // rollout.retry of the manifest
	Mode            fs.FileMode // of a first install: 0755 or 0555; zero means 0755
}

// Program is an installed program and how to treat it. It is configuration: Recover
// uses what it says then, not what it said when the transaction began.
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
	// Self says that the program is the one this process runs; see [Engine.Started].
	Self bool
	// Trial, if set, tries the staged file, ready to run at path, before anything is
	// swapped. An error means that it is unfit: nothing is changed, and the artifact
	// counts as failed.
	Trial func(ctx context.Context, path string) error
	// Progress, if set, is told of every state reached, in the caller's goroutine.
	Progress func(State)
}

func (p Program) defaults() (Program, error) {
	var err error
	if p.Target, err = p.Target.defaults(); err != nil {
		return p, err
	}
	if p.Service == nil {
		p.Service = service.None{}
	}
	if p.Health == nil {
		p.Health = health.None{}
	}
	if p.ConfirmWithin < 0 || p.MaxAttempts < 0 || p.Hooks.Timeout < 0 {
		return p, fault.New(fault.Config, "times and counts of %s cannot be negative", p.Target.name())
	}
	if p.ConfirmWithin == 0 {
		p.ConfirmWithin = defaultWithin
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultAttempts
	}
	if p.Progress == nil {
		p.Progress = func(State) {}
	}
	return p, nil
}

// Update is a new version to install.
type Update struct {
	To Release
	// Source holds the artifact's To.Length bytes. They are hashed again while they are
	// copied, so it should be the descriptor that was verified.
	Source io.ReaderAt
	// Authorize is asked right before the swap, after the last look at the staged
	// file: a block, a hold or a new epoch may have come since the download. An error
	// drops the staged file, changes nothing else and is returned as it is. It must be set.
	Authorize func(context.Context) error

	kept string // a previous version's path, instead of Source
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
	State     State  // where it ended, or was interrupted: then Recover goes on
	From, To  Release
	Unchanged bool // To was installed already
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
type Engine struct {
	o      Options
	boot   func() (id string, up time.Duration)
	stayUp time.Duration // for a new version whose health check is inconclusive
	hashes *hashes       // of files that were looked at
}

// New returns an Engine.
func New(o Options) (*Engine, error) {
	if o.StateDir == "" {
		return nil, errors.New("making an apply engine: no state directory")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = osFS{}
	}
	return &Engine{o: o, boot: bootClock, stayUp: 10 * time.Second, hashes: new(hashes)}, nil
}

// Apply installs u.To at p's target: stages it beside the old file, swaps, restarts
// and checks, and puts the old one back if the new one is unwell. It recovers first.
//
// The error is nil only if u.To is installed and confirmed; otherwise it is a
// *fault.Error (or what Authorize returned) and Result.State says what is there now.
// When ctx ends before the swap the transaction is aborted; after it, it is left for
// Recover to finish.
func (e *Engine) Apply(ctx context.Context, p Program, u Update) (Result, error) {
	s, res, err := e.begin(ctx, p)
	if err != nil {
		return res, err
	}
	defer s.close()
	if u.Source == nil || u.Authorize == nil {
		return res, errors.New("applying an update: Source and Authorize must be set")
	}
	if u.To, err = checkRelease(s.p.Target.Kind, u.To); err != nil {
		return res, err
	}
	failed, err := s.store.failed(u.To.SHA256, u.To.Retry)
	if err != nil {
		return res, explain("reading the history", s.target, err)
	}
	if failed {
		return res, fault.New(fault.HealthFailed, "%s failed on this machine before", title(s.p.Target.name(), u.To)).
			Line("it is not tried again until another artifact is offered or the publisher asks for a retry").
			Do("shoal agent update --retry")
	}
	return s.install(ctx, u)
}

// Revert installs a previous version that is kept beside the target, by the same
// transaction as Apply: the one called version, or the latest one when version is
// empty. authorize is asked right before the swap, with the release to be put back.
func (e *Engine) Revert(ctx context.Context, p Program, version string, authorize func(context.Context, Release) error) (Result, error) {
	s, res, err := e.begin(ctx, p)
	if err != nil {
		return res, err
	}
	defer s.close()
	if in := s.sw.opaque(); in != nil && len(in.Revert) == 0 {
		return res, fault.New(fault.Policy, "%s has no command that puts a previous package back", s.p.Target.name()).
			Do("give one in installer.revert, or publish the version that is wanted")
	}
	kept, err := s.previous()
	if err != nil {
		return res, explain("looking for previous versions", s.target, err)
	}
	for _, k := range kept {
		if version != "" && k.release.Version != version {
			continue
		}
		return s.install(ctx, Update{To: k.release, kept: k.path, Authorize: func(ctx context.Context) error {
			return authorize(ctx, k.release)
		}})
	}
	missing := fault.New(fault.NotFound, "there is no previous version %q of %s beside %q", version, s.p.Target.name(), s.target)
	if version == "" {
		missing = fault.New(fault.NotFound, "there is no previous version of %s beside %q", s.p.Target.name(), s.target)
	}
	for _, k := range kept {
		missing.Line("kept is %s", title(s.p.Target.name(), k.release))
	}
	return res, missing
}

// Recover finishes what a crash interrupted, and is a no-op otherwise: Result.State
// is then Idle. It must run at start, before anything else touches the program; a
// second run does nothing. The error is as Apply's, and nil where nothing was lost but
// the attempt: a crash before the swap.
func (e *Engine) Recover(ctx context.Context, p Program) (Result, error) {
	p, err := p.defaults()
	if err != nil {
		return Result{}, err
	}
	s, res, err := e.open(p)
	if err != nil {
		return res, err
	}
	defer s.close()
	return s.recover(ctx)
}

// ClearFailed is an operator's word: artifacts that failed at t may be tried again,
// and a transaction that is Failed has been looked after.
func (e *Engine) ClearFailed(t Target) error {
	p, err := Program{Target: t}.defaults()
	if err != nil {
		return err
	}
	s, _, err := e.open(p)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.clearFailed(); err != nil {
		return explain("clearing what failed", p.Target.Path, err)
	}
	return nil
}
