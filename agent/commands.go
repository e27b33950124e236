package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"shoal/agent/follow"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Check is how one app stands after its channel was asked for.
type Check struct {
	AppStatus
	Code      fault.Code `json:"code"`      // ok: new, same: nothing new, held, or why the check failed
	Available bool       `json:"available"` // another release than the installed one is offered
	// Error is why the check failed, or what keeps the release from being installed now.
	Error *control.Failure `json:"error,omitempty"`
}

// Checks is what a check found.
type Checks struct {
	Apps   []Check          `json:"apps"`
	Events []manifest.Event `json:"events"`
}

// Check asks the channels of apps, or of all of them, for what is new. It installs
// nothing by itself; an agent that is serving goes on to do so. The error is of the
// check as a whole; each app has its own.
func (a *Agent) Check(ctx context.Context, apps []string) (*Checks, error) {
	if !a.serving.Load() {
		// A command must not leave a recovery half way: every try counts.
		if err := a.recovered(ctx); err != nil {
			return nil, err
		}
	}
	chosen, err := a.selected(apps)
	if err != nil {
		return nil, err
	}
	var result *Checks
	err = a.cycle(ctx, follow.Ask{Force: true}, chosen, func(report *follow.Report) {
		result = &Checks{Events: append([]manifest.Event{}, report.Events...)}
		for _, app := range chosen {
			result.Apps = append(result.Apps, a.check(app, report))
		}
	})
	return result, err
}

// check tells how app stands, and begins its update if this agent does so by itself.
func (a *Agent) check(app *app, r *follow.Report) Check {
	d := a.settle(app, Choice{})
	c := Check{Code: fault.Same, Available: d.artifact != nil && !(d.now.Present && d.now.SHA256 == d.artifact.SHA256)}
	for _, o := range r.Outcomes {
		if o.Channel == app.channel && o.New {
			c.Code = fault.OK
		}
	}
	err := app.checked
	if err == nil {
		err = d.why
	}
	if c.Error = control.NewFailure(err); c.Error != nil {
		c.Code = c.Error.Code
	}
	if d.install && a.serving.Load() && answered(app.checked) && app.job == nil {
		a.begin(app, d, Choice{})
	}
	if answered(app.checked) {
		a.fetchAhead(app, d)
	}
	c.AppStatus = a.snapshot(app)
	return c
}

// answered reports whether a check that ended with err says nothing against what is
// trusted already. That nobody answers does not: neighbours may have the bytes.
func answered(err error) bool { return err == nil || errors.Is(err, fault.Unreachable) }

// cycle asks the sources for the channels of apps, and has the owner take down what they
// said and then do the rest. Slow sources keep only the caller waiting, not the owner.
func (a *Agent) cycle(ctx context.Context, ask follow.Ask, apps []*app, rest func(*follow.Report)) error {
	ctx, cancel := a.within(ctx)
	defer cancel()
	var channels []manifest.Channel
	for _, app := range apps {
		if !slices.Contains(channels, app.channel) {
			channels = append(channels, app.channel)
		}
	}
	report, err := a.follow.Cycle(ctx, ask, channels...)
	if err != nil {
		return err
	}
	return a.do(ctx, func() {
		a.answer(apps, report)
		rest(report)
	})
}

// answer takes down what the sources said.
func (a *Agent) answer(apps []*app, report *follow.Report) {
	a.note(report.Events...)
	now := a.cfg.Clock().UTC()
	for _, app := range apps {
		app.checked, app.asked = report.Err, true
		for _, o := range report.Outcomes {
			if o.Channel == app.channel {
				app.status.Freshness = o.Freshness
				app.checked = o.Err
			}
		}
		if errors.Is(app.checked, fault.Unreachable) {
			app.silences++
		} else {
			app.silences = 0
		}
		last := &CheckStatus{At: now, Code: fault.Same}
		if app.checked != nil {
			w := why(app.checked)
			last.Code, last.Text, last.Next = w.Code, w.Text, w.Next
			a.log.Warn("check failed", "channel", app.channel, "code", w.Code, "err", app.checked)
		}
		app.status.LastCheck = last
		if app.self && a.serving.Load() {
			a.gate.Cycle(app.checked)
		}
		a.noteRunningBlocked(app)
	}
}

// noteRunningBlocked says so when the publisher has blocked what is installed.
func (a *Agent) noteRunningBlocked(app *app) {
	held, ok := a.follow.Held(app.channel)
	if !ok {
		return
	}
	now, err := a.engine.Installed(app.program.Target)
	if err != nil || !now.Present {
		return
	}
	if b, blocked := held.Manifest.Blocks(now.SHA256); blocked {
		a.note(manifest.Event{Code: fault.RunningBlocked, Doc: "manifest " + app.channel.String(),
			Detail: "the installed program is blocked: " + b.Reason})
	}
}

// settle decides about app and shows the decision, unless an update is under way that
// shows itself.
func (a *Agent) settle(app *app, c Choice) decision {
	d := a.decide(app, app.checked, c)
	s := &app.status
	s.Version, s.SHA256 = d.now.Version, d.now.SHA256
	if !d.now.Present {
		s.Version, s.SHA256 = "", manifest.Digest{}
	}
	s.Offered, app.offered = nil, manifest.Infohash{}
	if d.held != nil {
		m := d.held.Manifest
		s.Epoch, s.Sequence, s.Expires, s.SignedBy = m.Epoch, m.Sequence, m.Expires, d.held.SignedBy
		s.Offered = &Offer{Version: m.Release.Version, Severity: m.Release.Severity}
		if d.artifact != nil {
			s.Offered.SHA256, s.Offered.Length = d.artifact.SHA256, d.artifact.Length
			if p, ok := d.artifact.Usable(); ok {
				app.offered = p.Infohash
			}
			if d.artifact.SHA256 == s.SHA256 {
				s.Version = m.Release.Version // also when something else installed it
			}
		}
	}
	s.Previous = nil
	if previous, err := a.engine.Previous(app.program.Target); err == nil {
		for _, p := range previous {
			s.Previous = append(s.Previous, p.Version)
		}
	}
	a.endRevertHold(app, d)
	a.showWishes(app)
	a.showAhead(app, d)
	if app.job == nil {
		shown, reason := d.state, d.why
		if d.install {
			reason = fault.New(fault.OK, "%s is available", s.Offered.Version).Do("shoal agent update")
			if app.trouble != nil && app.trouble.d == d.artifact.SHA256 {
				shown, reason = app.trouble.state, app.trouble.err
			}
		}
		a.setState(app, shown, reason)
		if d.state == manifest.StateHealthy {
			a.share(app, d)
		}
	}
	return d
}

// Updated is how one app stands after an update.
type Updated struct {
	AppStatus
	Code  fault.Code       `json:"code"` // ok: installed, or begun; same: it was already
	Error *control.Failure `json:"error,omitempty"`
}

// Update checks, and installs what is offered. It returns when the updates have ended,
// or, if wait is false, when they have begun. The error is of the whole; each app has
// its own.
func (a *Agent) Update(ctx context.Context, apps []string, c Choice, wait bool, progress func(Progress)) ([]Updated, error) {
	if err := a.recovered(ctx); err != nil {
		return nil, err
	}
	chosen, err := a.selected(apps)
	if err != nil {
		return nil, err
	}
	var all []*taken
	err = a.cycle(ctx, follow.Ask{Force: true, AllowExpired: c.AllowExpired}, chosen, func(*follow.Report) {
		for _, app := range chosen {
			a.noteExpired(app, c)
			all = append(all, a.take(app, c, progress))
		}
	})
	if err != nil {
		return nil, err
	}
	return a.ended(ctx, all, wait)
}

// taken is an app that was told to update.
type taken struct {
	app *app
	job *job // nil if there is nothing to do, or it may not be done
	res Updated
}

// take begins the update of app, joins the one under way, or says why there is none.
// Only the owner calls it.
func (a *Agent) take(app *app, c Choice, progress func(Progress)) *taken {
	t := &taken{app: app, job: app.job}
	d := a.settle(app, c)
	switch {
	case app.job != nil: // join the one under way
	case d.install && answered(app.checked):
		t.job = a.begin(app, d, c)
	case app.checked != nil:
		t.res.Error = control.NewFailure(app.checked)
	case d.why != nil:
		t.res.Error = control.NewFailure(d.why)
	default:
		t.res.Code = fault.Same
	}
	if t.job != nil {
		t.job.watch(progress)
	}
	return t
}

// ended says how the updates of all ended, after waiting for them if wait is set.
func (a *Agent) ended(ctx context.Context, all []*taken, wait bool) ([]Updated, error) {
	for _, t := range all {
		if t.job == nil || !wait {
			continue
		}
		if werr := t.job.wait(ctx); werr != nil {
			t.res.Error = control.NewFailure(werr)
		}
	}
	err := a.do(context.WithoutCancel(ctx), func() {
		for _, t := range all {
			t.res.AppStatus = a.snapshot(t.app)
		}
	})
	var updated []Updated
	for _, t := range all {
		if t.res.Error != nil {
			t.res.Code = t.res.Error.Code
		} else if t.res.Code == "" {
			t.res.Code = fault.OK
		}
		updated = append(updated, t.res)
	}
	return updated, err
}

// noteExpired keeps a record of a person taking a manifest that is out of date.
func (a *Agent) noteExpired(app *app, c Choice) {
	held, ok := a.follow.Held(app.channel)
	if !ok || !c.AllowExpired || a.cfg.Clock().Before(held.Manifest.Expires) {
		return
	}
	a.log.Warn("an operator allowed an expired manifest", "channel", app.channel, "expires", held.Manifest.Expires)
	a.note(manifest.Event{Code: fault.Expired, Doc: "manifest " + app.channel.String(),
		Detail: "taken once by an operator, with --allow-expired"})
}

// recovered waits until what a crash interrupted is finished.
func (a *Agent) recovered(ctx context.Context) error {
	var recoveries []*job
	if err := a.do(ctx, func() {
		for _, app := range a.apps {
			if app.job != nil && app.job.recovery && !app.self {
				recoveries = append(recoveries, app.job)
			}
		}
	}); err != nil {
		return err
	}
	for _, j := range recoveries {
		j.wait(ctx) // how it ended is in the status
	}
	return ctx.Err()
}

// nextCheck is when the channels are asked again: in the configured time, or sooner
// when nobody answered or something passing ended an update: later and later. A window
// that would be over by then is not slept through.
func (a *Agent) nextCheck(jitter float64) time.Duration {
	every := a.cfg.Check.Every
	d := time.Duration(float64(every) * (1 + a.cfg.Check.Jitter*(2*jitter-1)))
	soon := func(tries int) {
		if tries > 0 {
			wait := firstRetry << min(tries-1, 10)
			d = min(d, wait+time.Duration(jitter*float64(wait)))
		}
	}
	for _, app := range a.apps {
		soon(app.silences)
		if app.job == nil && app.status.State == manifest.StateWaiting {
			soon(app.retries)
		}
		if w := app.status.Why; app.job == nil && app.status.State == manifest.StateHeld && w != nil && !w.Until.IsZero() && openNow(app) {
			// A wave opens or a hold ends by then; not everybody has to come in that second.
			d = min(d, max(w.Until.Sub(a.cfg.Clock()), 0)+time.Duration(jitter*float64(every)/4))
		}
		if w := app.status.Window; w != nil && !w.Open && !w.Changes.IsZero() && app.status.State == manifest.StateHeld {
			_, end := app.cfg.Windows.At(w.Changes)
			if length := end.Sub(w.Changes); !end.IsZero() && length < 2*every {
				d = min(d, max(w.Changes.Sub(a.cfg.Clock()), 0)+time.Duration(jitter*float64(length)/2))
			}
		}
	}
	return d
}

// openNow reports whether no maintenance window keeps app waiting.
func openNow(app *app) bool { return app.status.Window == nil || app.status.Window.Open }

const firstRetry = 15 * time.Second
