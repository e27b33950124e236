package manifest

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
)

// MaxRootsPerCycle is how many roots an agent takes in one cycle before it goes on with
// what it has.
const MaxRootsPerCycle = 1024

// Clock returns the machine's time.
type Clock func() time.Time

// Options are a machine's own settings. The zero value is the strict one.
type Options struct {
	// Clock returns the system time; nil means time.Now. A checker that is told what
	// time it is sets this and leaves Build zero.
	Clock Clock
	// Build is when this program was built: it was never earlier than that. Zero means
	// not known.
	Build time.Time
	// TimeFloor says that there is no clock to trust: expiry is held against trusted
	// documents only, and a freeze cannot be noticed.
	TimeFloor bool
	// MinRoot is the least root version to act on.
	MinRoot int64
	// MinSequence is the least order of a channel's manifest, so that a newcomer cannot
	// be given a past before a compromise.
	MinSequence map[Channel]Order
	// AgentVersion is this program's semantic version. Empty, unreadable and 0.0.0-dev
	// mean an unstamped build, which every min_agent lets pass, with an event.
	AgentVersion string
	// AllowExpired takes an expired manifest as if it were not, and nothing else. It is
	// for one cycle, by the person at the machine.
	AllowExpired bool
	// TOFU is recorded in State: the pin came from the first root that was seen.
	TOFU bool
}

// Event is something an operator should know of that ended nothing.
type Event struct {
	Code   fault.Code `json:"code"`
	Doc    string     `json:"doc"`    // "manifest acme/stable", "root 2"
	Detail string     `json:"detail"` // one line
}

// Trust is what one machine trusts of one fleet: a chain of roots and, per channel, the
// highest manifest and the last beacon. It does no I/O and is not safe for concurrent
// use. What it returns are copies.
type Trust struct {
	o    Options
	repo Digest
	tofu bool

	chain [][]byte // chain[i] is the envelope of root i+1
	root  *Root    // the last of the chain
	hash  Digest   // of its payload
	known mark     // the highest root that State has recorded, reached or not
	keys  map[keys.ID]keys.PublicKey

	lastEpochs  map[Channel]int64 // of the channels root has dropped
	epochFloors map[Channel]int64 // lastEpochs as State has recorded them
	lines       map[Channel]*line
}

// mark is a root version and the hash of its payload; zero for a hash not known.
type mark struct {
	version int64
	hash    Digest
}

// line is one channel as this machine has seen it.
type line struct {
	floor     Order  // the highest order accepted; it never falls
	floorHash Digest // payload of the manifest there; zero when not known

	held *held // nil: nothing that verifies
	lost error // why a manifest that was held is not any more

	beacon     *heldBeacon // the last one accepted
	lastBeacon time.Time   // its issued; outlives it
	onHold     []Digest    // artifacts held by beacon; outlives it too
}

type held struct {
	env      []byte
	payload  []byte
	doc      *Manifest
	hash     Digest
	signedBy []keys.ID
}

type heldBeacon struct {
	env  []byte
	doc  *Beacon
	hash Digest
}

// Pin begins to trust the fleet whose first root has the payload hash pin. Codes:
// pin_mismatch, and those of a bad root.
func Pin(rootV1 []byte, pin Digest, o Options) (*Trust, []Event, error) {
	t, err := pinned(rootV1, pin, o)
	return t, nil, err
}

func pinned(rootV1 []byte, pin Digest, o Options) (*Trust, error) {
	const doc = "root 1"
	e, err := parseEnvelope(rootV1, TypeRoot, doc)
	if err != nil {
		return nil, rootRefusal(err)
	}
	if got := e.PayloadHash(); got != pin {
		return nil, fault.New(fault.PinMismatch, "this root is of another fleet").
			Line("The pinned fleet id is %s, the hash of this root is %s.", pin.Prefixed(), got.Prefixed()).
			Line("Nothing was changed.").
			Do("compare the fleet id with the one the publisher gave you: shoal trust show FILE").
			Fact("want", pin.Prefixed()).Fact("found", got.Prefixed())
	}
	t := newTrust(pin, o)
	r, parsed, err := t.readRoot(e, doc)
	if err != nil {
		return nil, rootRefusal(err)
	}
	if r.Version != 1 || r.ID != nil || r.Prev != nil {
		return nil, rootRefusal(fault.New(fault.RootChain, "the pinned root is not a first one: it must have version 1, and neither id nor prev").
			Fact("found", r.Version))
	}
	t.follow(r, parsed, e.PayloadHash(), rootV1)
	return t, nil
}

// newTrust trusts nothing yet of the fleet repo.
func newTrust(repo Digest, o Options) *Trust {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.MinSequence = maps.Clone(o.MinSequence)
	return &Trust{
		o: o, repo: repo, tofu: o.TOFU,
		lastEpochs: map[Channel]int64{}, epochFloors: map[Channel]int64{}, lines: map[Channel]*line{},
	}
}

// readRoot reads what a root is by itself: fields, keys, structure, own signatures.
func (t *Trust) readRoot(e *Envelope, doc string) (*Root, map[keys.ID]keys.PublicKey, error) {
	r, err := parseRoot(e.Payload, doc)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := r.checkKeys(doc)
	if err != nil {
		return nil, nil, err
	}
	if err := r.checkStructure(doc, func(ch Channel) int64 { return t.lastEpoch(ch, r.Version) }); err != nil {
		return nil, nil, err
	}
	if _, err := e.open(authority{roleOf(parsed, r.Root), "new root"}, doc); err != nil {
		return nil, nil, err
	}
	return r, parsed, nil
}

// lastEpoch is the last epoch known of a channel, for a root of that version: a chain
// that is being fetched again may lag behind what State has recorded.
func (t *Trust) lastEpoch(ch Channel, version int64) int64 {
	last := t.lastEpochs[ch]
	if version >= t.known.version {
		last = max(last, t.epochFloors[ch])
	}
	if t.root != nil {
		if spec, ok := t.root.Channel(ch); ok {
			last = max(last, spec.Epoch)
		}
	}
	return last
}

func roleOf(parsed map[keys.ID]keys.PublicKey, s RoleSpec) keys.Role {
	r := keys.Role{Threshold: s.Threshold}
	for _, id := range s.KeyIDs {
		r.Keys = append(r.Keys, parsed[id])
	}
	return r
}

// UpdateRoot takes the root that follows the trusted one: exactly the next version,
// signed by the trusted root role and by its own. Whether a root has expired is asked in
// Begin, since those in the middle of a chain may have. A root that is taken stays taken
// whatever fails later, and the caller stores it before it goes on. The events tell what
// the new root ended. Codes: those of an envelope, bad_key, root_chain, policy.
func (t *Trust) UpdateRoot(env []byte) ([]Event, error) {
	doc := rootDoc(t.root.Version + 1)
	e, err := parseEnvelope(env, TypeRoot, doc)
	if err != nil {
		return nil, rootRefusal(err)
	}
	if _, err := e.open(authority{roleOf(t.keys, t.root.Root), "trusted root"}, doc); err != nil {
		return nil, rootRefusal(err)
	}
	r, parsed, err := t.readRoot(e, doc)
	if err != nil {
		return nil, rootRefusal(err)
	}
	hash := e.PayloadHash()
	if err := t.checkChain(r, hash); err != nil {
		return nil, rootRefusal(err)
	}
	return t.follow(r, parsed, hash, env), nil
}

// checkChain checks that r is the one root that can come next.
func (t *Trust) checkChain(r *Root, hash Digest) error {
	if want := t.root.Version + 1; r.Version != want {
		return fault.New(fault.RootChain, "this is root %d, the one that follows the trusted root is %d", r.Version, want).
			Fact("want", want).Fact("found", r.Version)
	}
	if r.ID == nil || *r.ID != t.repo {
		return fault.New(fault.RootChain, "root %d is of another fleet: its id is not %s", r.Version, t.repo.Prefixed()).
			Fact("want", t.repo.Prefixed())
	}
	if r.Prev == nil || *r.Prev != t.hash {
		return fault.New(fault.RootChain, "root %d does not follow the trusted root %d: its prev is not %s", r.Version, t.root.Version, t.hash.Prefixed()).
			Fact("want", t.hash.Prefixed())
	}
	if r.Version == t.known.version && !t.known.hash.IsZero() && hash != t.known.hash {
		return fault.New(fault.RootChain, "root %d is not the one this machine has trusted before", r.Version).
			Line("Trusted before: payload %s. Offered: %s. The root keys have signed two roots with one number.", t.known.hash, hash).
			Fact("want", t.known.hash.String()).Fact("found", hash.String())
	}
	return nil
}

// follow makes r the trusted root and holds everything that is known against it.
func (t *Trust) follow(r *Root, parsed map[keys.ID]keys.PublicKey, hash Digest, env []byte) []Event {
	old := t.root
	t.chain = append(t.chain, bytes.Clone(env))
	t.root, t.keys, t.hash = r, parsed, hash
	// What State has recorded was recorded under the known root: on the way back to it
	// the roots in between have had their effect already.
	fresh := r.Version > t.known.version
	if r.Version >= t.known.version {
		t.known = mark{r.Version, hash}
	}
	if old != nil {
		for i := range old.Channels {
			if c := &old.Channels[i]; t.spec(c.Name()) == nil {
				t.lastEpochs[c.Name()] = c.Epoch
			}
		}
	}
	for i := range r.Channels {
		delete(t.lastEpochs, r.Channels[i].Name())
	}
	var events []Event
	for _, ch := range t.followed() {
		if fresh && old != nil {
			was, _ := old.Channel(ch)
			t.lines[ch].turn(was, t.spec(ch))
		}
		events = append(events, t.recheck(ch)...)
	}
	return events
}

// turn carries what a beacon has said from one root to the next.
func (l *line) turn(was, is *ChannelSpec) {
	switch {
	case is == nil || is.Beacon == nil:
		l.beacon, l.lastBeacon, l.onHold = nil, time.Time{}, nil
	case was == nil || was.Epoch != is.Epoch || !sameRole(was.Beacon, is.Beacon):
		l.beacon, l.lastBeacon = nil, time.Time{} // a hold already seen stays
	}
}

// recheck opens again what is held of a channel. What no longer verifies is neither
// installed nor served from now on; its order stays as floor.
func (t *Trust) recheck(ch Channel) []Event {
	var events []Event
	l := t.lines[ch]
	if l.held != nil {
		if cand, err := t.openManifest(ch, l.held.env); err != nil {
			l.held, l.lost = nil, err
			events = append(events, dropped("manifest "+ch.String(), err))
		} else {
			l.held = &cand.held // signed by those whose keys still count
		}
	}
	if l.beacon != nil {
		if _, err := t.readBeacon(ch, l.beacon.env); err != nil {
			l.beacon = nil
			events = append(events, dropped("beacon "+ch.String(), err))
		}
	}
	return events
}

func dropped(doc string, err error) Event {
	return Event{fault.CodeOf(err), doc, "no longer trusted: " + err.Error()}
}

func event(doc string, err error) Event { return Event{fault.CodeOf(err), doc, err.Error()} }

// spec returns what the trusted root says of a channel, or nil.
func (t *Trust) spec(ch Channel) *ChannelSpec {
	c, _ := t.root.Channel(ch)
	return c
}

// line returns the record of a channel, or an empty one that is not kept yet.
func (t *Trust) line(ch Channel) *line {
	if l := t.lines[ch]; l != nil {
		return l
	}
	return new(line)
}

// followed returns the channels that have a record, in a fixed order.
func (t *Trust) followed() []Channel {
	return slices.SortedFunc(maps.Keys(t.lines), compareChannels)
}

// Repo returns the fleet id.
func (t *Trust) Repo() Digest { return t.repo }

// RootVersion returns the version of the trusted root.
func (t *Trust) RootVersion() int64 { return t.root.Version }

// Root returns the trusted root.
func (t *Trust) Root() *Root {
	e, err := ParseEnvelope(t.chain[len(t.chain)-1], TypeRoot)
	if err != nil {
		return nil // never: it was parsed when it was taken
	}
	r, _ := parseRoot(e.Payload, "root")
	return r
}

// Held returns the trusted manifest of a channel, which verifies under the trusted root
// and may have expired. Its Same is set.
func (t *Trust) Held(ch Channel) (*Verified, bool) {
	l := t.line(ch)
	if l.held == nil {
		return nil, false
	}
	return l.held.verified(true), true
}

// Order returns the highest order accepted in a channel, which only rises; zero when
// there was none. News of anything lower is no news.
func (t *Trust) Order(ch Channel) Order { return t.line(ch).floor }

// OnHold reports whether a beacon has said to start no install of an artifact and none
// has taken that back. It outlives the beacon and the manifest it came with.
func (t *Trust) OnHold(ch Channel, artifact Digest) bool {
	return slices.Contains(t.line(ch).onHold, artifact)
}

// LastBeacon returns the last beacon accepted in a channel, which may have expired.
// What it means now is for [Cycle.Brake] to say.
func (t *Trust) LastBeacon(ch Channel) (Beacon, bool) {
	l := t.line(ch)
	if l.beacon == nil {
		return Beacon{}, false
	}
	return *l.beacon.doc, true
}

// buildFloor is the earliest that it can be, whatever the clock says.
func (t *Trust) buildFloor() time.Time { return later(t.o.Build, t.root.Issued) }

// floor is the same for a channel. A candidate of higher order that was issued before
// the trusted manifest corrects a mis-dated one: held against that one's date, every
// honest successor would be out of date.
func (t *Trust) floor(ch Channel, candidate *Manifest) time.Time {
	floor := t.buildFloor()
	if l := t.line(ch); l.held != nil {
		issued := l.held.doc.Issued
		if candidate != nil && candidate.Issued.Before(issued) {
			issued = candidate.Issued
		}
		floor = later(floor, issued)
	}
	return floor
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
