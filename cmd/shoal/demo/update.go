package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"shoal/agent"
	"shoal/manifest"
)

const (
	lookEvery = 200 * time.Millisecond // at how a machine stands
	soak      = "1s"                   // between the waves
)

// plan is how releases go out: the canary first, then everyone when that is well, which
// the publisher's brake decides from what machines report.
var plan = []string{"--waves", "ring:" + canaryRing + ",100%", "--soak", soak, "--start"}

// approve has the publisher count the reports of all machines that can report.
func (f *fleet) approve(ctx context.Context) error {
	approved, want := 0, len(f.online())
	err := until(ctx, bound, func() (bool, error) {
		var more struct {
			Items []json.RawMessage `json:"items"`
		}
		err := f.must(ctx, &more, nil, "--config", f.publisher.config, "fleet", "approve", "--pending")
		approved += len(more.Items)
		return err == nil && approved == want, err
	})
	if err != nil {
		return fmt.Errorf("approving the machines that report (%d of %d): %w", approved, want, err)
	}
	return nil
}

// update publishes the new version and shows how the machines take it. Nobody tells them
// to: news of it goes from neighbour to neighbour.
func (f *fleet) update(ctx context.Context) error {
	if err := f.approve(ctx); err != nil {
		return err
	}
	if err := f.audience(ctx); err != nil {
		return err
	}
	out, err := f.publish(ctx, newVersion, plan...)
	if err != nil {
		return err
	}
	f.began = time.Now()
	uplink := "without a limit"
	if f.cfg.Limit != "" {
		uplink = "at most " + f.cfg.Limit + "/s"
	}
	f.say("  publish    %s %s to %s: %s MB, sequence %d, signed by %d of %d; the publisher gives %s\n",
		app, newVersion, channel, megabytes(f.size), out.Sequence, len(out.SignedBy), out.Threshold, uplink)
	online := f.online()
	waves := []wave{{title: "wave 1 canary", names: names(online[:1])}}
	if len(online) > 1 {
		waves = append(waves, wave{title: "wave 2 everyone", names: names(online[1:])})
	}
	if f.hasSite() {
		waves[len(waves)-1].note = fmt.Sprintf("m%d  has no network: gets it from a bundle, at the end", f.cfg.Agents)
	}
	if err := f.watch(ctx, waves, online); err != nil {
		return err
	}
	if f.hasSite() {
		if err := f.updateSite(ctx); err != nil {
			return err
		}
	}
	f.result.Seconds = round(f.last.Seconds(), 2)
	if err := f.count(ctx); err != nil {
		return err
	}
	return f.seen(ctx)
}

func names(on []*machine) []string {
	var names []string
	for _, m := range on {
		names = append(names, m.name)
	}
	return names
}

// watch shows how machines take the new version, until all have.
func (f *fleet) watch(ctx context.Context, waves []wave, on []*machine) error {
	screen := newProgress(f.cfg.Talk, f.cfg.Fancy, waves, f.size)
	var mu sync.Mutex // guards the screen and f.last
	show := func(v view) {
		mu.Lock()
		defer mu.Unlock()
		screen.show(v)
		if v.confirmed {
			f.last = max(f.last, time.Since(f.began))
		}
	}
	err := each(on, func(m *machine) error {
		if err := f.follow(ctx, m, show); err != nil {
			return fmt.Errorf("updating %s to %s: %w\n%s", m.name, newVersion, err, tail(m.log(f), 8))
		}
		return nil
	})
	screen.end()
	return err
}

// follow looks at a machine until the new version is confirmed there.
func (f *fleet) follow(ctx context.Context, m *machine, show func(view)) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var had int64
	for {
		v, err := m.look(ctx, f.size)
		if err != nil {
			if !m.agent.Running() {
				return fmt.Errorf("its agent ended: %w", m.agent.err)
			}
			return err
		}
		if v.done < had { // an update that begins with what was fetched ahead reads that again
			v.done, v.ahead = had, true
		}
		had = v.done
		show(v)
		if v.confirmed {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it is %s: %w", v.state, ctx.Err())
		}
	}
}

// look is how far a machine is.
func (m *machine) look(ctx context.Context, size int64) (view, error) {
	v := view{name: m.name, total: size}
	s, err := m.app(ctx)
	if err != nil {
		return v, err
	}
	v.state = string(s.State)
	if u := s.Update; u != nil && u.Version == newVersion {
		v.done = u.Done
		v.origin, v.peers = split(u.Bytes)
	}
	switch {
	case s.Version == newVersion && s.State == manifest.StateHealthy:
		v.done, v.confirmed, v.finalVersion = size, true, s.Version
	case s.State == manifest.StateReverted || s.State == manifest.StateFailed || s.State == manifest.StateBlocked:
		err = errors.New(v.state)
		if s.Why != nil {
			err = fmt.Errorf("%s: %s", v.state, s.Why.Text)
		}
	case s.Ahead == agent.AheadHere:
		v.done, v.ahead, v.state = size, true, "here, waits for its wave"
	case s.Ahead == agent.AheadFetching:
		v.ahead, v.state = true, "fetched ahead of its wave"
		v.done, err = m.stored(ctx, s.Offered)
	}
	return v, err
}

// stored is how much of what is offered a machine has.
func (m *machine) stored(ctx context.Context, o *agent.Offer) (int64, error) {
	var all []agent.Stored
	if err := m.ask(ctx, "cache", &all); err != nil || o == nil {
		return 0, err
	}
	for _, s := range all {
		if s.SHA256 == o.SHA256 {
			return min(s.Bytes, o.Length), nil
		}
	}
	return 0, nil
}

// split is what came from the publisher, and what from other machines.
func split(b agent.Bytes) (origin, peers int64) { return b.Origin + b.Webseed, b.LAN + b.WAN }

// count adds up what the machines say of the update, and asks their programs who they are.
func (f *fleet) count(ctx context.Context) error {
	r := &f.result
	var canary time.Time // when it had confirmed
	for i, m := range f.machines {
		var s agent.Status
		if err := f.must(ctx, &s, m.env, m.args("agent", "status")...); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if len(s.Apps) != 1 || s.Apps[0].Update == nil {
			return fmt.Errorf("%s does not tell what its update cost", m.name)
		}
		u := s.Apps[0].Update
		one := Machine{Name: m.name, Address: m.addr, Seconds: round(u.Seconds, 2)}
		one.OriginBytes, one.PeerBytes = split(u.Bytes)
		r.Machines = append(r.Machines, one)
		r.OriginBytes += one.OriginBytes
		r.PeerBytes += one.PeerBytes
		if v, err := askVersion(ctx, m.addr); v == newVersion {
			r.Updated++
		} else {
			f.problem("%s answers %q (%v) after the update, not %s", m.name, v, err, newVersion)
		}
		switch got := one.OriginBytes + one.PeerBytes; {
		case m.site:
			f.checkSite(m, one)
		case got < f.size:
			f.problem("%s accounts for %d bytes of a program of %d", m.name, got, f.size)
		}
		switch ended := u.Began.Add(time.Duration(u.Seconds * float64(time.Second))); {
		case i == 0:
			canary = ended
		case u.Began.Before(canary):
			f.problem("%s began its update %s before the canary had confirmed its own", m.name, canary.Sub(u.Began))
		}
	}
	r.Agents = len(f.machines)
	r.Copies = round(float64(r.OriginBytes)/float64(f.size), 3)
	online := len(f.online())
	whole := f.size * int64(online)
	to := ""
	if online < r.Agents {
		to = fmt.Sprintf(" to the %d it reaches,", online)
	}
	f.say("\n  %d of %d on %s in %.1f s.  The publisher sent %s MB%s instead of %s MB (%.0f %% saved).",
		r.Updated, r.Agents, newVersion, r.Seconds, megabytes(r.OriginBytes), to, megabytes(whole), 100*(1-float64(r.OriginBytes)/float64(whole)))
	return nil
}
