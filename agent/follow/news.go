package follow

import (
	"context"
	"io"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm/gossip"
)

// News returns what is held of ch, for neighbours.
func (f *Follower) News(ch manifest.Channel) *gossip.Holding {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &gossip.Holding{}
	if f.trust == nil {
		return n
	}
	snap := f.trust.Snapshot()
	n.Roots, n.ManifestEnvelope, n.BeaconEnvelope = snap.Roots, snap.Manifests[ch], snap.Beacons[ch]
	n.Root = uint64(f.trust.RootVersion())
	if held, ok := f.trust.Held(ch); ok && n.ManifestEnvelope != nil {
		o := held.Manifest.Order()
		n.Order = gossip.Order{Epoch: uint64(o.Epoch), Sequence: uint64(o.Sequence)}
		n.Manifest, n.Size = held.Hash, uint32(len(n.ManifestEnvelope))
	}
	if b, ok := f.trust.LastBeacon(ch); ok && n.BeaconEnvelope != nil {
		n.Beacon = uint64(b.Issued.Unix())
	}
	return n
}

// Take verifies a document of ch that a neighbour gave, by the rules of a cycle, and
// stores it. The error is why it was not taken. It does not wait for sources, unless
// nothing is trusted yet or an operator allowed what has expired for the cycle under way.
func (f *Follower) Take(ctx context.Context, ch manifest.Channel, d gossip.Document) (*Report, error) {
	f.mu.Lock()
	if f.trust == nil || f.allowExpired {
		f.mu.Unlock()
		select {
		case f.cycling <- struct{}{}:
			defer func() { <-f.cycling }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	var from []*member
	if d.Name.Kind == gossip.Root && d.Name.Number == 1 {
		from = []*member{{Source: handed{d}}}
	}
	if err := f.load(ctx, from); err != nil {
		return nil, err
	}
	r := &Report{Events: f.events}
	f.events = nil
	var err error
	switch d.Name.Kind {
	case gossip.Root:
		err = f.takeRoot(r, d)
	case gossip.Manifest:
		err = f.takeManifest(r, ch, d)
	case gossip.Beacon:
		err = f.takeBeacon(r, ch, d)
	}
	r.RootVersion = f.rootVersion()
	return r, err
}

func (f *Follower) takeRoot(r *Report, d gossip.Document) error {
	if d.Name.Number <= uint64(f.trust.RootVersion()) {
		return nil // loading took it, or a source was quicker
	}
	events, err := f.trust.UpdateRoot(d.Body)
	r.Events = append(r.Events, events...)
	if err != nil {
		return err
	}
	if err := f.save(); err != nil {
		return err
	}
	f.c.Logger.Info("root accepted", "root", f.trust.RootVersion(), "peer", d.From)
	return nil
}

func (f *Follower) takeManifest(r *Report, ch manifest.Channel, d gossip.Document) error {
	env, err := manifest.ParseEnvelope(d.Body, manifest.TypeManifest)
	if err != nil {
		return err
	}
	if env.PayloadHash() != d.SHA256 {
		return fault.New(fault.ContentMismatch, "manifest %s has the hash %s, announced was %s", ch, env.PayloadHash(), manifest.Digest(d.SHA256))
	}
	cycle, err := f.trust.Begin()
	if err != nil {
		return err
	}
	v, events, err := cycle.Manifest(ch, d.Body)
	r.Events = append(r.Events, events...)
	if err == nil && v.Same {
		err = fault.New(fault.Same, "manifest %s is known", ch)
	}
	if err != nil {
		if m, perr := manifest.ReadManifestDraft(env.Payload); perr == nil && !named(d.Name, m.Order()) {
			// Else one old manifest could be announced again and again as a new one.
			err = fault.New(fault.ContentMismatch, "manifest %s is %s, announced was %d.%d", ch, m.Order(), d.Name.Epoch, d.Name.Number)
		}
		return err
	}
	freshness, events := cycle.Beacon(ch, nil)
	r.Events = append(r.Events, events...)
	r.Outcomes = []Outcome{{Channel: ch, Verified: v, New: true, Freshness: freshness}}
	if err := f.save(); err != nil {
		return err
	}
	f.c.Logger.Info("manifest accepted", "channel", ch, "version", v.Manifest.Release.Version,
		"sequence", v.Manifest.Sequence, "peer", d.From)
	return nil
}

func named(n gossip.Name, o manifest.Order) bool {
	return n.Epoch == uint64(o.Epoch) && n.Number == uint64(o.Sequence)
}

func (f *Follower) takeBeacon(r *Report, ch manifest.Channel, d gossip.Document) error {
	cycle, err := f.trust.Begin()
	if err != nil {
		return err
	}
	before, _ := f.trust.LastBeacon(ch)
	freshness, events := cycle.Beacon(ch, d.Body)
	after, ok := f.trust.LastBeacon(ch)
	switch {
	case ok && after.Issued.After(before.Issued):
	case len(events) > 0:
		return fault.New(events[0].Code, "%s", events[0].Detail)
	default:
		return fault.New(fault.ContentMismatch, "the beacon of %s is not the one that was announced", ch)
	}
	r.Events = append(r.Events, events...)
	held, _ := f.trust.Held(ch)
	r.Outcomes = []Outcome{{Channel: ch, Verified: held, Freshness: freshness}}
	return f.save()
}

// handed is a source of one root.
type handed struct{ d gossip.Document }

func (h handed) Name() string { return "neighbour " + h.d.From }

func (h handed) Document(context.Context, string, int64) ([]byte, error) { return h.d.Body, nil }

func (h handed) Data(context.Context, string, int64) (io.ReadCloser, int64, error) {
	return nil, 0, fault.New(fault.NotFound, "a neighbour's document is no source of data")
}
