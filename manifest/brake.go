package manifest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"shoal/internal/fault"
)

// maxOnHold bounds the artifacts of one channel that are held by beacon; the oldest go.
const maxOnHold = 4096

// Freshness is what the channel's beacon says of the manifest that is held.
type Freshness string

// The freshness of a channel.
const (
	FreshCurrent Freshness = "current" // a fresh beacon names the trusted manifest
	FreshBehind  Freshness = "behind"  // it names a newer one
	FreshStale   Freshness = "stale"   // there is no fresh beacon
	FreshNone    Freshness = "none"    // the channel has no beacon role
)

// Brake is what the last beacon says in this cycle of the manifest that is held.
type Brake struct {
	Freshness Freshness
	Wave      int64     // the highest gated wave that may open; 0 unless Current
	Hold      bool      // start no install; false unless Current. See also Trust.OnHold
	Reason    string    // why
	Expires   time.Time // when the beacon ends; zero unless Current or Behind
}

// Gate returns the highest gated wave that may be open.
func (b Brake) Gate() int64 {
	if b.Freshness != FreshCurrent || b.Hold {
		return 0
	}
	return b.Wave
}

// Beacon takes what a source says is the beacon of a channel; nil means that it has
// none. Call it after Manifest. A bad or older beacon is an event and changes nothing:
// the one stored goes on speaking until it expires.
func (c *Cycle) Beacon(ch Channel, env []byte) (Freshness, []Event) {
	spec := c.t.spec(ch)
	if spec == nil || spec.Beacon == nil {
		return FreshNone, nil
	}
	var events []Event
	if env != nil {
		if err := c.takeBeacon(ch, env); err != nil {
			events = append(events, event("beacon "+ch.String(), err))
		}
	}
	events = append(events, c.settle(ch)...)
	return c.Brake(ch).Freshness, events
}

// takeBeacon checks a beacon and stores it.
func (c *Cycle) takeBeacon(ch Channel, env []byte) error {
	if err := c.underRoot(); err != nil {
		return err
	}
	t, doc := c.t, "beacon "+ch.String()
	e, err := parseEnvelope(env, TypeBeacon, doc)
	if err != nil {
		return err
	}
	l := t.line(ch)
	if l.beacon != nil && l.beacon.hash == e.PayloadHash() {
		return nil // the one that is stored
	}
	b, err := t.readBeacon(ch, env)
	if err != nil {
		return err
	}
	now, _ := c.Now(ch)
	switch issued := b.doc.Issued; {
	// Without a clock to trust nothing is ahead of it, and a hold must not be lost.
	case !t.o.TimeFloor && issued.After(now.Add(maxSkew)):
		return fault.New(fault.ClockSkew, "%s is issued at %s, more than a day after %s", doc, at(issued), at(now))
	case issued.Before(l.lastBeacon), issued.Equal(l.lastBeacon) && l.beacon != nil:
		return fault.New(fault.Rollback, "%s is issued at %s, not after the last one, %s", doc, at(issued), at(l.lastBeacon))
	case !now.Before(b.doc.Expires):
		return fault.New(fault.Expired, "%s ran out of date at %s", doc, at(b.doc.Expires))
	}
	if err := l.speaksOf(b.doc, doc); err != nil {
		return err
	}
	l.beacon, l.lastBeacon = b, b.doc.Issued
	t.lines[ch] = l
	return nil
}

// readBeacon checks what does not depend on the moment: signatures, fields, destination,
// epoch and validity.
func (t *Trust) readBeacon(ch Channel, env []byte) (*heldBeacon, error) {
	doc := "beacon " + ch.String()
	spec := t.spec(ch)
	if spec == nil || spec.Beacon == nil {
		return nil, fault.New(fault.ChannelGone, "root %d has no beacon for %s", t.root.Version, ch)
	}
	e, err := parseEnvelope(env, TypeBeacon, doc)
	if err != nil {
		return nil, err
	}
	if _, err := e.open(authority{roleOf(t.keys, *spec.Beacon), "beacon"}, doc); err != nil {
		return nil, err
	}
	b, err := parseBeacon(e.Payload, doc)
	if err != nil {
		return nil, err
	}
	if err := t.rightTarget(doc, ch, b.Repo, b.Name()); err != nil {
		return nil, err
	}
	if err := rightEpoch(doc, b.Epoch, spec); err != nil {
		return nil, err
	}
	if valid := b.Expires.Sub(b.Issued); valid > spec.StaleAfter {
		return nil, fault.New(fault.Policy, "%s is valid for %s, root allows %s", doc, formatDuration(valid), formatDuration(spec.StaleAfter))
	}
	return &heldBeacon{env: bytes.Clone(env), doc: b, hash: e.PayloadHash()}, nil
}

// speaksOf checks that a beacon says something of the trusted manifest or of a newer one.
func (l *line) speaksOf(b *Beacon, doc string) error {
	switch b.Order().Compare(l.floor) {
	case -1:
		return fault.New(fault.Rollback, "%s names %s, trusted is %s", doc, b.Order(), l.floor)
	case 0:
		if !l.floorHash.IsZero() && b.Manifest != l.floorHash {
			return fault.New(fault.Equivocation, "%s names payload %s as %s, trusted is %s", doc, b.Manifest, b.Order(), l.floorHash)
		}
		if l.held != nil && (b.Wave < 0 || b.Wave > waves(l.held.doc)) {
			return fault.New(fault.Policy, "%s opens wave %d of a plan of %d", doc, b.Wave, waves(l.held.doc))
		}
	}
	return nil
}

func waves(m *Manifest) int64 {
	if m.Rollout == nil {
		return 0
	}
	return int64(len(m.Rollout.Waves))
}

// named reports whether the stored beacon is about the manifest that is held.
func (l *line) named() bool {
	return l.beacon != nil && l.held != nil && l.beacon.doc.Order() == l.held.doc.Order() &&
		l.speaksOf(l.beacon.doc, "") == nil
}

// settle gives the stored beacon its effect on what is held now. It may have come
// before the manifest it names.
func (c *Cycle) settle(ch Channel) []Event {
	l := c.t.line(ch)
	l.seeHold()
	now, _ := c.Now(ch)
	if l.beacon == nil || !now.Before(l.beacon.doc.Expires) {
		return nil
	}
	if l.named() && !l.beacon.doc.Hold {
		l.endHold()
	}
	doc := "beacon " + ch.String()
	if err := l.speaksOf(l.beacon.doc, doc); fault.CodeOf(err) == fault.Equivocation {
		return []Event{event(doc, err)}
	}
	return nil
}

// seeHold makes the hold of a stored beacon outlive it. That it has expired since does
// not matter: a hold that was seen counts.
func (l *line) seeHold() {
	if !l.named() || !l.beacon.doc.Hold {
		return
	}
	for i := range l.held.doc.Artifacts {
		if d := l.held.doc.Artifacts[i].SHA256; !slices.Contains(l.onHold, d) {
			l.onHold = append(l.onHold, d)
		}
	}
	if over := len(l.onHold) - maxOnHold; over > 0 {
		l.onHold = slices.Delete(l.onHold, 0, over)
	}
}

// endHold takes back the holds on what is held: only a fresh beacon for a manifest that
// offers an artifact can.
func (l *line) endHold() {
	l.onHold = slices.DeleteFunc(l.onHold, func(d Digest) bool {
		return slices.ContainsFunc(l.held.doc.Artifacts, func(a Artifact) bool { return a.SHA256 == d })
	})
}

// Brake returns what the stored beacon says now.
func (c *Cycle) Brake(ch Channel) Brake {
	spec := c.t.spec(ch)
	if spec == nil || spec.Beacon == nil {
		return Brake{Freshness: FreshNone}
	}
	l := c.t.line(ch)
	now, _ := c.Now(ch)
	if l.beacon == nil || c.underRoot() != nil || !now.Before(l.beacon.doc.Expires) {
		return Brake{Freshness: FreshStale}
	}
	b := l.beacon.doc
	switch {
	case l.named():
		return Brake{FreshCurrent, b.Wave, b.Hold, b.Reason, b.Expires}
	case l.speaksOf(b, "") != nil:
		return Brake{Freshness: FreshStale}
	}
	return Brake{Freshness: FreshBehind, Expires: b.Expires}
}

// String returns one line for a status display.
func (b Brake) String() string {
	if b.Freshness != FreshCurrent {
		return string(b.Freshness)
	}
	if b.Hold {
		return fmt.Sprintf("hold (%s)", b.Reason)
	}
	return fmt.Sprintf("%s, wave %d", b.Freshness, b.Wave)
}
