package follow

import (
	"context"
	"time"

	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Load reads the stored state and verifies all of it again. It asks no source: when
// the first root is not here, the code is unreachable and the first cycle goes on.
func (f *Follower) Load(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.load(ctx, nil)
}

func (f *Follower) load(ctx context.Context, live []*member) error {
	if f.trust != nil {
		return nil
	}
	m, err := f.c.Store.Read()
	if err != nil {
		return err
	}
	pin := f.pin(m)
	if !m.Known {
		return f.rebuild(ctx, m, pin, live)
	}
	repo := manifest.Digest(m.Snapshot.State.Repo)
	if pin != nil && manifest.Digest(pin.Repo) != repo {
		return PinMismatch(manifest.Digest(pin.Repo), repo, f.c.Store.Dir())
	}
	one, err := f.rootOne(ctx, repo, m.Snapshot.Roots, pin, live)
	switch fault.CodeOf(err) {
	case fault.NotFound, fault.PinMismatch:
		return fault.New(fault.RootBehind, "the stored first root is damaged, and no source has it: %w", err).
			Line("Nothing is installed until it is here again; what is installed keeps running.").
			Do("check the sources, or shoal agent join LINK again")
	}
	if err != nil {
		return err
	}
	if len(m.Snapshot.Roots) == 0 {
		m.Snapshot.Roots = [][]byte{nil}
	}
	m.Snapshot.Roots[0] = one
	trust, events, err := manifest.Load(m.Snapshot, f.options(pin))
	if err != nil {
		return err
	}
	f.trust, f.local = trust, m.Local
	f.events = append(m.Events, events...)
	if !f.local.LostAt.IsZero() {
		f.events = append(f.events, lostEvent)
	}
	for _, e := range f.events {
		f.c.Logger.Warn("state", "code", e.Code, "document", e.Doc, "detail", e.Detail)
	}
	if m.Repaired {
		return f.save()
	}
	return nil
}

var lostEvent = manifest.Event{Code: fault.StateLost, Doc: "state.json",
	Detail: "state and anchor were gone; what is trusted was built again from the pin, and an operator has not acknowledged it"}

// PinMismatch is the error of a place that holds another fleet than the pinned one.
func PinMismatch(pin, found manifest.Digest, where string) error {
	return fault.New(fault.PinMismatch, "%s belongs to another fleet", where).
		Line("Pinned: %s", pin.Prefixed()).
		Line("Found:  %s", found.Prefixed()).
		Line("Nothing was changed.").
		Do("shoal agent leave, and join again, if the machine really moves to the other fleet").
		Fact("pin", pin.Prefixed()).Fact("found", found.Prefixed())
}

// rebuild makes a state from the pin alone, and from what the lost one left behind.
func (f *Follower) rebuild(ctx context.Context, m *state.Memory, pin *state.Pin, live []*member) error {
	if pin == nil {
		return StateLost(f.c.Store.Dir(), ", and so is the pin").
			Line("Nothing was written.").
			Do("shoal agent join LINK, or shoal agent init --root FILE for a checker")
	}
	one, err := f.rootOne(ctx, manifest.Digest(pin.Repo), m.Snapshot.Roots, pin, live)
	if err != nil {
		return err
	}
	snap := m.Snapshot
	snap.State = manifest.State{Repo: pin.Repo, Channels: map[manifest.Channel]manifest.ChannelState{}}
	if len(snap.Roots) == 0 {
		snap.Roots = [][]byte{nil}
	}
	snap.Roots[0] = one
	for _, ch := range f.c.Channels {
		if f.c.Floor == nil {
			break
		}
		if least := f.c.Floor(ch); least != (manifest.Order{}) {
			snap.State.Channels[ch] = manifest.ChannelState{Epoch: least.Epoch, Sequence: least.Sequence}
		}
	}
	// What verifies says how far the past went, out of date or not.
	trust, _, err := manifest.Load(snap, f.options(pin))
	if err != nil {
		return err
	}
	f.trust, f.local = trust, state.Local{Checker: m.Local.Checker}
	if m.Used {
		f.local.LostAt = f.c.Options.Clock().UTC().Truncate(time.Second)
		f.events = append(f.events, lostEvent)
		f.c.Logger.Error("state lost and built again from the pin", "root", trust.RootVersion())
	}
	return f.save()
}
