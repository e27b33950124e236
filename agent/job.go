package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"strconv"
	"sync"
	"time"

	"shoal/agent/apply"
	"shoal/agent/service"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Progress is a moment of an update.
type Progress struct {
	App     string            `json:"app"`
	Channel string            `json:"channel"`
	Version string            `json:"version"`
	State   manifest.AppState `json:"state"`
	Done    int64             `json:"done"`
	Total   int64             `json:"total"`
	Rate    int64             `json:"rate"` // bytes per second
	Peers   int               `json:"peers"`
	Bytes   Bytes             `json:"bytes"`
}

// job is one update of one app, or one recovery, or one revert. It runs apart from the
// owner.
type job struct {
	app      *app
	recovery bool
	revert   *revert // nil unless it is one
	choice   Choice
	decision decision // what an update is to install

	cancel context.CancelFunc
	done   chan struct{} // closed when the owner has taken the result
	err    error         // how it ended; read after done

	mu    sync.Mutex // guards what follows
	last  Progress
	spent *stopwatch // of an update
	subs  []func(Progress)
}

// tell passes progress on to whoever watches.
func (j *job) tell(change func(*Progress)) Progress {
	j.mu.Lock()
	change(&j.last)
	j.spent.enter(j.last.State)
	p, subs := j.last, j.subs
	j.mu.Unlock()
	for _, sub := range subs {
		sub(p)
	}
	return p
}

// watch has f called with every progress from now on.
func (j *job) watch(f func(Progress)) {
	if f == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.subs = append(j.subs[:len(j.subs):len(j.subs)], f)
}

// phases is how long an update has been in which state.
func (j *job) phases() []Phase {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spent.phases()
}

// state is how far the job is.
func (j *job) state() manifest.AppState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last.State
}

// wait waits for the job's end.
func (j *job) wait(ctx context.Context) error {
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs j in the background. Only the owner calls it.
func (a *Agent) start(app *app, j *job) {
	ctx, cancel := context.WithCancel(a.ctx)
	j.cancel, j.done = cancel, make(chan struct{})
	if a.closing {
		cancel()
		j.err = errClosed
		close(j.done)
		return
	}
	app.job = j
	a.jobs.Go(func() {
		defer cancel()
		var r apply.Result
		var err error
		switch {
		case j.recovery:
			r, err = a.engine.Recover(ctx, j.program(a))
			a.keepGuard(app, r, err)
		case j.revert != nil:
			r, err = a.putBack(ctx, j)
		default:
			r, err = a.update(ctx, j)
		}
		err = coded(err, "updating "+strconv.Quote(app.cfg.Name))
		if derr := a.do(context.Background(), func() { a.finish(j, r, err) }); derr != nil {
			j.err = errors.Join(err, derr)
			close(j.done)
		}
	})
}

// coded gives an error that has no code the one that fits, so that nobody has to guess.
func coded(err error, doing string) error {
	var e *fault.Error
	switch {
	case err == nil, errors.As(err, &e), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Permission, "%s: %w", doing, err)
	}
	return fault.New(fault.IO, "%s: %w", doing, err)
}

// program is the app's program, with the job listening to how far it is.
func (j *job) program(a *Agent) apply.Program {
	p := j.app.program
	p.Progress = func(s apply.State) {
		if shown, ok := shownAs[s]; ok {
			a.told(j, func(p *Progress) { p.State = shown })
		}
	}
	return p
}

var shownAs = map[apply.State]manifest.AppState{
	apply.Staged:     manifest.StateStaged,
	apply.Committing: manifest.StateCommitting,
	apply.Confirming: manifest.StateConfirming,
	apply.Confirmed:  manifest.StateHealthy,
	apply.Reverting:  manifest.StateReverted,
	apply.Reverted:   manifest.StateReverted,
	apply.Failed:     manifest.StateFailed,
}

// told passes progress on and, when the owner has time for it, into the status.
func (a *Agent) told(j *job, change func(*Progress)) {
	p := j.tell(change)
	select {
	case a.events <- func() { a.progressed(j, p); a.publish() }:
	default:
	}
}

func (a *Agent) progressed(j *job, p Progress) {
	if j.app.job != j || j.recovery {
		return
	}
	doing := "putting the previous version back"
	if j.revert == nil {
		u := j.app.status.Update
		u.Done, u.Bytes, u.Seconds = p.Done, p.Bytes, a.cfg.Clock().Sub(u.Began).Seconds()
		u.Phases = j.phases()
		doing = "installing " + p.Version
	}
	switch p.State {
	case manifest.StateStaged, manifest.StateCommitting, manifest.StateConfirming:
		a.setState(j.app, p.State, fault.New(fault.OK, "%s", doing))
	}
	// How it ends is told by finish, which knows why.
}

// begin starts the update that d decided on. Only the owner calls it.
func (a *Agent) begin(app *app, d decision, c Choice) *job {
	version := d.held.Manifest.Release.Version
	j := &job{app: app, choice: c, decision: d, spent: newStopwatch(a.cfg.Clock), last: Progress{
		App: app.cfg.Name, Channel: app.cfg.Channel, Version: version,
		State: manifest.StateDownloading, Total: d.payload.Length,
	}}
	app.status.Update = &UpdateStatus{Version: version, Length: d.artifact.Length, Began: a.cfg.Clock().UTC()}
	a.setState(app, manifest.StateDownloading, fault.New(fault.OK, "downloading %s", version))
	a.start(app, j)
	return j
}

// update fetches, verifies and installs.
func (a *Agent) update(ctx context.Context, j *job) (apply.Result, error) {
	d := j.decision
	if err := a.endAhead(ctx, j.app); err != nil {
		return apply.Result{}, err
	}
	if err := a.preflight(ctx, j); err != nil {
		return apply.Result{}, err
	}
	f, err := a.acquire(ctx, j)
	if err != nil {
		return apply.Result{}, err
	}
	defer f.Close()
	if j.choice.Retry {
		if err := a.engine.ClearFailed(j.app.program.Target); err != nil {
			return apply.Result{}, err
		}
	}
	return a.engine.Apply(ctx, j.program(a), apply.Update{
		To: d.release(), Source: f,
		Authorize: func(ctx context.Context) error {
			return a.authorize(ctx, j.app, d.artifact.SHA256, j.choice)
		},
	})
}

// release is what d decided to install.
func (d *decision) release() apply.Release {
	m := d.held.Manifest
	r := apply.Release{
		Version: m.Release.Version, SHA256: d.artifact.SHA256, Length: d.artifact.Length,
		Epoch: m.Epoch, Sequence: m.Sequence, Mode: fileMode(d.artifact.Mode),
	}
	if m.Rollout != nil {
		r.Retry = m.Rollout.Retry
	}
	return r
}

// fileMode reads the mode of a manifest, which has checked it.
func fileMode(s string) fs.FileMode {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0
	}
	return fs.FileMode(n).Perm()
}

// finish takes a job's result. It runs in the owner.
func (a *Agent) finish(j *job, r apply.Result, err error) {
	defer close(j.done)
	app := j.app
	if errors.Is(err, service.ErrSelf) {
		a.goOnInNext(app, r)
		return
	}
	app.job, j.err = nil, err
	if j.recovery {
		if r.State != apply.Idle || err != nil {
			a.log.Info("recovered", "app", app.cfg.Name, "state", r.State, "err", err)
		}
		if r.State == apply.Confirmed {
			a.installed(app, r)
		}
		a.goOn(app)
		if shown, ok := shownAs[r.State]; ok && err != nil {
			a.setState(app, shown, err)
			a.noteFailure(app)
		}
		return
	}
	if j.revert != nil {
		a.finishRevert(j, r, err)
		return
	}
	u := app.status.Update
	j.tell(func(p *Progress) { u.Done, u.Bytes = p.Done, p.Bytes })
	u.Seconds, u.Phases = a.cfg.Clock().Sub(u.Began).Seconds(), j.phases()
	app.retries++
	app.trouble = nil
	if err == nil {
		app.retries = 0
		a.installed(app, r)
		a.log.Info("release confirmed", "app", app.cfg.Name, "version", u.Version, "seconds", u.Seconds)
		j.tell(func(p *Progress) { p.State = manifest.StateHealthy })
		a.goOn(app)
		return
	}
	if !errors.Is(err, context.Canceled) {
		a.log.Warn("update failed", "app", app.cfg.Name, "version", u.Version, "code", fault.CodeOf(err), "err", err)
		a.note(manifest.Event{Code: fault.CodeOf(err), Doc: app.channel.String() + " " + u.Version, Detail: err.Error()})
	}
	a.setState(app, stateAfter(r, err), err)
	a.noteFailure(app)
	app.trouble = &trouble{j.decision.artifact.SHA256, app.status.State, err}
	j.tell(func(p *Progress) { p.State = app.status.State })
	select {
	case a.replan <- struct{}{}:
	default:
	}
}

// noteFailure remembers when an update failed: the publisher tells one failure from
// another by it.
func (a *Agent) noteFailure(app *app) {
	switch app.status.State {
	case manifest.StateFailed, manifest.StateReverted:
		app.status.FailedAt = a.cfg.Clock().UTC().Truncate(time.Second)
	}
}

// goOn decides about an app that is free again, and begins what a check found meanwhile.
func (a *Agent) goOn(app *app) {
	d := a.settle(app, Choice{})
	if d.install && app.job == nil && a.serving.Load() && app.asked && answered(app.checked) {
		a.begin(app, d, Choice{})
	}
}

// stateAfter is how an app stands after an update that did not end well. What may work
// later leaves it waiting.
func stateAfter(r apply.Result, err error) manifest.AppState {
	switch r.State {
	case apply.Reverted, apply.Failed, apply.Confirming:
		return shownAs[r.State]
	}
	switch fault.CodeOf(err) {
	case fault.Held:
		return manifest.StateHeld
	case fault.Blocked, fault.Policy, fault.Quota:
		return manifest.StateBlocked
	case fault.ApplyFailed, fault.HealthFailed:
		if r.State != apply.Idle { // else nothing was begun
			return manifest.StateFailed
		}
	}
	return manifest.StateWaiting
}

// installed remembers what was confirmed. The hold of a revert goes on.
func (a *Agent) installed(app *app, r apply.Result) {
	l := a.follow.Local()
	l.Installed = maps.Clone(l.Installed)
	if l.Installed == nil {
		l.Installed = map[string]state.Installed{}
	}
	l.Installed[app.cfg.Name] = state.Installed{
		SHA256: r.To.SHA256, Epoch: r.To.Epoch, Sequence: r.To.Sequence,
		PreviousSHA256: r.From.SHA256, At: a.cfg.Clock().UTC().Truncate(time.Second),
		RevertedFrom: l.Installed[app.cfg.Name].RevertedFrom,
	}
	if err := a.follow.SetLocal(l); err != nil {
		// The hash of the file is the truth; this is only the note of it.
		a.log.Warn("remembering what was installed", "err", err)
	}
}
