package manifest

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"shoal/internal/fault"
	"shoal/keys"
)

// maxSkew is how far ahead of the clock a document may be dated before it is remarked.
const maxSkew = 24 * time.Hour

// Cycle is one round of checks with one reading of the clock: roots first, by
// [Trust.UpdateRoot], then Begin, then the manifest, then the beacon.
type Cycle struct {
	t     *Trust
	clock time.Time // the machine's, read once
	root  int64     // the root version that was in force when it was last checked
}

// Verified is a manifest that passed every check.
type Verified struct {
	Manifest *Manifest
	Hash     Digest    // of the payload
	SignedBy []keys.ID // the keys of the release role that signed
	Same     bool      // it was held, or at least known by its hash, before
}

func (h *held) verified(same bool) *Verified {
	doc := "manifest " + h.doc.Name().String()
	w, m, err := parseManifest(h.payload, doc)
	if err == nil {
		err = w.readDates(m, doc)
	}
	if err == nil {
		err = w.readRest(m, doc)
	}
	if err != nil {
		return nil // never: these bytes were read before
	}
	return &Verified{Manifest: m, Hash: h.hash, SignedBy: slices.Clone(h.signedBy), Same: same}
}

// Begin reads the clock and returns a Cycle, if there is a root to act under. Codes:
// root_behind, when it is older than Options.MinRoot or than one trusted before;
// root_expired.
func (t *Trust) Begin() (*Cycle, error) {
	c := &Cycle{t: t, clock: t.o.Clock().UTC().Round(0)}
	return c, c.underRoot()
}

// underRoot checks once per root that documents may be held against it.
func (c *Cycle) underRoot() error {
	t := c.t
	if c.root == t.root.Version {
		return nil
	}
	if want := max(t.o.MinRoot, t.known.version); t.root.Version < want {
		return fault.New(fault.RootBehind, "root %d is older than root %d, which this machine has trusted or was told to ask for", t.root.Version, want).
			Line("Nothing is installed until the roots in between are here; what is installed keeps running.").
			Do("get root %d and what follows from any source", t.root.Version+1).
			Fact("want", want).Fact("found", t.root.Version)
	}
	if now := c.time(t.buildFloor()); !now.Before(t.root.Expires) {
		return fault.New(fault.RootExpired, "root %d ran out of date at %s", t.root.Version, at(t.root.Expires)).
			Line("The time is taken as %s; this machine's clock says %s.", at(now), at(c.clock)).
			Line("Nothing is installed until there is a newer root; what is installed keeps running.").
			Do("root keepers: shoal trust draft --from the last root, with a later expiry, and publish it").
			Fact("expires", at(t.root.Expires)).Fact("now", at(now))
	}
	c.root = t.root.Version
	return nil
}

// time is the moment that expiry is held against: a clock that is behind what trusted
// documents say is overruled by them.
func (c *Cycle) time(floor time.Time) time.Time {
	if c.t.o.TimeFloor {
		return floor
	}
	return later(c.clock, floor)
}

// Now returns the moment that a channel's documents are held against in this cycle, and
// whether the machine's clock is behind it.
func (c *Cycle) Now(ch Channel) (now time.Time, clockBehind bool) {
	floor := c.t.floor(ch, nil)
	return c.time(floor), !c.t.o.TimeFloor && c.clock.Before(floor)
}

// candidate is a manifest that is signed for its channel, on the way to being trusted.
type candidate struct {
	held
	wire *wireManifest
	spec *ChannelSpec
	name string // what it is called in messages
}

// Manifest takes what a source says is the manifest of a channel. What is returned is
// trusted, also when nothing in it fits this machine: the caller stores the envelope,
// then the State. Same is set when it was known before; expired is expired all the
// same. After an error nothing has changed; events may say why. A nil env means that the
// source has none, which is not_found. Other codes: those of an envelope, channel_gone,
// wrong_target, rollback, equivocation, root_behind, expired, policy, agent_too_old,
// unsafe_path, root_expired.
func (c *Cycle) Manifest(ch Channel, env []byte) (*Verified, []Event, error) {
	if err := c.underRoot(); err != nil {
		return nil, nil, err
	}
	cand, events, err := c.check(ch, env)
	if err != nil {
		return nil, events, refusal(err, ch)
	}
	l := c.t.line(ch)
	same := l.floor == cand.doc.Order() && l.floorHash == cand.hash
	if l.held == nil || l.held.hash != cand.hash {
		c.t.accept(ch, cand)
		c.settle(ch)
	}
	return c.t.lines[ch].held.verified(same), events, nil
}

// check is everything that a manifest must pass before it is trusted.
func (c *Cycle) check(ch Channel, env []byte) (*candidate, []Event, error) {
	t := c.t
	cand, err := t.readManifest(ch, env)
	if err != nil {
		return nil, nil, err
	}
	if err := t.inOrder(ch, cand); err != nil {
		return nil, nil, err
	}
	if err := cand.datesAllowed(); err != nil {
		return nil, nil, err
	}
	floor := t.floor(ch, cand.doc)
	events := c.clockEvents(cand, floor)
	if err := c.unexpired(cand, floor); err != nil {
		return nil, events, err
	}
	warning, err := t.understands(cand)
	if err != nil {
		return nil, events, err
	}
	if warning != "" {
		events = append(events, Event{fault.AgentTooOld, cand.name, warning})
	}
	if err := cand.wire.readRest(cand.doc, cand.name); err != nil {
		return nil, events, err
	}
	return cand, events, nil
}

// clockEvents tells where this machine's clock and signed dates differ.
func (c *Cycle) clockEvents(cand *candidate, floor time.Time) (events []Event) {
	if c.t.o.TimeFloor {
		return nil
	}
	if c.clock.Before(floor) {
		events = append(events, Event{fault.ClockBehind, cand.name,
			fmt.Sprintf("this machine's clock says %s; it is %s at least, by documents that are trusted", at(c.clock), at(floor))})
	}
	if cand.doc.Issued.After(c.clock.Add(maxSkew)) {
		events = append(events, Event{fault.ClockSkew, cand.name,
			fmt.Sprintf("issued at %s, more than a day after this machine's clock, %s", at(cand.doc.Issued), at(c.clock))})
	}
	return events
}

// openManifest opens a manifest that was trusted before: every check but its order and
// its expiry, which only say something at the moment a manifest is offered.
func (t *Trust) openManifest(ch Channel, env []byte) (*candidate, error) {
	cand, err := t.readManifest(ch, env)
	if err != nil {
		return nil, err
	}
	if err := cand.datesAllowed(); err != nil {
		return nil, err
	}
	if _, err := t.understands(cand); err != nil {
		return nil, err
	}
	if err := cand.wire.readRest(cand.doc, cand.name); err != nil {
		return nil, err
	}
	return cand, nil
}

// readManifest checks signatures, shape, destination and epoch.
func (t *Trust) readManifest(ch Channel, env []byte) (*candidate, error) {
	name := "manifest " + ch.String()
	spec := t.spec(ch)
	if spec == nil {
		return nil, fault.New(fault.ChannelGone, "root %d has no channel %s", t.root.Version, ch).Fact("root_version", t.root.Version)
	}
	if env == nil {
		return nil, fault.New(fault.NotFound, "the source has no %s", name)
	}
	e, err := parseEnvelope(env, TypeManifest, name)
	if err != nil {
		return nil, err
	}
	signed, err := e.open(authority{roleOf(t.keys, spec.Release), "release"}, name)
	if err != nil {
		return nil, err
	}
	w, m, err := parseManifest(e.Payload, name)
	if err != nil {
		return nil, err
	}
	name = fmt.Sprintf("%s #%d", name, m.Sequence)
	if err := t.rightTarget(name, ch, m.Repo, m.Name()); err != nil {
		return nil, err
	}
	if err := rightEpoch(name, m.Epoch, spec); err != nil {
		return nil, err
	}
	return &candidate{
		held: held{env: bytes.Clone(env), payload: e.Payload, doc: m, hash: e.PayloadHash(), signedBy: signed},
		wire: w, spec: spec, name: name,
	}, nil
}

func (t *Trust) rightTarget(doc string, ch Channel, repo Digest, is Channel) error {
	if repo != t.repo {
		return fault.New(fault.WrongTarget, "%s is for the fleet %s, this is %s", doc, repo.Prefixed(), t.repo.Prefixed()).
			Fact("want", t.repo.Prefixed()).Fact("found", repo.Prefixed())
	}
	if is != ch {
		return fault.New(fault.WrongTarget, "%s is for the channel %q", doc, clip(is.String())).
			Fact("want", ch.String()).Fact("found", clip(is.String()))
	}
	return nil
}

func rightEpoch(doc string, epoch int64, spec *ChannelSpec) error {
	switch {
	case epoch < spec.Epoch:
		return fault.New(fault.Rollback, "%s is of epoch %d, which root has ended: the channel is in epoch %d", doc, epoch, spec.Epoch).
			Fact("want", spec.Epoch).Fact("found", epoch)
	case epoch > spec.Epoch:
		return fault.New(fault.RootBehind, "%s is of epoch %d, the trusted root has the channel in epoch %d", doc, epoch, spec.Epoch).
			Fact("want", epoch).Fact("found", spec.Epoch)
	}
	return nil
}

// inOrder holds a manifest against the highest one accepted and the floor the machine
// was told.
func (t *Trust) inOrder(ch Channel, cand *candidate) error {
	l := t.line(ch)
	floor, hash := l.floor, l.floorHash
	if least := t.o.MinSequence[ch]; least.Compare(floor) > 0 {
		floor, hash = least, Digest{}
	}
	is := cand.doc.Order()
	if floor.Epoch > cand.spec.Epoch {
		return fault.New(fault.RootBehind, "%s: at least %s is wanted, and the trusted root has the channel in epoch %d", cand.name, floor, cand.spec.Epoch).
			Fact("want", floor.String()).Fact("found", is.String())
	}
	switch is.Compare(floor) {
	case -1:
		return fault.New(fault.Rollback, "%s is older than what is trusted: it is %s, trusted is %s", cand.name, is, floor).
			Fact("want", floor.String()).Fact("found", is.String())
	case 0:
		if !hash.IsZero() && hash != cand.hash {
			return fault.New(fault.Equivocation, "%s has the number of the trusted manifest and other content", cand.name).
				Line("Trusted is payload %s, offered is %s.", hash, cand.hash).
				Fact("want", hash.String()).Fact("found", cand.hash.String())
		}
	}
	return nil
}

// datesAllowed reads the dates and checks them against what root allows.
func (cand *candidate) datesAllowed() error {
	if err := cand.wire.readDates(cand.doc, cand.name); err != nil {
		return err
	}
	m := cand.doc
	// time.Sub saturates at 292 years, so a longer validity is never taken for a shorter.
	if valid := m.Expires.Sub(m.Issued); valid > cand.spec.MaxValidity {
		return fault.New(fault.Policy, "%s is valid for %s, root allows %s", cand.name, formatDuration(valid), formatDuration(cand.spec.MaxValidity)).
			Fact("want", formatDuration(cand.spec.MaxValidity)).Fact("found", formatDuration(valid))
	}
	return nil
}

func (c *Cycle) unexpired(cand *candidate, floor time.Time) error {
	now := c.time(floor)
	if c.t.o.AllowExpired || now.Before(cand.doc.Expires) {
		return nil
	}
	return fault.New(fault.Expired, "%s ran out of date at %s", cand.name, at(cand.doc.Expires)).
		Line("The time is taken as %s; this machine's clock says %s.", at(now), at(c.clock)).
		Fact("expires", at(cand.doc.Expires)).Fact("now", at(now))
}

// understands checks that this build knows every member the publisher calls critical
// and is not older than the manifest asks for. A build without a version passes, with a
// warning.
func (t *Trust) understands(cand *candidate) (warning string, err error) {
	for _, path := range cand.wire.Critical {
		if !knows(reflect.TypeFor[wireManifest](), path) {
			return "", fault.New(fault.AgentTooOld, "%s needs an agent that understands %q", cand.name, clip(path)).
				Fact("critical", clip(path)).Fact("found", t.o.AgentVersion)
		}
	}
	if cand.wire.MinAgent == nil {
		return "", nil
	}
	least, err := semver.StrictNewVersion(*cand.wire.MinAgent)
	if err != nil {
		return "", fault.New(fault.Malformed, "%s: min_agent is %q, a semantic version is wanted", cand.name, clip(*cand.wire.MinAgent))
	}
	is, err := semver.StrictNewVersion(strings.TrimPrefix(t.o.AgentVersion, "v"))
	if err != nil || is.String() == "0.0.0-dev" {
		return fmt.Sprintf("asks for agent %s; this build has no version and is let pass", least), nil
	}
	if is.LessThan(least) {
		return "", fault.New(fault.AgentTooOld, "%s needs agent %s or later, this is %s", cand.name, least, is).
			Fact("want", least.String()).Fact("found", is.String())
	}
	return "", nil
}

// accept makes a manifest the trusted one of its channel.
func (t *Trust) accept(ch Channel, cand *candidate) {
	l := t.line(ch)
	l.held, l.lost = &cand.held, nil
	l.floor, l.floorHash = cand.doc.Order(), cand.hash
	t.lines[ch] = l
}

// Authorize asks again, right before a file is replaced, whether an artifact may run:
// for the manifest that is trusted by now, which may be another than the one it was
// chosen from. Codes: blocked; no_artifact when the trusted release does not have it;
// expired; and whatever took the trusted manifest away.
func (c *Cycle) Authorize(ch Channel, artifact Digest) error {
	if err := c.underRoot(); err != nil {
		return err
	}
	return refusal(c.authorize(ch, artifact), ch)
}

func (c *Cycle) authorize(ch Channel, artifact Digest) error {
	t := c.t
	l := t.line(ch)
	switch {
	case t.spec(ch) == nil:
		return fault.New(fault.ChannelGone, "root %d has no channel %s", t.root.Version, ch).Fact("root_version", t.root.Version)
	case l.held == nil && l.lost != nil:
		return fault.New(fault.CodeOf(l.lost), "the manifest of %s is not trusted any more: %w", ch, l.lost)
	case l.held == nil:
		return fault.New(fault.NotFound, "there is no trusted manifest of %s", ch)
	}
	// The stored bytes are opened again by the code that first accepted them.
	cand, _, err := c.check(ch, l.held.env)
	if err != nil {
		return err
	}
	if err := blocked(cand.doc, artifact); err != nil {
		return err
	}
	for i := range cand.doc.Artifacts {
		if cand.doc.Artifacts[i].SHA256 == artifact {
			return nil
		}
	}
	return fault.New(fault.NoArtifact, "%s does not offer %s", cand.name, artifact).Fact("sha256", artifact.String())
}

func blocked(m *Manifest, artifact Digest) error {
	b, is := m.Blocks(artifact)
	if !is {
		return nil
	}
	why := ""
	if b.Reason != "" {
		why = ": " + b.Reason
	}
	return fault.New(fault.Blocked, "the publisher has blocked %s%s", artifact, why).
		Fact("sha256", artifact.String()).Fact("reason", b.Reason)
}

// Select returns the one artifact for a platform. Codes: no_artifact, ambiguous_artifact,
// blocked.
func (v *Verified) Select(p Platform) (*Artifact, error) {
	m := v.Manifest
	var found *Artifact
	var have []string
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		have = append(have, a.Platform().String())
		if a.Platform() != p {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.AmbiguousArtifact, "%s %s has two builds for %s: %q and %q", m.App, m.Release.Version, p, found.Name, a.Name).
				Line("Nothing was changed; what is installed keeps running.").
				Do("publisher: one artifact a platform; variants have names")
		}
		found = a
	}
	if found == nil {
		return nil, fault.New(fault.NoArtifact, "%s %s has no build for %s", m.App, m.Release.Version, p).
			Line("It was published for %s.", strings.Join(have, ", ")).
			Line("The release is trusted; it is not tried again until there is another.").
			Do("publisher: publish the app for %s", p).
			Fact("want", p.String()).Fact("have", have)
	}
	if err := blocked(m, found.SHA256); err != nil {
		return nil, refusal(err, m.Name())
	}
	return found, nil
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
