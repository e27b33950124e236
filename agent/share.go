package agent

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"shoal/agent/apply"
	"shoal/manifest"
	"shoal/swarm"
)

// share gives the installed release to neighbours, from the cache where it is there,
// else from where it is installed. It runs in the owner; the work is done beside it.
func (a *Agent) share(app *app, d decision) {
	if p, ok := d.artifact.Usable(); ok {
		a.give(app, p)
	}
}

// give is share for a payload that is in the cache, installed or not.
func (a *Agent) give(app *app, p *manifest.Payload) {
	if a.closing || !a.serving.Load() || a.shared[p.Infohash] == p.SHA256 {
		return
	}
	a.shared[p.Infohash] = p.SHA256
	a.jobs.Go(func() {
		if err := a.seed(a.ctx, p, app.program.Target); err != nil {
			a.log.Warn("not given to neighbours", "app", app.cfg.Name, "err", err)
			a.do(context.Background(), func() { delete(a.shared, p.Infohash) }) // the next check tries again
		}
	})
}

func (a *Agent) seed(ctx context.Context, p *manifest.Payload, t apply.Target) error {
	info, err := a.acquirer(a.swarmForUpdate).Info(ctx, p)
	if err != nil {
		return err
	}
	path := a.cache.Path(p.SHA256)
	if _, err := os.Stat(path); err != nil {
		if t.Kind == apply.KindTree {
			return nil // what was unpacked cannot be given; what is fetched next can
		}
		path = t.Path // its hash is the artifact's: the full payload is the program itself
	}
	node, err := a.swarm(a.cfg.Listen)
	if err != nil {
		return err
	}
	if err := node.Seed(ctx, info, path, a.cfg.announceURLs()); err != nil && !errors.Is(err, swarm.ErrBusy) {
		return coded(err, "giving the release to neighbours")
	}
	a.log.Info("giving", "sha256", p.SHA256, "from", path)
	return nil
}

// prune drops from swarm and cache what no channel asks for any more: a release that
// was replaced stays for a while, because neighbours are still fetching it.
func (a *Agent) prune() {
	if root, _ := a.follow.Root(); root == nil {
		return // nothing is known, so nothing is known to be useless
	}
	wanted := a.wanted(true)
	if err := a.forget(func(d manifest.Digest) bool { return slices.Contains(wanted, d) }); err != nil {
		a.log.Warn("pruning the cache", "err", err)
	}
}

// traffic is what the swarm node exchanges now, by infohash.
func (a *Agent) traffic() map[manifest.Infohash]swarm.TorrentStats {
	a.nodeMu.Lock()
	node := a.node
	a.nodeMu.Unlock()
	all := map[manifest.Infohash]swarm.TorrentStats{}
	if node != nil {
		for _, t := range node.Stats().Torrents {
			all[t.Infohash] = t
		}
	}
	return all
}

// publish makes the owner's view readable by everyone.
func (a *Agent) publish() {
	s := &Status{
		Agent: a.id, Version: a.cfg.Version, FreezeCheck: a.cfg.Time != "floor",
		StateLost: !a.follow.Local().LostAt.IsZero(), Events: slices.Clone(a.recent), Updated: a.cfg.Clock().UTC(),
		Apps: []AppStatus{},
	}
	if s.Events == nil {
		s.Events = []Event{}
	}
	if a.pin != nil {
		s.Fleet, s.TOFU = a.pin.Repo.String(), a.pin.TOFU
	}
	if root, fleet := a.follow.Root(); root != nil {
		s.Fleet, s.RootVersion, s.RootExpires = fleet.Prefixed(), root.Version, root.Expires
	}
	a.nodeMu.Lock()
	if a.node != nil {
		s.Listen = a.node.Addr().String()
	}
	a.nodeMu.Unlock()
	traffic := a.traffic()
	for _, app := range a.apps {
		as := a.snapshot(app)
		if t, ok := traffic[app.offered]; ok && app.offered != (manifest.Infohash{}) {
			as.Peers, as.Given = t.Peers, t.Given.Sum()
		}
		s.Apps = append(s.Apps, as)
	}
	a.published.Store(s)
	a.reports.Changed()
	a.saveStatus()
}

// snapshot is a copy of how app stands that nobody changes any more.
func (a *Agent) snapshot(app *app) AppStatus {
	s := app.status
	if s.Update != nil {
		u := *s.Update
		s.Update = &u
	}
	if s.LastCheck != nil {
		c := *s.LastCheck
		s.LastCheck = &c
	}
	return s
}

// Status returns how the agent stands, without waiting for what it is doing.
func (a *Agent) Status() *Status {
	s := *a.published.Load()
	if s.Running = a.serving.Load(); s.Running {
		s.PID = os.Getpid()
	}
	s.Reports = a.reports.Status()
	return &s
}

// saveStatus writes the status for when nobody runs; at most once a second, unless a
// state has changed.
func (a *Agent) saveStatus() {
	s := a.published.Load()
	states := ""
	for _, app := range s.Apps {
		states += string(app.State) + " " + app.SHA256.String() + "\n"
	}
	if now := time.Now(); states != a.savedStates || now.Sub(a.savedAt) > time.Second {
		a.savedStates, a.savedAt = states, now
		if err := s.write(a.cfg.StateDir); err != nil {
			a.log.Warn("writing the status", "err", err)
		}
	}
}
