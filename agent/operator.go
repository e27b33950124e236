package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"shoal/agent/apply"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Wish is what this machine's operator wants of its apps from now on. A zero member
// leaves things as they are. No wish is above a check: none lowers what is trusted, or
// has something installed that the publisher does not offer.
type Wish struct {
	HoldUntil time.Time `json:"hold_until,omitzero"` // begin no update before; [state.NoEnd] for before Resume
	Resume    bool      `json:"resume,omitempty"`    // end the hold, and the one that a revert has left
	Pin       string    `json:"pin,omitempty"`       // install no version but this one
	Unpin     bool      `json:"unpin,omitempty"`
}

// Wished is how an app stands after a wish.
type Wished struct {
	AppStatus
	Changed bool `json:"changed"` // false: it was so already
}

// Wish records what the operator wants of apps, or of all of them, durably. What is
// allowed from then on an agent that is serving does by itself; what is not allowed any
// more is stopped before its swap. Codes: usage, not_found for a pin on a version that
// is neither installed nor offered.
func (a *Agent) Wish(ctx context.Context, apps []string, w Wish) ([]Wished, error) {
	var wished []Wished
	var err error
	derr := a.do(ctx, func() { wished, err = a.wish(apps, w) })
	if derr != nil {
		return nil, derr
	}
	return wished, err
}

func (a *Agent) wish(names []string, w Wish) ([]Wished, error) {
	apps, err := a.selected(names)
	if err != nil {
		return nil, err
	}
	if !w.HoldUntil.IsZero() && !w.HoldUntil.After(a.cfg.Clock()) {
		return nil, fault.New(fault.Usage, "a hold until %s would be over already", w.HoldUntil.UTC().Format(time.RFC3339)).
			Line("This machine's clock says %s.", a.cfg.Clock().UTC().Format(time.RFC3339))
	}
	if w.Pin != "" {
		for _, app := range apps {
			if err := a.canPin(app, w.Pin); err != nil {
				return nil, err
			}
		}
	}
	l := a.follow.Local()
	l.HoldUntil, l.Pins, l.Installed = maps.Clone(l.HoldUntil), maps.Clone(l.Pins), maps.Clone(l.Installed)
	var wished []Wished
	for _, app := range apps {
		wished = append(wished, Wished{Changed: a.change(&l, app, w)})
	}
	if err := a.follow.SetLocal(l); err != nil {
		return nil, err
	}
	a.log.Info("an operator decided", "apps", names, "hold_until", w.HoldUntil, "resume", w.Resume, "pin", w.Pin, "unpin", w.Unpin)
	for i, app := range apps {
		app.trouble = nil // what kept it from its last update may be what was decided
		a.goOn(app)
		wished[i].AppStatus = a.snapshot(app)
	}
	return wished, nil
}

// change puts w into l, and reports whether that made a difference for app.
func (a *Agent) change(l *state.Local, app *app, w Wish) bool {
	changed := false
	if !w.HoldUntil.IsZero() || w.Resume {
		had := l.HoldUntil[app.channel]
		if !had.After(a.cfg.Clock()) {
			had = time.Time{} // it is over
		}
		changed = !had.Equal(w.HoldUntil)
		delete(l.HoldUntil, app.channel)
		if !w.HoldUntil.IsZero() {
			if l.HoldUntil == nil {
				l.HoldUntil = map[manifest.Channel]time.Time{}
			}
			l.HoldUntil[app.channel] = w.HoldUntil.UTC()
		}
	}
	if in := l.Installed[app.cfg.Name]; w.Resume && !in.RevertedFrom.IsZero() {
		in.RevertedFrom = manifest.Digest{}
		l.Installed[app.cfg.Name] = in
		changed = true
	}
	if had := l.Pins[app.channel]; w.Unpin || w.Pin != "" {
		changed = changed || had != w.Pin
		delete(l.Pins, app.channel)
		if w.Pin != "" {
			if l.Pins == nil {
				l.Pins = map[manifest.Channel]string{}
			}
			l.Pins[app.channel] = w.Pin
		}
	}
	return changed
}

// canPin refuses a pin that only a slip of the pen can mean.
func (a *Agent) canPin(app *app, version string) error {
	a.settle(app, Choice{})
	s := &app.status
	if version == s.Version && version != "" || s.Offered != nil && version == s.Offered.Version {
		return nil
	}
	e := fault.New(fault.NotFound, "%s %s is neither installed nor offered here", app.cfg.Name, version)
	if s.Version != "" {
		e.Line("Installed is %s.", s.Version)
	}
	if s.Offered != nil {
		e.Line("%s offers %s.", app.channel, s.Offered.Version)
	}
	if slices.Contains(s.Previous, version) {
		e.Line("%s is kept beside the target.", version).Do("shoal agent revert --to %s, and pin it then", version)
	}
	return e.Line("Nothing was changed.").Do("shoal agent pin VERSION with one of these")
}

// refuseWish says what an operator's word has against installing m now, or nil. Its
// times are those of the clock on the wall, as an operator means them.
func (a *Agent) refuseWish(app *app, m *manifest.Manifest, c Choice) error {
	l := a.follow.Local()
	if pin := l.Pins[app.channel]; pin != "" && pin != m.Release.Version {
		return fault.New(fault.Held, "pinned to %s by this machine's operator", pin).
			Fact("pin", pin).Do("take other versions again: shoal agent unpin")
	}
	until := l.HoldUntil[app.channel]
	if c.Override || !a.cfg.Clock().Before(until) {
		return nil
	}
	if until.Equal(state.NoEnd) {
		return fault.New(fault.Held, "held by this machine's operator").
			Do("shoal agent resume, or this once: shoal agent update --override")
	}
	return fault.New(fault.Held, "held by this machine's operator until %s", until.UTC().Format("2006-01-02 15:04 MST")).
		Fact("until", until.UTC().Format(time.RFC3339)).
		Do("skip the wait: shoal agent update --override")
}

// refuseWindow says that m may not be begun now because the app's maintenance windows
// are closed, or nil.
func (a *Agent) refuseWindow(app *app, m *manifest.Manifest, c Choice) error {
	open, change := app.cfg.Windows.At(a.cfg.Clock())
	if open || c.Override || m.Release.Urgent() {
		return nil
	}
	e := fault.New(fault.Held, "the maintenance window is closed")
	if !change.IsZero() {
		e = fault.New(fault.Held, "the maintenance window opens %s", change.Local().Format("Mon 2006-01-02 15:04 MST")).
			Fact("until", change.UTC().Format(time.RFC3339))
	}
	return e.Do("skip the wait: shoal agent update --override")
}

// Reverted is what a revert did.
type Reverted struct {
	AppStatus
	Code fault.Code `json:"code"`           // ok, or same: it was so already
	From string     `json:"from,omitempty"` // the version that was there before
}

// Revert puts a previous version of app back, that is kept beside the target: the one
// called version, or the latest when that is empty. It needs no network, and lowers
// nothing that is trusted. What was there is not installed again until the channel
// offers something else, or [Wish].Resume. Codes: not_found, blocked, locked, and those
// of an update that failed.
func (a *Agent) Revert(ctx context.Context, name, version string) (*Reverted, error) {
	if err := a.recovered(ctx); err != nil {
		return nil, err
	}
	if err := a.stopDownload(ctx, name); err != nil {
		return nil, err
	}
	res := &Reverted{Code: fault.OK}
	var j *job
	var app *app
	var err error
	derr := a.do(ctx, func() {
		if app, err = a.appNamed(name); err != nil {
			return
		}
		if app.job != nil {
			err = underWay(app)
			return
		}
		d := a.settle(app, Choice{})
		res.From = app.status.Version
		var to apply.Release
		if to, err = a.previous(app, d, version); err != nil {
			return
		}
		if to.SHA256 == [32]byte(d.now.SHA256) {
			res.Code = fault.Same
			return
		}
		if err = a.mayRevert(app, to); err != nil {
			return
		}
		j = &job{app: app, revert: &revert{version: version, from: d.now.SHA256}}
		a.setState(app, manifest.StateCommitting, fault.New(fault.OK, "putting %s back", to.Version))
		a.start(app, j)
	})
	if derr == nil {
		derr = err
	}
	if derr != nil {
		return nil, derr
	}
	if j != nil {
		if err := j.wait(ctx); err != nil {
			return nil, err
		}
	}
	return res, a.do(context.WithoutCancel(ctx), func() { res.AppStatus = a.snapshot(app) })
}

// revert is what a job that puts a previous version back has to know.
type revert struct {
	version string          // empty for the latest
	from    manifest.Digest // what is to go
}

// stopDownload ends an update of the app that has changed nothing yet.
func (a *Agent) stopDownload(ctx context.Context, name string) error {
	var j *job
	if err := a.do(ctx, func() {
		if app, err := a.appNamed(name); err == nil && app.job != nil && app.job.state() == manifest.StateDownloading {
			j = app.job
			j.cancel()
		}
	}); err != nil || j == nil {
		return err
	}
	j.wait(ctx) // how it ended does not matter: what is there then does
	return ctx.Err()
}

func underWay(app *app) error {
	return fault.New(fault.Locked, "%s is being changed at this moment", app.cfg.Name).
		Line("It is %s. Nothing else was begun.", app.job.state()).
		Do("try again when that has ended: shoal agent status")
}

// previous is the release that a revert to version means.
func (a *Agent) previous(app *app, d decision, version string) (apply.Release, error) {
	now := d.now.Release
	if version != "" && version == app.status.Version {
		return now, nil
	}
	if from := a.follow.Local().Installed[app.cfg.Name].RevertedFrom; version == "" && !from.IsZero() {
		return now, nil // the latest previous version is by now the one that was reverted from
	}
	kept, err := a.engine.Previous(app.program.Target)
	if err != nil {
		return apply.Release{}, err
	}
	for _, r := range kept {
		if version == "" || r.Version == version {
			return r, nil
		}
	}
	e := fault.New(fault.NotFound, "no previous version of %s is kept here", app.cfg.Name)
	if version != "" {
		e = fault.New(fault.NotFound, "no version %s of %s is kept here", version, app.cfg.Name)
	}
	for _, r := range kept {
		e.Line("Kept beside the target: %s.", orSum(r))
	}
	return apply.Release{}, e.Line("Nothing was changed.").Do("the publisher can offer an older release again: shoal release yank")
}

func orSum(r apply.Release) string {
	if r.Version != "" {
		return r.Version
	}
	return fmt.Sprintf("an unknown version with sha256 %x", r.SHA256)
}

// mayRevert refuses what the publisher has blocked, from what is on disk.
func (a *Agent) mayRevert(app *app, to apply.Release) error {
	trust, err := a.follow.Reread(true) // out of date or not, what it blocks is blocked
	if err != nil {
		return err
	}
	held, ok := trust.Held(app.channel)
	if !ok {
		return nil
	}
	if b, blocked := held.Manifest.Blocks(to.SHA256); blocked {
		return fault.New(fault.Blocked, "the publisher has blocked %s %s", app.cfg.Name, orSum(to)).
			Line("The reason given is %q.", b.Reason).
			Line("Nothing was changed; %s keeps running.", orUnknown(app.status.Version)).
			Do("shoal agent revert --to another version, or install the newest release: shoal agent update").
			Fact("sha256", manifest.Digest(to.SHA256).String())
	}
	return nil
}

func orUnknown(version string) string {
	if version == "" {
		return "what is installed"
	}
	return version
}

// putBack runs j, a revert, beside the owner.
func (a *Agent) putBack(ctx context.Context, j *job) (apply.Result, error) {
	return a.engine.Revert(ctx, j.program(a), j.revert.version, func(ctx context.Context, to apply.Release) error {
		var err error
		if derr := a.do(ctx, func() {
			if err = a.mayRevert(j.app, to); err != nil {
				return
			}
			// Before the swap: a crash after it must not have the agent undo it. A revert that
			// goes further back leaves the hold on what the channel offers as it is.
			had, o := a.follow.Local().Installed[j.app.cfg.Name].RevertedFrom, j.app.status.Offered
			if had.IsZero() || o == nil || o.SHA256 != had {
				err = a.setRevertedFrom(j.app, j.revert.from)
			}
		}); derr != nil {
			return derr
		}
		return err
	})
}

// setRevertedFrom remembers, durably, what is not to be installed again.
func (a *Agent) setRevertedFrom(app *app, from manifest.Digest) error {
	l := a.follow.Local()
	in := l.Installed[app.cfg.Name]
	if in.RevertedFrom == from {
		return nil
	}
	in.RevertedFrom = from
	l.Installed = maps.Clone(l.Installed)
	if l.Installed == nil {
		l.Installed = map[string]state.Installed{}
	}
	l.Installed[app.cfg.Name] = in
	return a.follow.SetLocal(l)
}

// endRevertHold ends the hold of a revert once the channel offers something else, or
// what was reverted from is what is installed.
func (a *Agent) endRevertHold(app *app, d decision) {
	from := a.follow.Local().Installed[app.cfg.Name].RevertedFrom
	if from.IsZero() || app.job != nil {
		return
	}
	other := d.artifact != nil && d.artifact.SHA256 != from
	if !other && !(d.now.Present && d.now.SHA256 == from) {
		return
	}
	if err := a.setRevertedFrom(app, manifest.Digest{}); err != nil {
		a.log.Warn("ending the hold of a revert", "app", app.cfg.Name, "err", err)
	}
}

// finishRevert takes the result of a job that put a previous version back.
func (a *Agent) finishRevert(j *job, r apply.Result, err error) {
	app := j.app
	if err == nil {
		a.installed(app, r)
		a.log.Info("previous version put back", "app", app.cfg.Name, "version", r.To.Version)
		a.goOn(app)
		return
	}
	a.log.Warn("not put back", "app", app.cfg.Name, "code", fault.CodeOf(err), "err", err)
	a.note(manifest.Event{Code: fault.CodeOf(err), Doc: app.channel.String(), Detail: "putting the previous version back: " + err.Error()})
	a.goOn(app)
	if shown := stateAfter(r, err); shown != manifest.StateWaiting {
		a.setState(app, shown, err)
	}
}

// showWishes puts what the operator wants of app into its status.
func (a *Agent) showWishes(app *app) {
	s, l, now := &app.status, a.follow.Local(), a.cfg.Clock()
	s.HoldUntil = l.HoldUntil[app.channel]
	if !s.HoldUntil.After(now) {
		s.HoldUntil = time.Time{}
	}
	s.Pin, s.RevertedFrom, s.Window = l.Pins[app.channel], l.Installed[app.cfg.Name].RevertedFrom, nil
	if len(app.cfg.Windows) > 0 {
		w := &WindowStatus{}
		w.Open, w.Changes = app.cfg.Windows.At(now)
		s.Window = w
	}
}

// WishRequest is what "wish" over the control socket takes.
type WishRequest struct {
	Apps []string `json:"apps,omitempty"`
	Wish
}

// RevertRequest is what "revert" takes.
type RevertRequest struct {
	App string `json:"app"`
	To  string `json:"to,omitempty"`
}
