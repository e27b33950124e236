// Package state keeps what an agent must not forget.
//
// A crash or a power cut at any moment leaves the state before or the state after,
// and what was once trusted is never trusted less: documents are written first, then
// state.json, the single commit point, and then the anchor, a second copy of the
// orders and root version kept elsewhere. Where one of the two is lost, damaged or
// older, the higher of both counts. Nothing that is read here is believed: the caller
// gives it to manifest.Load, which verifies every document again.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

const (
	// A higher schema must not be written before a version of the agent that introduces
	// it is confirmed: the version before, which may have to come back, cannot read it.
	schema     = 1
	maxState   = 8 << 20 // a channel takes about 300 bytes
	maxLeft    = 1024    // roots, and manifests, looked for where the state is lost
	trustDir   = "trust"
	stateFile  = "state.json"
	lockFile   = "lock"
	statusFile = "status.json"
)

// Store is one state directory, held under its lock until Close. It is not safe for
// concurrent use.
type Store struct {
	dir, anchor string
	lock        *flock.Flock
}

// Local is what an agent remembers beside what it trusts.
type Local struct {
	// Checker is set in a state that was made to check documents and not by joining:
	// there the pin has no other home.
	Checker *Pin
	// Installed is what this agent installed, by app.
	Installed map[string]Installed
	// Counters never fall while the state lives.
	Counters map[string]int64
	// HoldUntil is until when this machine's operator wants no new install, by channel;
	// [NoEnd] for until they say otherwise.
	HoldUntil map[manifest.Channel]time.Time
	// Pins are the versions besides which the operator wants no other, by channel.
	Pins map[manifest.Channel]string
	// LostAt is when state and anchor were found gone; zero when they were not, or
	// when an operator has acknowledged it.
	LostAt time.Time
}

// NoEnd is the end of a hold that has none. It is a time that JSON can write.
var NoEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Installed is what was last installed of one app.
type Installed struct {
	SHA256         manifest.Digest `json:"sha256"`
	Epoch          int64           `json:"epoch"`
	Sequence       int64           `json:"sequence"`
	PreviousSHA256 manifest.Digest `json:"previous_sha256,omitzero"`
	At             time.Time       `json:"at"`
	RevertedFrom   manifest.Digest `json:"reverted_from,omitzero"` // not installed again until something else is offered
}

// Memory is what [Store.Read] found.
type Memory struct {
	// Snapshot is for manifest.Load. Documents that were not there are missing in it;
	// State is the higher of state.json and anchor.
	Snapshot manifest.Snapshot
	Local    Local
	// Known is false when state.json and anchor are both gone. Snapshot then has what
	// other documents are still there, and no State.
	Known bool
	// Used says, when Known is false, that there was a state here once.
	Used bool
	// Repaired says that what is on disk is not what was read: save it.
	Repaired bool
	Events   []manifest.Event
}

// document is state.json; without its last members it is the anchor. What an operator
// has decided is in both: a damaged file must not end a hold.
type document struct {
	manifest.State
	Checker     bool                        `json:"checker,omitempty"`
	MinRoot     int64                       `json:"min_root,omitempty"`
	MinSequence map[string]Order            `json:"min_sequence,omitempty"`
	Pins        map[manifest.Channel]string `json:"pins,omitempty"`
	Installed   map[string]Installed        `json:"installed,omitempty"`
	Counters    map[string]int64            `json:"counters,omitempty"`
	LostAt      time.Time                   `json:"lost_at,omitzero"`
}

// Open takes the lock of dir, making it if it is not there. When another process
// holds the lock the code is locked.
func Open(dir, anchor string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, failure(err, "making the state directory").Do("choose another with --state DIR, or run as its owner")
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, failure(err, "locking the state directory").Do("run as the owner of %s", dir)
	}
	if !ok {
		return nil, fault.New(fault.Locked, "another process is at work on %s", dir).
			Line("One state directory belongs to one agent at a time. Nothing was changed.").
			Do("shoal agent status --state %s", dir)
	}
	return &Store{dir, anchor, lock}, nil
}

// Reading returns a Store that holds no lock, and from which nothing but Read is to be
// called: an agent may be writing there. There is nothing to close.
func Reading(dir, anchor string) *Store { return &Store{dir: dir, anchor: anchor} }

// Close gives the lock back. The lock file stays: removing it would let two agents in.
func (s *Store) Close() error { return s.lock.Close() }

// Dir returns the state directory.
func (s *Store) Dir() string { return s.dir }

// Exists reports whether dir or anchor hold a state, damaged or not, without locking.
func Exists(dir, anchor string) bool {
	for _, path := range []string{filepath.Join(dir, trustDir, stateFile), anchor} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// Read reads everything that is stored. Damaged files count as lost.
func (s *Store) Read() (*Memory, error) {
	main, err := readDocument(s.path(stateFile))
	if err != nil {
		return nil, err
	}
	anchor, err := readDocument(s.anchor)
	if err != nil {
		return nil, err
	}
	m := &Memory{Known: true}
	var doc *document
	switch {
	case main == nil && anchor == nil:
		return s.leftovers()
	case main == nil:
		doc, m.Repaired = anchor, true
		m.Events = append(m.Events, manifest.Event{Code: fault.StateRepaired, Doc: stateFile,
			Detail: "it was lost or damaged; the anchor says what was trusted"})
	case anchor == nil:
		doc, m.Repaired = main, true
	default:
		raised, events, err := main.State.Raise(anchor.State)
		if err != nil {
			return nil, err
		}
		doc = main
		if len(events) > 0 { // an old copy was put back, and what it says was decided is old as well
			doc.Pins, doc.Installed = anchor.Pins, anchor.Installed
			raised = withHolds(raised, anchor.holds())
		}
		doc.State = raised
		m.Events = append(m.Events, events...)
		m.Repaired = len(events) > 0
	}
	m.Local = Local{Installed: doc.Installed, Counters: doc.Counters, HoldUntil: doc.holds(), Pins: doc.Pins, LostAt: doc.LostAt}
	if doc.Checker {
		m.Local.Checker = &Pin{Repo: doc.Repo, MinRoot: doc.MinRoot, MinSequence: doc.MinSequence, TOFU: doc.TOFU}
	}
	m.Snapshot, err = s.documents(withHolds(doc.State, nil))
	return m, err
}

// documents reads the stored envelopes that st speaks of.
func (s *Store) documents(st manifest.State) (manifest.Snapshot, error) {
	snap := manifest.Snapshot{State: st, Manifests: map[manifest.Channel][]byte{}, Beacons: map[manifest.Channel][]byte{}}
	for v := int64(1); v <= st.RootVersion; v++ {
		b, err := s.read(tree.Root(v), manifest.MaxRoot)
		if err != nil {
			return snap, err
		}
		if b == nil {
			break
		}
		snap.Roots = append(snap.Roots, b)
	}
	for ch := range st.Channels {
		if err := s.readInto(snap.Manifests, ch, tree.Manifest(ch), manifest.MaxManifest); err != nil {
			return snap, err
		}
		if err := s.readInto(snap.Beacons, ch, tree.Beacon(ch), manifest.MaxBeacon); err != nil {
			return snap, err
		}
	}
	return snap, nil
}

// leftovers collects what a lost state has left behind.
func (s *Store) leftovers() (*Memory, error) {
	m := &Memory{Snapshot: manifest.Snapshot{Manifests: map[manifest.Channel][]byte{}}}
	for v := int64(1); v <= maxLeft; v++ {
		b, err := s.read(tree.Root(v), manifest.MaxRoot)
		if err != nil {
			return nil, err
		}
		if b == nil {
			break
		}
		m.Snapshot.Roots = append(m.Snapshot.Roots, b)
	}
	found, err := filepath.Glob(s.path("m/*/*.json"))
	if err != nil {
		return nil, fault.New(fault.IO, "looking for stored manifests: %w", err)
	}
	for _, path := range found[:min(len(found), maxLeft)] {
		name := filepath.Base(filepath.Dir(path)) + "/" + strings.TrimSuffix(filepath.Base(path), ".json")
		if ch, err := manifest.ParseChannel(name); err == nil {
			if err := s.readInto(m.Snapshot.Manifests, ch, tree.Manifest(ch), manifest.MaxManifest); err != nil {
				return nil, err
			}
		}
	}
	m.Used = s.used()
	return m, nil
}

// used reports whether there are signs of a state that is gone: its directory, or a
// status that speaks of a root. The key alone is none: it is made before the first
// root has come.
func (s *Store) used() bool {
	if _, err := os.Lstat(filepath.Join(s.dir, trustDir)); err == nil {
		return true
	}
	var status struct {
		RootVersion int64 `json:"root_version"`
	}
	b, err := readFile(filepath.Join(s.dir, statusFile), maxState)
	return err == nil && json.Unmarshal(b, &status) == nil && status.RootVersion > 0
}

func (s *Store) readInto(to map[manifest.Channel][]byte, ch manifest.Channel, name string, limit int64) error {
	b, err := s.read(name, limit)
	if b != nil {
		to[ch] = b
	}
	return err
}

// read returns nil for a document that is not there or is larger than it can be.
func (s *Store) read(name string, limit int64) ([]byte, error) {
	b, err := readFile(s.path(name), limit)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, failure(err, "reading the stored document %q", name)
	}
	return b, nil
}

func (s *Store) path(name string) string {
	return filepath.Join(s.dir, trustDir, filepath.FromSlash(name))
}

// Save writes what changed: documents, then state.json, then the anchor. Once it
// returns nil the new state survives anything; before that the old one does.
func (s *Store) Save(snap manifest.Snapshot, l Local) error {
	doc := document{State: snap.State, Installed: l.Installed, Counters: l.Counters, LostAt: l.LostAt}
	doc.V = schema
	doc.Pins = l.Pins
	doc.State = withHolds(doc.State, l.HoldUntil)
	if l.Checker != nil {
		doc.Checker, doc.MinRoot, doc.MinSequence = true, l.Checker.MinRoot, l.Checker.MinSequence
	}
	files := map[string][]byte{}
	for i, b := range snap.Roots {
		files[tree.Root(int64(i+1))] = b
	}
	for ch, b := range snap.Manifests {
		files[tree.Manifest(ch)] = b
	}
	for ch, b := range snap.Beacons {
		files[tree.Beacon(ch)] = b
	}
	for name, b := range files {
		if err := s.write(s.path(name), b); err != nil {
			return err
		}
	}
	if err := s.writeDocument(s.path(stateFile), &doc); err != nil {
		return err
	}
	if err := s.writeDocument(s.anchor, doc.anchor(l)); err != nil {
		return err
	}
	return s.dropUnreferenced(snap)
}

// anchor is the part of d that is kept twice.
func (d *document) anchor(l Local) *document {
	return &document{
		State: withHolds(d.State.Anchor(), l.HoldUntil), Checker: d.Checker, MinRoot: d.MinRoot, MinSequence: d.MinSequence,
		Pins: d.Pins, Installed: d.Installed,
	}
}

// holds are the operator's, by channel; nil for none.
func (d *document) holds() map[manifest.Channel]time.Time {
	var holds map[manifest.Channel]time.Time
	for ch, c := range d.Channels {
		if !c.HoldUntil.IsZero() {
			if holds == nil {
				holds = map[manifest.Channel]time.Time{}
			}
			holds[ch] = c.HoldUntil
		}
	}
	return holds
}

// withHolds is st with these holds and no others. A channel of which nothing is trusted
// yet has an entry for its hold alone.
func withHolds(st manifest.State, holds map[manifest.Channel]time.Time) manifest.State {
	st.Channels = maps.Clone(st.Channels)
	for ch, c := range st.Channels {
		c.HoldUntil = time.Time{}
		if st.Channels[ch] = c; c.Order() == (manifest.Order{}) && c.LastBeacon.IsZero() && len(c.Held) == 0 {
			delete(st.Channels, ch)
		}
	}
	if st.Channels == nil && len(holds) > 0 {
		st.Channels = map[manifest.Channel]manifest.ChannelState{}
	}
	for ch, until := range holds {
		c := st.Channels[ch]
		c.HoldUntil = until
		st.Channels[ch] = c
	}
	return st
}

// dropUnreferenced removes the documents of channels that hold none any more: such as
// a beacon whose role has gone. It is the last step, and one that a crash may skip.
func (s *Store) dropUnreferenced(snap manifest.Snapshot) error {
	for ch := range snap.State.Channels {
		if _, ok := snap.Manifests[ch]; !ok {
			if err := removeAll(s.path(tree.Manifest(ch))); err != nil {
				return err
			}
		}
		if _, ok := snap.Beacons[ch]; !ok {
			if err := removeAll(s.path(tree.Beacon(ch))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) writeDocument(path string, d *document) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fault.New(fault.IO, "encoding the state: %w", err)
	}
	return s.write(path, append(b, '\n'))
}

// write replaces path unless it has that content already.
func (s *Store) write(path string, b []byte) error {
	if have, err := readFile(path, int64(len(b))); err == nil && bytes.Equal(have, b) {
		return nil
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return failure(err, "making %q", filepath.Dir(path))
	}
	if err := durable.WriteFile(path, b, 0o600); err != nil {
		return failure(err, "storing what is trusted").Line("What was trusted before still is.")
	}
	return nil
}

// makeDir makes dir and its parents so that they survive a power cut.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		return makeDir(dir)
	case err != nil:
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// Forget removes everything this package keeps: trust, anchor, the agent's key. The
// directory and its lock stay.
func (s *Store) Forget() error {
	// The commit point goes first: what a crash leaves behind is then no state at all.
	if err := removeAll(s.anchor, s.path(stateFile)); err != nil {
		return err
	}
	for _, name := range []string{trustDir, keyFile, keyFile + ".pub", machineFile, statusFile} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return failure(err, "removing %q", name)
		}
	}
	return nil
}

func readDocument(path string) (*document, error) {
	b, err := readFile(path, maxState)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, failure(err, "reading the state")
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil || d.V < 1 || d.Repo.IsZero() || d.RootVersion < 1 {
		return nil, nil // torn or damaged: the other copy decides
	}
	if d.V > schema {
		return nil, fault.New(fault.AgentTooOld, "the state %q was written by a newer agent", path).
			Line("It has schema %d; this agent understands %d. Nothing was changed.", d.V, schema).
			Do("run the newer agent again")
	}
	return &d, nil
}

var errTooLarge = errors.New("file is larger than it can be")

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%q: %w", path, errTooLarge)
	}
	return b, err
}
