package agent

import (
	"context"
	"errors"
	"fmt"

	"shoal/agent/apply"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Choice is what a person asked for beyond the plan.
type Choice struct {
	Retry        bool `json:"retry,omitempty"`         // try again what failed here
	Override     bool `json:"override,omitempty"`      // skip waves, windows and a local hold
	AllowExpired bool `json:"allow_expired,omitempty"` // this once, an expired manifest is as good as another
}

// decision is what to do about one app, and why.
type decision struct {
	install  bool
	state    manifest.AppState
	why      error // nil when healthy or to be installed
	held     *manifest.Verified
	artifact *manifest.Artifact // what the channel offers this machine; may be nil
	payload  *manifest.Payload
	now      apply.Installed
}

// decide holds what is trusted of app's channel against what is installed. checked is
// how the channel's last check ended. The order of the questions is the order in which
// a person would want the answers.
func (a *Agent) decide(app *app, checked error, c Choice) decision {
	d := decision{state: manifest.StateWaiting}
	var err error
	if d.now, err = a.engine.Installed(app.program.Target); err != nil {
		d.why = err
		return d
	}
	d.held, _ = a.follow.Held(app.channel)
	if d.held == nil {
		d.why = checked
		if d.why == nil {
			d.why = fault.New(fault.NotFound, "nothing is published in %s yet", app.channel)
		}
		return d
	}
	platform := a.cfg.Platform
	platform.Variant = app.cfg.Variant
	if d.artifact, err = d.held.Select(platform); err != nil {
		d.why = err
		if errors.Is(err, fault.Blocked) {
			d.state = manifest.StateBlocked
		}
		return d
	}
	if d.artifact.Kind != app.cfg.Kind {
		d.state = manifest.StateBlocked
		d.why = fault.New(fault.Policy, "%s %s is a %q, this machine takes a %q", app.cfg.Name,
			d.held.Manifest.Release.Version, d.artifact.Kind, app.cfg.Kind).
			Do("set kind in the app's configuration if this is right")
		return d
	}
	if d.now.Present && d.now.SHA256 == d.artifact.SHA256 {
		d.state = manifest.StateHealthy
		if d.why = a.unproven(app); d.why != nil {
			d.state = manifest.StateConfirming
		}
		return d
	}
	ok := false
	if d.payload, ok = d.artifact.Usable(); !ok {
		d.why = fault.New(fault.NoArtifact, "%s %s comes in no form this agent understands", app.cfg.Name, d.held.Manifest.Release.Version).
			Do("update the agent")
		return d
	}
	if d.why = a.refuse(app, &d, c); d.why == nil {
		d.install = true
	}
	return d
}

// refuse says why the offered artifact is not to be installed now, or nil.
func (a *Agent) refuse(app *app, d *decision, c Choice) error {
	m := d.held.Manifest
	var retry int64
	if m.Rollout != nil {
		retry = m.Rollout.Retry
	}
	failed, err := a.engine.Failed(app.program.Target, d.artifact.SHA256, retry)
	if err != nil {
		return err
	}
	if failed && !c.Retry {
		d.state = manifest.StateFailed
		return a.failedBefore(app, d)
	}
	if app.self && !a.serving.Load() {
		d.state = manifest.StateHeld
		return fault.New(fault.Held, "the agent replaces itself only while it runs").Do("shoal agent run")
	}
	if a.follow.Local().Installed[app.cfg.Name].RevertedFrom == d.artifact.SHA256 {
		d.state = manifest.StateHeld
		return fault.New(fault.Held, "this machine's operator went back from %s", m.Release.Version).
			Line("%s %s is not installed again until another release is offered.", app.cfg.Name, m.Release.Version).
			Do("take it after all: shoal agent resume")
	}
	err = a.mayInstall(app, d.artifact.SHA256, c)
	if err == nil {
		err = a.refuseWindow(app, m, c)
	}
	if err != nil {
		switch {
		case errors.Is(err, fault.Held):
			d.state = manifest.StateHeld
		case errors.Is(err, fault.Blocked), errors.Is(err, fault.Policy):
			d.state = manifest.StateBlocked
		}
		return err
	}
	return nil
}

// failedBefore tells of the last failure of the offered artifact.
func (a *Agent) failedBefore(app *app, d *decision) error {
	version := d.held.Manifest.Release.Version
	code, seen := fault.HealthFailed, ""
	if history, err := a.engine.History(app.program.Target); err == nil {
		for _, r := range history {
			if r.To.SHA256 == d.artifact.SHA256 && r.State != apply.Confirmed {
				seen = r.Why
				if r.Code != "" {
					code = fault.Code(r.Code)
				}
				if r.State == apply.Reverted {
					d.state = manifest.StateReverted
				}
			}
		}
	}
	e := fault.New(code, "%s %s failed on this machine", app.cfg.Name, version)
	if seen != "" {
		e.Line("%s", seen)
	}
	if d.now.Present && d.now.Version != "" {
		e.Line("%s %s is installed.", app.cfg.Name, d.now.Version)
	}
	return e.Line("It is not tried here again until another release is offered or the publisher asks for a retry.").
		Do("shoal agent update --retry").Fact("version", version).Fact("sha256", d.artifact.SHA256.String())
}

// mayInstall says whether sha may be installed in app's channel at this moment: what
// is on disk still asks for it, and the plan has come to this machine. It is asked
// when an update begins and again right before the swap.
func (a *Agent) mayInstall(app *app, sha manifest.Digest, c Choice) error {
	trust, err := a.follow.Reread(c.AllowExpired)
	if err != nil {
		return err
	}
	cycle, err := trust.Begin()
	if err != nil {
		return err
	}
	if err := cycle.Authorize(app.channel, sha); err != nil {
		return err
	}
	brake := cycle.Brake(app.channel) // first: a fresh beacon may end a hold
	if brake.Hold || trust.OnHold(app.channel, sha) {
		e := fault.New(fault.Held, "the publisher holds this release")
		if brake.Reason != "" {
			e.Line("The reason given is %q.", brake.Reason)
		}
		return e.Do("wait: the hold is the publisher's to lift")
	}
	held, ok := trust.Held(app.channel)
	if !ok {
		return nil // Authorize has just found it
	}
	me := machine{rings: a.cfg.rings()}
	if r := held.Manifest.Rollout; r != nil {
		me.cohort = manifest.Cohort(r.Salt, a.id)
	}
	if now, err := a.engine.Installed(app.program.Target); err == nil && now.Present {
		_, me.urgent = held.Manifest.Blocks(now.SHA256)
	}
	if err := a.refuseWish(app, held.Manifest, c); err != nil {
		return err
	}
	now, _ := cycle.Now(app.channel)
	return myTurn(held.Manifest.Rollout, now, brake.Gate(), me, c.Override)
}

// authorize is mayInstall for whoever is not the owner of the state.
func (a *Agent) authorize(ctx context.Context, app *app, sha manifest.Digest, c Choice) error {
	var err error
	if derr := a.do(ctx, func() { err = a.mayInstall(app, sha, c) }); derr != nil {
		return derr
	}
	if err != nil {
		return fmt.Errorf("asking again before the swap: %w", err)
	}
	return nil
}
