package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"shoal/internal/fault"
)

// stateSchema is the version of State's JSON form.
const stateSchema = 1

// Snapshot is everything a Trust remembers, for the caller to keep: the documents byte
// for byte, each in a file, then the State.
type Snapshot struct {
	Roots     [][]byte           // Roots[i] is the envelope of version i+1
	Manifests map[Channel][]byte // the trusted ones that verify
	Beacons   map[Channel][]byte // the last ones accepted
	State     State
}

// State is the trust part of the agent's state.json, whose other members are the
// agent's own. Writing it is the commit point: documents that are newer than it are
// harmless.
type State struct {
	V           int64                    `json:"v"` // 1
	Repo        FleetID                  `json:"repo"`
	TOFU        bool                     `json:"tofu"`
	RootVersion int64                    `json:"root_version"`
	RootSHA256  Digest                   `json:"root_sha256,omitzero"` // zero: not known
	Channels    map[Channel]ChannelState `json:"channels"`             // the dropped ones too
	LastEpochs  map[Channel]int64        `json:"last_epochs"`          // of the dropped ones
}

// ChannelState is the highest order accepted in a channel, and what goes with it.
type ChannelState struct {
	Epoch          int64     `json:"epoch"`
	Sequence       int64     `json:"sequence"`
	ManifestSHA256 Digest    `json:"manifest_sha256,omitzero"` // of the payload; zero: not known
	LastBeacon     time.Time `json:"last_beacon,omitzero"`     // issued of the last beacon
	HoldUntil      time.Time `json:"hold_until,omitzero"`      // the machine's own hold: the agent's, which Trust neither reads nor returns
	Held           []Digest  `json:"held,omitempty"`           // artifacts held by beacon
}

// Order returns the order that is recorded.
func (c ChannelState) Order() Order { return Order{c.Epoch, c.Sequence} }

// Anchor returns what the second copy of the state holds, by which lost or older state
// is noticed.
func (s State) Anchor() State {
	a := State{V: s.V, Repo: s.Repo, TOFU: s.TOFU, RootVersion: s.RootVersion, LastEpochs: maps.Clone(s.LastEpochs),
		Channels: make(map[Channel]ChannelState, len(s.Channels))}
	for ch, c := range s.Channels {
		a.Channels[ch] = ChannelState{Epoch: c.Epoch, Sequence: c.Sequence, ManifestSHA256: c.ManifestSHA256}
	}
	return a
}

// Raise returns s with whatever anchor has that is higher, and a state_repaired event
// for each thing raised. An anchor of another fleet is pin_mismatch.
func (s State) Raise(anchor State) (State, []Event, error) {
	if anchor.Repo != s.Repo {
		return State{}, nil, fault.New(fault.PinMismatch, "the state is of one fleet and its anchor of another").
			Line("The state has the fleet id %s, the anchor %s.", s.Repo, anchor.Repo).
			Line("Nothing was changed; what is installed keeps running.").
			Do("to leave the fleet of the anchor: shoal agent leave; then join again").
			Fact("want", anchor.Repo.String()).Fact("found", s.Repo.String())
	}
	var events []Event
	repaired := func(doc, format string, args ...any) {
		events = append(events, Event{fault.StateRepaired, doc, fmt.Sprintf(format, args...)})
	}
	if anchor.RootVersion > s.RootVersion {
		repaired("root", "the state had version %d, the anchor has %d", s.RootVersion, anchor.RootVersion)
		s.RootVersion, s.RootSHA256 = anchor.RootVersion, anchor.RootSHA256
	}
	s.Channels, s.LastEpochs = maps.Clone(s.Channels), maps.Clone(s.LastEpochs)
	if s.Channels == nil {
		s.Channels = map[Channel]ChannelState{}
	}
	if s.LastEpochs == nil {
		s.LastEpochs = map[Channel]int64{}
	}
	for _, ch := range slices.SortedFunc(maps.Keys(anchor.Channels), compareChannels) {
		a, is := anchor.Channels[ch], s.Channels[ch]
		switch is.Order().Compare(a.Order()) {
		case -1:
			repaired("manifest "+ch.String(), "the state had %s, the anchor has %s", is.Order(), a.Order())
			is.Epoch, is.Sequence, is.ManifestSHA256 = a.Epoch, a.Sequence, a.ManifestSHA256
		case 0:
			if is.ManifestSHA256.IsZero() {
				is.ManifestSHA256 = a.ManifestSHA256
			}
		}
		s.Channels[ch] = is
	}
	for _, ch := range slices.SortedFunc(maps.Keys(anchor.LastEpochs), compareChannels) {
		if a := anchor.LastEpochs[ch]; a > s.LastEpochs[ch] {
			repaired("root", "the state had epoch %d as the last of %s, the anchor has %d", s.LastEpochs[ch], ch, a)
			s.LastEpochs[ch] = a
		}
	}
	return s, events, nil
}

// Load makes a Trust from what was kept, after opening every document again with the
// code that first accepted it. s.State.Repo is the pin. What no longer verifies is
// dropped, with an event; the orders recorded stay as floors, and a root version
// recorded must be reached again before [Trust.Begin] lets anything happen. Without a
// first root that fits the pin there is nothing to trust: root_behind, and the caller
// gets root 1 from any source and loads again.
func Load(s Snapshot, o Options) (*Trust, []Event, error) {
	st := s.State
	if st.V > stateSchema {
		return nil, nil, fault.New(fault.AgentTooOld, "the state was written by a newer agent: its schema is %d, this one knows %d", st.V, stateSchema).
			Line("Nothing was changed; what is installed keeps running.").
			Do("use the newer agent again")
	}
	if len(s.Roots) == 0 {
		return nil, nil, rootMissing(nil)
	}
	o.TOFU = o.TOFU || st.TOFU
	t, err := pinned(s.Roots[0], Digest(st.Repo), o)
	if err != nil {
		return nil, nil, rootMissing(err)
	}
	t.restore(st)
	var events []Event
	for i, env := range s.Roots[1:] {
		more, err := t.UpdateRoot(env)
		if err != nil {
			events = append(events, Event{fault.CodeOf(err), rootDoc(int64(i + 2)), "stored root dropped, with those that follow: " + err.Error()})
			break
		}
		events = append(events, more...)
	}
	for _, ch := range slices.SortedFunc(maps.Keys(s.Manifests), compareChannels) {
		if err := t.reopenManifest(ch, s.Manifests[ch]); err != nil {
			events = append(events, Event{fault.CodeOf(err), "manifest " + ch.String(), "stored manifest dropped: " + err.Error()})
		}
	}
	for _, ch := range slices.SortedFunc(maps.Keys(s.Beacons), compareChannels) {
		if err := t.reopenBeacon(ch, s.Beacons[ch]); err != nil {
			events = append(events, Event{fault.CodeOf(err), "beacon " + ch.String(), "stored beacon dropped: " + err.Error()})
		}
	}
	return t, events, nil
}

func rootMissing(err error) error {
	f := fault.New(fault.RootBehind, "the stored root 1 is missing or is not the pinned one")
	if err != nil {
		f = fault.New(fault.RootBehind, "the stored root 1 is missing or is not the pinned one: %w", err)
	}
	return f.Line("Nothing is installed until it is here again; what is installed keeps running.").
		Do("get root 1 and what follows from any source")
}

// restore takes over floors and holds. They only ever add to what is refused.
func (t *Trust) restore(st State) {
	if st.RootVersion > t.known.version {
		t.known = mark{st.RootVersion, st.RootSHA256}
	}
	maps.Copy(t.epochFloors, st.LastEpochs)
	for ch, c := range st.Channels {
		t.lines[ch] = &line{
			floor: c.Order(), floorHash: c.ManifestSHA256,
			lastBeacon: c.LastBeacon, onHold: slices.Clone(c.Held),
		}
	}
}

// reopenManifest takes a stored manifest. It may be newer than the State, after a crash
// between the two, and never older.
func (t *Trust) reopenManifest(ch Channel, env []byte) error {
	cand, err := t.openManifest(ch, env)
	if err == nil {
		err = t.inOrder(ch, cand)
	}
	if err != nil {
		if l, ok := t.lines[ch]; ok {
			l.lost = err
		}
		return err
	}
	t.accept(ch, cand)
	return nil
}

func (t *Trust) reopenBeacon(ch Channel, env []byte) error {
	b, err := t.readBeacon(ch, env)
	if err != nil {
		return err
	}
	l := t.line(ch)
	if b.doc.Issued.Before(l.lastBeacon) {
		return fault.New(fault.Rollback, "beacon %s is issued at %s, before the last one, %s", ch, at(b.doc.Issued), at(l.lastBeacon))
	}
	l.beacon, l.lastBeacon = b, b.doc.Issued
	l.seeHold()
	t.lines[ch] = l
	return nil
}

// Snapshot returns everything to keep. Its State never falls: root version, epochs and
// orders are at least those of the snapshot this Trust was loaded from.
func (t *Trust) Snapshot() Snapshot {
	s := Snapshot{
		Manifests: map[Channel][]byte{},
		Beacons:   map[Channel][]byte{},
		State: State{
			V: stateSchema, Repo: FleetID(t.repo), TOFU: t.tofu,
			RootVersion: t.known.version, RootSHA256: t.known.hash,
			Channels:   make(map[Channel]ChannelState, len(t.lines)),
			LastEpochs: maps.Clone(t.lastEpochs),
		},
	}
	for _, env := range t.chain {
		s.Roots = append(s.Roots, bytes.Clone(env))
	}
	behind := t.root.Version < t.known.version
	for ch, epoch := range t.epochFloors {
		if behind || t.spec(ch) == nil {
			s.State.LastEpochs[ch] = max(s.State.LastEpochs[ch], epoch)
		}
	}
	for ch, l := range t.lines {
		if l.held != nil {
			s.Manifests[ch] = bytes.Clone(l.held.env)
		}
		if l.beacon != nil {
			s.Beacons[ch] = bytes.Clone(l.beacon.env)
		}
		s.State.Channels[ch] = ChannelState{
			Epoch: l.floor.Epoch, Sequence: l.floor.Sequence, ManifestSHA256: l.floorHash,
			LastBeacon: l.lastBeacon, Held: slices.Clone(l.onHold),
		}
	}
	return s
}
