package fleet

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const maxEventsPage = 1000

// Event is something that happened in the fleet and that is kept: what approved machines
// did, what people did, and what others log here. Members that do not apply are empty.
type Event struct {
	Seq     uint64          `json:"seq"` // rises by one; never used twice
	Time    time.Time       `json:"time"`
	Kind    string          `json:"kind"`
	Agent   keys.ID         `json:"agent,omitempty"`
	Host    string          `json:"host,omitempty"` // as the machine says
	App     string          `json:"app,omitempty"`
	Channel string          `json:"channel,omitempty"`
	Version string          `json:"version,omitempty"`
	SHA256  manifest.Digest `json:"sha256,omitzero"`
	State   string          `json:"state,omitempty"`
	Code    fault.Code      `json:"code,omitempty"`
	Count   int64           `json:"count,omitempty"`
	Text    string          `json:"text,omitempty"` // may be a machine's words
}

// Kinds of events that this package logs. Others log kinds of their own, as in
// "rollout.halted".
const (
	KindAgentNew       = "agent.new"       // an approved machine reported for the first time
	KindAgentState     = "agent.state"     // an app came to rest in another state or version
	KindAgentFailed    = "agent.failed"    // the same, and the state is failed or reverted
	KindAgentEvent     = "agent.event"     // Count times Code, as the machine says
	KindAgentCloned    = "agent.cloned"    // two machines report with one key
	KindAgentApproved  = "agent.approved"  // by a person
	KindAgentForgotten = "agent.forgotten" // by a person, or after 90 days
	KindExpirySoon     = "expiry.soon"     // a manifest or the root runs out of date
)

// logged is an event on its way to the disk.
type logged struct {
	Event
	share share
	mark  string // not logged again with the same; empty for none
}

// Log keeps events, which get their number and, where it is zero, their time here. It
// returns when they are on the disk.
func (s *Store) Log(ctx context.Context, events ...Event) error {
	s.mu.Lock()
	for _, e := range events {
		s.logEvent(e, ofPeople, "")
	}
	b := s.wake()
	s.mu.Unlock()
	return b.written(ctx)
}

// LogOnce is Log for an event that is logged once per mark, over restarts too: until
// 10,000 others were marked since.
func (s *Store) LogOnce(ctx context.Context, mark string, e Event) error {
	s.mu.Lock()
	if slices.Contains(s.marks, mark) {
		s.mu.Unlock()
		return nil
	}
	s.marks = append(s.marks, mark)
	if over := len(s.marks) - s.most.marks; over > 0 {
		s.next.unmarked = append(s.next.unmarked, s.marks[:over]...)
		s.marks = slices.Delete(s.marks, 0, over)
	}
	s.logEvent(e, ofPeople, mark)
	b := s.wake()
	s.mu.Unlock()
	return b.written(ctx)
}

// logEvent has e written with the next commit. The caller holds mu.
func (s *Store) logEvent(e Event, sh share, mark string) {
	if e.Time.IsZero() {
		e.Time = s.now()
	}
	e.Time = e.Time.UTC().Truncate(time.Second)
	s.next.events = append(s.next.events, logged{e, sh, mark})
}

// saveEvents numbers and writes events, and removes those that are too many or older
// than oldest.
func saveEvents(tx *bolt.Tx, events []logged, most *bounds, at *kept, oldest time.Time) error {
	log, index, inShare, marks := tx.Bucket(eventBucket), tx.Bucket(byAgent), tx.Bucket(shareBucket), tx.Bucket(markBucket)
	for _, e := range events {
		at.seq++
		at.n[e.share]++
		e.Seq = at.seq
		v, err := json.Marshal(e.Event)
		if err != nil {
			return err
		}
		if err := log.Put(number(e.Seq), v); err != nil {
			return err
		}
		if err := inShare.Put(shareKey(e.share, e.Seq), nil); err != nil {
			return err
		}
		if e.Agent != "" {
			if err := index.Put(indexKey(e.Agent, e.Seq), nil); err != nil {
				return err
			}
		}
		if e.mark != "" {
			if err := marks.Put([]byte(e.mark), number(e.Seq)); err != nil {
				return err
			}
		}
	}
	if err := log.SetSequence(at.seq); err != nil {
		return err
	}
	if err := inShare.SetSequence(at.seq); err != nil {
		return err
	}
	return prune(tx, most, at, oldest)
}

func indexKey(id keys.ID, seq uint64) []byte {
	return append(append([]byte(id), 0), number(seq)...)
}

// EventQuery asks for events.
type EventQuery struct {
	After  uint64        `json:"after"`            // only those with a higher number
	Before uint64        `json:"before,omitempty"` // only those with a lower number, unless zero
	Agent  keys.ID       `json:"agent,omitempty"`  // only of this machine
	Last   bool          `json:"last,omitempty"`   // the latest of them, instead of the first
	Limit  int           `json:"limit,omitempty"`  // at most 1000, also when zero
	Wait   time.Duration `json:"wait,omitempty"`   // for one to come, when there is none
}

// EventPage is what an EventQuery found, in the order of the numbers.
type EventPage struct {
	Events []Event `json:"events"`
	// Next is for After, to go on from here.
	Next uint64 `json:"next"`
	// First is the number of the oldest event that is kept: what came before is gone, and
	// of what came since, too, what had no room.
	First uint64 `json:"first"`
}

// Events returns what is on the disk of the log. Numbers without an event are of those
// that are no longer kept.
func (s *Store) Events(ctx context.Context, q EventQuery) (*EventPage, error) {
	if q.Limit <= 0 || q.Limit > maxEventsPage {
		q.Limit = maxEventsPage
	}
	deadline := time.NewTimer(q.Wait)
	defer deadline.Stop()
	for {
		changed := s.Watch()
		page, err := s.readEvents(q)
		if err != nil || len(page.Events) > 0 || q.Wait <= 0 {
			return page, err
		}
		select {
		case <-changed:
		case <-deadline.C:
			return page, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.stop:
			return page, nil
		}
	}
}

func (s *Store) readEvents(q EventQuery) (*EventPage, error) {
	page := &EventPage{Events: []Event{}, Next: q.After}
	err := s.db.View(func(tx *bolt.Tx) error {
		log := tx.Bucket(eventBucket)
		if k, _ := log.Cursor().First(); k != nil {
			page.First = binary.BigEndian.Uint64(k)
		}
		for _, seq := range numbers(tx, q) {
			var e Event
			if v := log.Get(number(seq)); v == nil || json.Unmarshal(v, &e) != nil {
				continue
			}
			page.Events = append(page.Events, e)
			page.Next = seq
		}
		return nil
	})
	return page, failure("reading the events", err)
}

// numbers are the numbers of the events that q asks for, rising.
func numbers(tx *bolt.Tx, q EventQuery) []uint64 {
	if q.Before == 0 {
		q.Before = 1<<64 - 1 // no event has that number
	}
	c, prefix := tx.Bucket(eventBucket).Cursor(), []byte(nil)
	if q.Agent != "" {
		c, prefix = tx.Bucket(byAgent).Cursor(), append([]byte(q.Agent), 0)
	}
	key := func(n uint64) []byte { return append(bytes.Clone(prefix), number(n)...) }
	read := func(k []byte) (uint64, bool) {
		if len(k) != len(prefix)+8 || !bytes.HasPrefix(k, prefix) {
			return 0, false
		}
		n := binary.BigEndian.Uint64(k[len(prefix):])
		return n, n > q.After && n < q.Before
	}
	var found []uint64
	if !q.Last {
		for k, _ := c.Seek(key(q.After + 1)); k != nil && len(found) < q.Limit; k, _ = c.Next() {
			n, ok := read(k)
			if !ok {
				break
			}
			found = append(found, n)
		}
		return found
	}
	k, _ := c.Seek(key(q.Before)) // just behind the last one
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	for ; k != nil && len(found) < q.Limit; k, _ = c.Prev() {
		n, ok := read(k)
		if !ok {
			break
		}
		found = append(found, n)
	}
	for i, j := 0, len(found)-1; i < j; i, j = i+1, j-1 {
		found[i], found[j] = found[j], found[i]
	}
	return found
}

// Cursor returns how far the reader of that name has read the events; known is false when
// it has never begun.
func (s *Store) Cursor(name string) (n uint64, known bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(cursorBucket).Get([]byte(name)); len(v) == 8 {
			n, known = binary.BigEndian.Uint64(v), true
		}
		return nil
	})
	return n, known, failure("reading the events", err)
}

// SetCursor remembers how far the reader of that name has read.
func (s *Store) SetCursor(name string, n uint64) error {
	err := s.db.Batch(func(tx *bolt.Tx) error { return tx.Bucket(cursorBucket).Put([]byte(name), number(n)) })
	return failure("keeping how far the events were read", err)
}

// newsOf logs what changed between old, which may be nil, and a. The caller holds mu.
func (s *Store) newsOf(old, a *Agent, copied bool) {
	base, sh := Event{Agent: a.ID, Host: a.Report.Host}, s.shareOf(a)
	log := func(kind string, change func(*Event)) {
		if !s.logs(a.ID, sh) {
			s.counts.Unlogged++
			return
		}
		e := base
		e.Kind = kind
		change(&e)
		s.logEvent(e, sh, "")
	}
	if old == nil || !s.approved(old) {
		log(KindAgentNew, func(e *Event) { e.Text = a.Report.Platform.String() })
	}
	for i := range a.Report.Apps {
		r, st := &a.Report.Apps[i], &a.Standing[i]
		switch r.State {
		case manifest.StateDownloading, manifest.StateStaged, manifest.StateCommitting, manifest.StateConfirming:
			continue // on the way
		}
		is := string(r.State) + " " + r.Version
		if r.Why != nil {
			is += " " + string(r.Why.Code)
		}
		if failing := r.State == manifest.StateFailed || r.State == manifest.StateReverted; failing {
			is += " " + st.FailedAt.UTC().Format(time.RFC3339)
		}
		if is == st.Logged {
			continue
		}
		st.Logged = is
		kind := KindAgentState
		if r.State == manifest.StateFailed || r.State == manifest.StateReverted {
			kind = KindAgentFailed
		}
		log(kind, func(e *Event) {
			e.App, e.Channel, e.Version, e.SHA256, e.State = r.App, r.Channel, r.Version, r.SHA256, string(r.State)
			if r.Why != nil {
				e.Code, e.Text = r.Why.Code, r.Why.Text
			}
			if kind == KindAgentFailed {
				e.SHA256 = st.Failed
			}
		})
	}
	for _, ev := range a.Report.Events {
		log(KindAgentEvent, func(e *Event) { e.Code, e.Count, e.Text = ev.Code, ev.Count, ev.Detail })
	}
	if copied && (old.ClonedAt.IsZero() || a.ClonedAt.Sub(old.ClonedAt) > cloneShown) {
		log(KindAgentCloned, func(e *Event) { e.Text = "another machine reports with the same key: " + a.otherHost() })
	}
}
