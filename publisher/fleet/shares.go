package fleet

import (
	"encoding/binary"
	"encoding/json"
	"time"

	bolt "go.etcd.io/bbolt"

	"shoal/keys"
)

// share is a part of the log. Each has room of its own, and what comes into one pushes
// nothing out of another.
type share byte

const (
	ofPeople    share = iota // what people and rollouts did, and what others log here
	ofMachines               // what machines did
	ofNewcomers              // the same, of keys that nobody approved and that are new: one thief can make any number
	shares
)

// newcomerFor is how long a key that no person approved is a newcomer.
const newcomerFor = 7 * 24 * time.Hour

const pruneAtOnce = 5000 // of old events of a share, in one commit

// bounds are how much is kept.
type bounds struct {
	agents int
	events [shares]int
	marks  int
}

var usual = bounds{agents: MaxAgents, events: [shares]int{MaxEvents, MaxEvents, MaxEvents / 5}, marks: 10_000}

// kept says how far the log is: the number of its last event, and how many are in each
// share.
type kept struct {
	seq uint64
	n   [shares]int
}

// shareOf is the share of events that a says. The caller holds mu.
func (s *Store) shareOf(a *Agent) share {
	if !s.allow.keys[a.ID] && s.now().Sub(a.First) < newcomerFor {
		return ofNewcomers
	}
	return ofMachines
}

// latest returns events without the oldest of those that have no room in their share.
func (b *bounds) latest(events []logged) []logged {
	var n, over [shares]int
	for _, e := range events {
		n[e.share]++
	}
	for i := range over {
		over[i] = max(0, n[i]-b.events[i])
	}
	var fit []logged
	for _, e := range events {
		if over[e.share] > 0 {
			over[e.share]--
			continue
		}
		fit = append(fit, e)
	}
	return fit
}

func shareKey(sh share, seq uint64) []byte { return append([]byte{byte(sh)}, number(seq)...) }

// prepareShares has every event in a share: those of a database from before there were
// any, too, and what such a version has logged since.
func prepareShares(tx *bolt.Tx) error {
	log := tx.Bucket(eventBucket)
	if b := tx.Bucket(shareBucket); b != nil {
		if b.Sequence() == log.Sequence() {
			return nil
		}
		if err := tx.DeleteBucket(shareBucket); err != nil {
			return err
		}
	}
	index, err := tx.CreateBucket(shareBucket)
	if err != nil {
		return err
	}
	err = log.ForEach(func(k, v []byte) error {
		var e Event
		sh := ofPeople
		if json.Unmarshal(v, &e) == nil {
			switch e.Kind {
			case KindAgentNew, KindAgentState, KindAgentFailed, KindAgentEvent, KindAgentCloned:
				sh = ofMachines
			}
		}
		return index.Put(append([]byte{byte(sh)}, k...), nil)
	})
	if err != nil {
		return err
	}
	return index.SetSequence(log.Sequence())
}

// prune removes, share by share, events that are too many or older than oldest.
func prune(tx *bolt.Tx, most *bounds, at *kept, oldest time.Time) error {
	log, index, agents := tx.Bucket(eventBucket), tx.Bucket(shareBucket), tx.Bucket(byAgent)
	for sh := range shares {
		gone := map[uint64]keys.ID{}
		c := index.Cursor()
		for k, _ := c.Seek(shareKey(sh, 0)); len(k) == 9 && k[0] == byte(sh) && len(gone) < pruneAtOnce; k, _ = c.Next() {
			seq := binary.BigEndian.Uint64(k[1:])
			var e Event
			if json.Unmarshal(log.Get(number(seq)), &e) != nil {
				e = Event{} // too old, and gone
			}
			if at.n[sh]-len(gone) <= most.events[sh] && !e.Time.Before(oldest) {
				break
			}
			gone[seq] = e.Agent
		}
		for seq, agent := range gone {
			if err := log.Delete(number(seq)); err != nil {
				return err
			}
			if err := index.Delete(shareKey(sh, seq)); err != nil {
				return err
			}
			if agent == "" {
				continue
			}
			if err := agents.Delete(indexKey(agent, seq)); err != nil {
				return err
			}
		}
		at.n[sh] -= len(gone)
	}
	return nil
}
