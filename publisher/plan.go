package publisher

import (
	"context"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

// plan gives m its rollout. The same files again keep what is signed of theirs: each
// release has its own salt, so that the same machines are not always first, and one
// release keeps it, so that no machine changes its wave.
func (r *release) plan(req PublishRequest, m *manifest.Manifest) error {
	plan := r.p.cfg.habits(r.ch.Name).Rollout
	if req.Plan != nil {
		plan = *req.Plan
	}
	fresh, err := plan.Rollout(r.ch.Spec.Beacon != nil, !req.Start, r.now)
	if err != nil {
		return err
	}
	m.Rollout = fresh
	last := r.latest()
	if last == nil || last.Release.Version != m.Release.Version || !sameContent(last, m) {
		return nil
	}
	was := last.Rollout
	switch {
	case req.Plan == nil:
		m.Rollout = was
	case was == nil || fresh == nil:
		return nil
	default:
		next := *fresh
		next.Salt, next.Start, next.Retry, next.Paused = was.Salt, was.Start, was.Retry, was.Paused
		m.Rollout = &next
	}
	if req.Start && m.Rollout != nil && m.Rollout.Paused {
		next := *m.Rollout
		next.Start, next.Paused = r.now, false
		m.Rollout = &next
	}
	return nil
}

func samePlan(a, b *manifest.Rollout) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Salt == b.Salt && a.Start.Equal(b.Start) && a.Paused == b.Paused && a.Retry == b.Retry &&
		(a.Stop == nil) == (b.Stop == nil) && (a.Stop == nil || *a.Stop == *b.Stop) &&
		slices.EqualFunc(a.Waves, b.Waves, func(a, b manifest.Wave) bool {
			return a.Name == b.Name && slices.Equal(a.Rings, b.Rings) && a.Percent == b.Percent && a.After == b.After && a.Gate == b.Gate && a.Soak == b.Soak
		})
}

// planned fills in what m's plan says.
func (res *PublishResult) planned(r *manifest.Rollout) {
	if r == nil {
		return
	}
	res.Paused = r.Paused
	for _, w := range r.Waves {
		res.Waves = append(res.Waves, Wave{
			Name: w.Name, Rings: w.Rings, Percent: w.Percent, After: int64(w.After / time.Second), Opens: r.Start.Add(w.After),
			Gated: w.Gate == manifest.GateBeacon, Soak: int64(w.Soak / time.Second),
		})
	}
}

// Steering is what the release keys can do to a rollout.
type Steering string

// What the release keys can do. Each is the next sequence with the same files: machines
// fetch nothing anew.
const (
	SteerStart  Steering = "start"  // let a plan that was signed paused begin, now
	SteerPause  Steering = "pause"  // let no machine begin any more
	SteerResume Steering = "resume" // end a pause; the plan's times go on from where they began
	SteerRetry  Steering = "retry"  // let machines on which these files failed try them again
)

// SteerRequest is what Steer is asked.
type SteerRequest struct {
	AgainRequest
	Do Steering
}

// Steer signs the channel's last release again with its plan changed. When no key is at
// hand it leaves the draft for those who have one, and says where. Codes: not_found,
// policy where the plan stands otherwise than one thinks, and those of Publish.
func (p *Publisher) Steer(ctx context.Context, req SteerRequest) (*PublishResult, error) {
	r, err := p.begin(ctx, req.Channel, req.DryRun || req.DraftOnly)
	if err != nil {
		return nil, err
	}
	defer r.close()
	last := r.latest()
	if last == nil {
		return nil, fault.New(fault.NotFound, "%s has no release of epoch %d", r.ch.Name, r.ch.Spec.Epoch).
			Line("Nothing was changed.").Do("publish one: shoal publish --channel %s --version V FILE...", r.ch.Name)
	}
	m := *last
	m.Blocked = r.blocked(PublishRequest{})
	next := manifest.Rollout{}
	if m.Rollout != nil {
		next = *m.Rollout
	}
	changed, err := r.steer(req.Do, last, &next)
	if err != nil {
		return nil, err
	}
	if !changed {
		res := r.result(last, nil)
		res.Already, res.DryRun = true, req.DryRun
		return res, nil
	}
	m.Rollout = &next
	orDraft := req.AgainRequest
	orDraft.orDraft = true
	return r.again(ctx, &m, orDraft)
}

// steer changes next, last's plan, and reports whether that made a difference.
func (r *release) steer(do Steering, last *manifest.Manifest, next *manifest.Rollout) (bool, error) {
	switch do {
	case SteerPause:
		next.Paused = true
		return last.Rollout == nil || !last.Rollout.Paused, nil
	case SteerRetry:
		next.Retry++
		return true, nil
	}
	if !next.Paused {
		return false, nil
	}
	ran, err := r.ranBefore(last)
	if err != nil {
		return false, err
	}
	next.Paused = false
	switch {
	case do == SteerStart && !ran.IsZero():
		return false, fault.New(fault.Policy, "the rollout of %s began %s, and is paused since", last.Release.Version, stamp(ran)).
			Line("To begin anew would count its times from now. Nothing was changed.").Do("go on with it: shoal rollout resume")
	case do == SteerResume && ran.IsZero() && len(next.Waves) > 0:
		return false, fault.New(fault.Policy, "the rollout of %s has not begun yet", last.Release.Version).
			Line("Nothing was changed.").Do("shoal rollout start")
	case do == SteerStart && next.Start.Before(r.now):
		next.Start = r.now
	}
	return true, nil
}

// ranBefore is when the plan of m began, if it was ever signed to run: which machine is
// in which wave, and from when on, is a plan's own.
func (r *release) ranBefore(m *manifest.Manifest) (time.Time, error) {
	past, err := r.p.repo.History(r.ch.Name, r.ch.Last)
	if err != nil {
		return time.Time{}, err
	}
	for _, p := range past {
		if o := p.Manifest.Rollout; o != nil && m.Rollout != nil && o.Salt == m.Rollout.Salt && !o.Paused && p.Manifest.Epoch == m.Epoch && sameContent(p.Manifest, m) {
			return o.Start, nil
		}
	}
	return time.Time{}, nil
}

// PlanOf is the plan that a release of ch would get with req: its waves from now on.
func (p *Publisher) PlanOf(ctx context.Context, req PublishRequest) (*PublishResult, error) {
	r, err := p.begin(ctx, req.Channel, true)
	if err != nil {
		return nil, err
	}
	defer r.close()
	m := &manifest.Manifest{App: req.Channel.App, Channel: req.Channel.Name}
	if err := r.plan(req, m); err != nil {
		return nil, err
	}
	res := &PublishResult{Channel: req.Channel, Artifacts: []ArtifactResult{}, SignedBy: []SignedBy{}, Tree: p.Tree(), DryRun: true}
	res.planned(m.Rollout)
	return res, nil
}

// TakeBack is Yank of what the channel offers now. An empty To is the newest release
// before it whose files are others and not blocked. Machines that go back to an older
// version are what is asked for.
func (p *Publisher) TakeBack(ctx context.Context, req YankRequest) (*PublishResult, error) {
	state, err := p.repo.Read()
	if err != nil {
		return nil, err
	}
	ch, err := state.Channel(req.Channel)
	if err != nil {
		return nil, err
	}
	if ch.Latest == nil {
		return nil, fault.New(fault.NotFound, "%s has no release to take back", ch.Name).Line("Nothing was changed.")
	}
	req.Version, req.AllowVersionRegress, req.AgainRequest.orDraft = ch.Latest.Release.Version, true, true
	if req.To == "" {
		past, err := p.repo.History(ch.Name, ch.Last)
		if err != nil {
			return nil, err
		}
		for _, one := range past {
			m := one.Manifest
			blocked := slices.ContainsFunc(m.Artifacts, func(a manifest.Artifact) bool { _, is := ch.Latest.Blocks(a.SHA256); return is })
			if m.Epoch == ch.Latest.Epoch && m.Release.Version != req.Version && !sameContent(m, ch.Latest) && !blocked {
				req.To = m.Release.Version
				break
			}
		}
	}
	if req.To == "" {
		return nil, fault.New(fault.NotFound, "%s has no release before %s to go back to", ch.Name, req.Version).
			Line("Nothing was signed.").Do("name one: --to VERSION").Do("or publish a better one: shoal publish")
	}
	return p.Yank(ctx, req)
}
