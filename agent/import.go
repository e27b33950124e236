package agent

import (
	"context"
	"errors"
	"slices"

	"shoal/agent/cache"
	"shoal/agent/follow"
	"shoal/agent/source"
	"shoal/internal/control"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

// ImportRequest is what "import" over the control socket takes.
type ImportRequest struct {
	Path string `json:"path"` // absolute
}

// Import takes the bundle at path as it takes what the network says: its documents are
// verified by the same code, what is older than what is trusted is rollback, and its
// payload is kept, and given to neighbours, once it is the signed one. Then it installs
// what is offered, and returns when that has ended. The error is of the bundle; each app
// has its own.
func (a *Agent) Import(ctx context.Context, path string, progress func(Progress)) ([]Updated, error) {
	if err := a.recovered(ctx); err != nil {
		return nil, err
	}
	b, err := source.OpenBundle(path)
	if err != nil {
		return nil, a.outOfSight(err)
	}
	defer b.Close()
	if err := a.ofThisFleet(ctx, b); err != nil {
		return nil, err
	}
	apps, channels, err := a.offeredIn(b)
	if err != nil {
		return nil, err
	}
	within, cancel := a.within(ctx)
	defer cancel()
	report, err := a.follow.Cycle(within, follow.Ask{Force: true, From: []source.Source{b}}, channels...)
	if err == nil {
		err = report.Err
	}
	if err != nil {
		return nil, inBundle(b, err)
	}
	failed := make([]error, len(apps))
	for i, app := range apps {
		if failed[i] = outcome(report, app.channel).Err; failed[i] == nil {
			failed[i] = a.stock(within, app, b)
		}
	}
	var all []*taken
	err = a.do(ctx, func() {
		a.note(report.Events...)
		for i, app := range apps {
			if failed[i] != nil {
				all = append(all, &taken{app: app, res: Updated{Error: control.NewFailure(inBundle(b, failed[i]))}})
				continue
			}
			app.checked, app.asked = nil, true
			app.status.Freshness = outcome(report, app.channel).Freshness
			a.noteRunningBlocked(app)
			all = append(all, a.take(app, Choice{}, progress))
		}
	})
	if err != nil {
		return nil, err
	}
	return a.ended(ctx, all, true)
}

// outOfSight adds to not_found why a file that a person sees may not be there for a
// service.
func (a *Agent) outOfSight(err error) error {
	var e *fault.Error
	if a.serving.Load() && errors.As(err, &e) && (e.Code == fault.NotFound || e.Code == fault.Permission) {
		e.Line("The running agent looked for it, and a service has no /home and a /tmp of its own.").
			Do("copy it to where the agent sees it, such as its state directory: %s", a.cfg.StateDir)
	}
	return err
}

// ofThisFleet refuses the bundle of another fleet: whatever is in it means nothing here.
func (a *Agent) ofThisFleet(ctx context.Context, b *source.Bundle) error {
	root, fleet := a.follow.Root()
	if root == nil {
		if a.pin == nil {
			return nil // the cycle says what is wrong
		}
		fleet = manifest.Digest(a.pin.Repo)
	}
	env, err := b.Document(ctx, tree.Root(1), manifest.MaxRoot)
	if err != nil {
		return err
	}
	e, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		return inBundle(b, err)
	}
	if e.PayloadHash() != fleet {
		return follow.PinMismatch(fleet, e.PayloadHash(), b.Name())
	}
	return nil
}

// offeredIn returns the apps of this machine that the bundle is for.
func (a *Agent) offeredIn(b *source.Bundle) ([]*app, []manifest.Channel, error) {
	all, err := a.selected(nil)
	if err != nil {
		return nil, nil, err
	}
	var apps []*app
	var channels []manifest.Channel
	for _, app := range all {
		if slices.Contains(b.Channels(), app.channel) {
			apps = append(apps, app)
			if !slices.Contains(channels, app.channel) {
				channels = append(channels, app.channel)
			}
		}
	}
	if len(apps) > 0 {
		return apps, channels, nil
	}
	e := fault.New(fault.WrongTarget, "the bundle is for no app of this machine").Line("It has %v.", b.Channels())
	for _, app := range all {
		e.Line("This machine follows %s.", app.channel)
	}
	return nil, nil, e.Line("Nothing was changed; what is installed keeps running.").Do("shoal bundle create %s", all[0].channel)
}

func outcome(r *follow.Report, ch manifest.Channel) follow.Outcome {
	i := slices.IndexFunc(r.Outcomes, func(o follow.Outcome) bool { return o.Channel == ch })
	return r.Outcomes[i]
}

// stock puts what the bundle has for this machine into the cache, unless it is here. What
// the bundle does not have may come from neighbours.
func (a *Agent) stock(ctx context.Context, app *app, b *source.Bundle) error {
	var d decision
	if err := a.do(ctx, func() { d = a.decide(app, nil, Choice{}) }); err != nil {
		return err
	}
	if d.artifact == nil {
		return nil
	}
	p, ok := d.artifact.Usable()
	if !ok {
		return nil
	}
	info, err := infoIn(ctx, b, p)
	if err == nil {
		err = keepInfo(a.cache, info)
	}
	if err != nil {
		return err
	}
	if d.now.Present && d.now.SHA256 == d.artifact.SHA256 {
		return nil
	}
	if f, err := a.cache.Open(ctx, p.SHA256, p.Length); err == nil {
		return f.Close()
	}
	body, _, err := b.Data(ctx, tree.Data(p.SHA256), 0)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if err := a.cache.Admit(p.SHA256, p.Length, 0); err != nil {
		return err
	}
	if err := a.cache.Take(ctx, body, p.SHA256, p.Length); err != nil {
		return err
	}
	return a.do(ctx, func() { a.give(app, p) })
}

// infoIn returns the payload's info dict, checked: with it neighbours can be asked for the
// payload, and it is given to them. It is nil when the bundle has none.
func infoIn(ctx context.Context, b *source.Bundle, p *manifest.Payload) (*swarm.Info, error) {
	dict, err := b.Document(ctx, tree.Info(p.InfoSHA256), swarm.MaxInfoSize)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := swarm.OpenInfo(dict, swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length})
	if err != nil {
		return nil, fault.New(fault.BadInfo, "the info dict is not as signed: %w", err)
	}
	return info, nil
}

func keepInfo(c *cache.Cache, info *swarm.Info) error {
	if info == nil {
		return nil
	}
	return coded(durable.WriteFile(c.Info(info.Ref().InfoSHA256), info.Bytes(), 0o600), "keeping the info dict")
}

// inBundle says where what is wrong was found.
func inBundle(b *source.Bundle, err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Facts["bundle"] == nil {
		e.Line("It was in the bundle %s. What is installed keeps running.", b.Name()).Fact("bundle", b.Name())
	}
	return err
}
