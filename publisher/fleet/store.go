// Package fleet keeps what a fleet's machines say of themselves.
//
// A report is taken in only when the key whose fingerprint is the agent id has signed it,
// for this fleet, and its counter is above the last one of that key: a report can be
// neither forged nor played back. What it says is a claim all the same. It counts, in any
// number that decides something, only when a person has approved the key (or, where the
// publisher says so, when it came from a member of the fleet); strangers are shown apart,
// are bounded, and leave no trace in the log.
//
// What was accepted is on the disk: many reports share one commit. Everything is bounded:
// machines, strangers, events, and the time they are kept. Readers get snapshots that do
// not change under them and never wait for the disk, but for events, which are on it.
//
//	STORE/fleet.db       reports, events and what people noted (bbolt; one process at a time)
//	STORE/agents.allow   the approved keys, as in authorized_keys; edit it at will
package fleet

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/time/rate"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// Bounds of what is kept.
const (
	MaxAgents     = 50_000              // machines in all
	MaxUnapproved = 1_000               // of them strangers; the one longest unseen goes
	MaxEvents     = 100_000             // of machines, and as many of people and rollouts; of each the oldest go
	NotSeenAfter  = 24 * time.Hour      // a machine is then counted apart
	ForgetAfter   = 90 * 24 * time.Hour // a machine is then forgotten, and so is an event
)

// DBFile is the store's file, in the publisher's own.
const DBFile = "fleet.db"

const (
	schema      = 1
	openWait    = 200 * time.Millisecond // for the lock of the database
	commitEvery = 200 * time.Millisecond
	tidyEvery   = time.Hour
	allowEvery  = 2 * time.Second // agents.allow is looked at for edits
)

var (
	metaBucket   = []byte("meta")
	agentBucket  = []byte("agents")
	eventBucket  = []byte("events")   // by number
	byAgent      = []byte("by_agent") // agent id and number, of events
	shareBucket  = []byte("shares")   // share and number, of events
	markBucket   = []byte("marks")    // of events that are logged once
	cursorBucket = []byte("cursors")  // how far others have read the events
	lastBucket   = []byte("counters") // the last ones of machines that were forgotten
)

// Config says which fleet is kept, and where.
type Config struct {
	// Dir is the publisher's store. It must be set.
	Dir string
	// Repo is the fleet; reports of others are refused. It must be set.
	Repo manifest.FleetID
	// Approve is whose reports count: [ApproveManual], also when empty, or [ApproveMembers].
	Approve string
	// CommitEvery is the least time between two commits; zero means 200 ms. Reports that
	// come meanwhile wait for the next, and share it.
	CommitEvery time.Duration
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
	// Logger receives what goes wrong. If nil, nothing is logged.
	Logger *slog.Logger

	most bounds // replaces what is usual, in tests
}

// Whose reports count.
const (
	ApproveManual  = "manual"  // of keys that a person has approved
	ApproveMembers = "members" // and of every key that reports over the fleet's TLS: a stolen machine can then invent many
)

// Store keeps the reports of one fleet, from Open to Close. Its methods may be called
// concurrently.
type Store struct {
	cfg Config
	db  *bolt.DB
	now func() time.Time
	log *slog.Logger

	most bounds

	work chan struct{} // wakes the writer
	stop chan struct{} // closed to end it
	done chan struct{} // closed when it has ended

	editing sync.Mutex // held while agents.allow is changed; before mu

	mu        sync.RWMutex // guards what follows
	agents    map[keys.ID]*Agent
	ids       []keys.ID // of agents, in order
	strangers int       // of agents, those not approved
	allow     allowed
	forgotten map[keys.ID]int64 // the last counters of machines that are gone; none is in agents
	marks     []string          // what is logged once, in the order it was
	paces     map[keys.ID]*pace
	counts    Counters
	next      *batch        // what is to be written
	changed   chan struct{} // closed when something was written

	at kept // the writer's

	newcomers *rate.Limiter // their events; after mu

	loud  *addresses // all that is posted
	loose *addresses // what is posted by strangers
}

// batch is what goes to the disk together.
type batch struct {
	agents   map[keys.ID]bool
	events   []logged
	unmarked []string      // marks that go, before those of events
	done     chan struct{} // closed when it is on the disk, or could not be written
	err      error         // why not
}

func newBatch() *batch { return &batch{agents: map[keys.ID]bool{}, done: make(chan struct{})} }

// Open opens the store in cfg.Dir, and makes it where there is none. While another
// process has it the code is locked.
func Open(cfg Config) (_ *Store, err error) {
	s := &Store{
		cfg: cfg, now: cfg.Clock, log: cfg.Logger, most: cfg.most,
		work: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		newcomers: rate.NewLimiter(rate.Every(newcomersEvery), newcomersBurst),
		loud:      newAddresses(perSecond, perSecondBurst), loose: newAddresses(strangersEvery, strangersBurst),
		agents: map[keys.ID]*Agent{}, forgotten: map[keys.ID]int64{}, paces: map[keys.ID]*pace{}, next: newBatch(), changed: make(chan struct{}),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.most == (bounds{}) {
		s.most = usual
	}
	if s.cfg.CommitEvery == 0 {
		s.cfg.CommitEvery = commitEvery
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(cfg.Dir, DBFile)
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: openWait, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fault.New(fault.Locked, "another process has the fleet's reports open").
			Line("One process at a time can: shoal serve, or one command while that is stopped.").Do("try again")
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fault.New(fault.IO, "reading %q: %w", path, err).
			Line("Machines report again within minutes, and %s has who is approved; what people noted and the log would be lost.", allowFile).
			Do("put it back from a backup, or move it away")
	case err != nil:
		return nil, failure("opening the fleet's reports", err)
	}
	defer func() {
		if err != nil {
			s.db.Close()
		}
	}()
	if err := s.db.Update(s.prepare); err != nil {
		return nil, failure("opening the fleet's reports", err)
	}
	if err := s.db.View(s.load); err != nil {
		return nil, failure("reading the fleet's reports", err)
	}
	if err := s.readAllowed(); err != nil {
		return nil, err
	}
	s.tidy()
	go s.write()
	return s, nil
}

// Close writes what is left and closes the store.
func (s *Store) Close() error {
	close(s.stop)
	<-s.done
	return s.db.Close()
}

// prepare makes what is not there and refuses what is another's.
func (s *Store) prepare(tx *bolt.Tx) error {
	for _, name := range [][]byte{metaBucket, agentBucket, eventBucket, byAgent, markBucket, cursorBucket, lastBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	if err := prepareShares(tx); err != nil {
		return err
	}
	meta := tx.Bucket(metaBucket)
	if v := meta.Get([]byte("schema")); v == nil {
		if err := meta.Put([]byte("schema"), number(schema)); err != nil {
			return err
		}
	} else if len(v) != 8 || binary.BigEndian.Uint64(v) != schema {
		return fault.New(fault.IO, "%s was written by another version of shoal", DBFile).Do("use that version, or move the file away")
	}
	repo := s.cfg.Repo.String()
	if v := meta.Get([]byte("repo")); v == nil {
		return meta.Put([]byte("repo"), []byte(repo))
	} else if string(v) != repo {
		return fault.New(fault.PinMismatch, "%s is of the fleet %s, this is %s", DBFile, v, repo)
	}
	return nil
}

func (s *Store) load(tx *bolt.Tx) error {
	err := tx.Bucket(agentBucket).ForEach(func(k, v []byte) error {
		a := &Agent{}
		if err := json.Unmarshal(v, a); err != nil {
			s.log.Warn("a stored report was left out", "agent", string(k), "err", err) // it reports again
			return nil
		}
		s.agents[keys.ID(k)] = a
		s.ids = append(s.ids, keys.ID(k)) // in the order of the keys
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(lastBucket).ForEach(func(k, v []byte) error {
		if len(v) == 8 {
			s.forgotten[keys.ID(k)] = int64(binary.BigEndian.Uint64(v))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.at.seq = tx.Bucket(eventBucket).Sequence()
	err = tx.Bucket(shareBucket).ForEach(func(k, _ []byte) error {
		if sh := share(k[0]); sh < shares {
			s.at.n[sh]++
		}
		return nil
	})
	if err != nil {
		return err
	}
	logged := map[string]uint64{}
	err = tx.Bucket(markBucket).ForEach(func(k, v []byte) error {
		if len(v) == 8 {
			logged[string(k)] = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	s.marks = slices.SortedFunc(maps.Keys(logged), func(a, b string) int { return cmp.Compare(logged[a], logged[b]) })
	return err
}

// put has a written, or forgotten if nil, with the next commit. The caller holds mu.
func (s *Store) put(id keys.ID, a *Agent) {
	i, found := slices.BinarySearch(s.ids, id)
	if old := s.agents[id]; old != nil && !s.approved(old) {
		s.strangers--
	}
	switch {
	case a == nil:
		delete(s.agents, id)
		if found {
			s.ids = slices.Delete(s.ids, i, i+1)
		}
	default:
		s.agents[id] = a
		delete(s.forgotten, id)
		if !found {
			s.ids = slices.Insert(s.ids, i, id)
		}
		if !s.approved(a) {
			s.strangers++
		}
	}
	s.next.agents[id] = true
}

// wake returns the batch that holds what was put so far, and has it written. The caller
// holds mu.
func (s *Store) wake() *batch {
	select {
	case s.work <- struct{}{}:
	default:
	}
	return s.next
}

// written waits until b is on the disk.
func (b *batch) written(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the writer: it alone commits.
func (s *Store) write() {
	defer close(s.done)
	trouble := "" // with agents.allow, told once
	gap, tidy, allow := time.NewTimer(0), time.NewTicker(tidyEvery), time.NewTicker(allowEvery)
	defer gap.Stop()
	defer tidy.Stop()
	defer allow.Stop()
	for {
		select { // not more often than this
		case <-gap.C:
		case <-s.stop:
			s.commit()
			return
		}
		select {
		case <-s.work:
		case <-tidy.C:
			s.tidy()
		case <-allow.C:
			if err := s.readAllowed(); err != nil && err.Error() != trouble {
				trouble = err.Error()
				s.log.Error("who is approved stays as it was", "err", err)
			}
			gap.Reset(0)
			continue
		case <-s.stop:
			s.commit()
			return
		}
		s.commit()
		gap.Reset(s.cfg.CommitEvery)
	}
}

// commit writes the batch. What could not be written stays to be written.
func (s *Store) commit() {
	s.mu.Lock()
	b := s.next
	s.next = newBatch()
	records := make(map[keys.ID]record, len(b.agents))
	for id := range b.agents {
		records[id] = record{s.agents[id], s.forgotten[id]}
	}
	s.mu.Unlock()
	at := s.at
	if err := s.db.Update(func(tx *bolt.Tx) error { return s.save(tx, records, b, &at) }); err != nil {
		b.err = failure("keeping the fleet's reports", err)
		s.log.Error("the fleet's reports are not kept", "err", err)
		s.mu.Lock()
		for id := range b.agents {
			s.next.agents[id] = true
		}
		s.next.unmarked = append(b.unmarked, s.next.unmarked...)
		s.next.events = s.most.latest(append(b.events, s.next.events...))
		s.mu.Unlock()
	} else {
		s.at = at
		s.mu.Lock()
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
	close(b.done)
}

// record is what the disk is to have of a machine.
type record struct {
	agent *Agent // nil for none
	last  int64  // its counter, if it was forgotten; 0 for none
}

func (s *Store) save(tx *bolt.Tx, records map[keys.ID]record, b *batch, at *kept) error {
	agents, last := tx.Bucket(agentBucket), tx.Bucket(lastBucket)
	for id, r := range records {
		var a, n []byte
		if r.agent != nil {
			var err error
			if a, err = json.Marshal(r.agent); err != nil {
				return err
			}
		}
		if r.last > 0 {
			n = number(uint64(r.last))
		}
		if err := errors.Join(set(agents, id, a), set(last, id, n)); err != nil {
			return err
		}
	}
	for _, mark := range b.unmarked {
		if err := tx.Bucket(markBucket).Delete([]byte(mark)); err != nil {
			return err
		}
	}
	return saveEvents(tx, b.events, &s.most, at, s.now().Add(-ForgetAfter))
}

// set has v, or nothing if nil, under id.
func set(b *bolt.Bucket, id keys.ID, v []byte) error {
	if v == nil {
		return b.Delete([]byte(id))
	}
	return b.Put([]byte(id), v)
}

// tidy forgets machines that are gone for good. One that comes back is still approved.
func (s *Store) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, a := range s.agents {
		if now.Sub(a.Seen) > ForgetAfter {
			s.forget(s.view(a, now), ofMachines, "not seen for 90 days")
		}
	}
	if len(s.forgotten) <= s.most.agents {
		return
	}
	for id := range s.forgotten { // what is left is bounded by agents.allow
		if !s.allow.keys[id] {
			delete(s.forgotten, id)
			s.next.agents[id] = true
		}
	}
}

// Watch returns a channel that is closed when something has been written after the call.
// Look at what you follow after calling it, and before waiting.
func (s *Store) Watch() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// failure gives an error of the operating system the code a person can act on.
func failure(doing string, err error) error {
	var coded *fault.Error
	switch {
	case err == nil || errors.As(err, &coded):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return fault.New(fault.NoSpace, "%s: %w", doing, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fault.New(fault.Permission, "%s: %w", doing, err)
	}
	return fault.New(fault.IO, "%s: %w", doing, err)
}
