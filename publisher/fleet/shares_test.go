package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// posts has a member of the fleet report over its TLS.
func (w *world) posts(name string, change ...func(*manifest.Report)) error {
	w.t.Helper()
	_, err := w.Take(w.t.Context(), w.report(name, change...), fleet.Via{From: netip.MustParseAddr("192.0.2.1"), Member: true})
	return err
}

// kinds are what is kept: of each kind and host, how many.
func (w *world) kinds() map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for after := uint64(0); ; {
		page, err := w.Events(w.t.Context(), fleet.EventQuery{After: after})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range page.Events {
			kind, _, _ := strings.Cut(e.Host, "-")
			n[strings.TrimSpace(e.Kind+" "+kind)]++
		}
		if len(page.Events) == 0 {
			return n
		}
		after = page.Next
	}
}

func byMembers(c *fleet.Config) { c.Approve = fleet.ApproveMembers }

// One machine was stolen: its thief makes key after key, each with a full report.
func TestFloodOfNewKeysWipesNoLog(t *testing.T) {
	w := newWorld(t, byMembers)
	if err := w.posts("known-1"); err != nil {
		t.Fatal(err)
	}
	w.pass(8 * 24 * time.Hour)
	if err := w.Log(t.Context(), fleet.Event{Kind: "rollout.halted"}); err != nil {
		t.Fatal(err)
	}
	const seconds, perSecond = 16, 100
	invented := 0
	w.hears("approved-1")
	w.approve("approved-1")
	w.hears("approved-1")
	for range seconds {
		w.pass(time.Second)
		var all sync.WaitGroup
		for range perSecond {
			invented++
			env := w.report(fmt.Sprintf("invented-%d", invented), func(r *manifest.Report) {
				for range 64 {
					r.Events = append(r.Events, manifest.EventCount{Code: fault.Rollback, Count: 1})
				}
			})
			all.Go(func() {
				if _, err := w.Take(t.Context(), env, fleet.Via{Member: true}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	// What the others say is logged during it, too.
	fails := func(r *manifest.Report) { state(manifest.StateFailed, "2.4.1")(r) }
	w.hears("approved-1", fails)
	w.hears("known-1", fails)
	got := w.kinds()
	for _, want := range []string{
		"rollout.halted", "agent.approved approved", "agent.new known", "agent.state known",
		"agent.failed known", "agent.failed approved",
	} {
		if got[want] != 1 {
			t.Errorf("%s is there %d times", want, got[want])
		}
	}
	logged := 0
	for what, n := range got {
		if strings.HasSuffix(what, " invented") {
			logged += n
		}
	}
	if logged < 1000 || logged > 10_100 {
		t.Errorf("%d events of invented machines", logged)
	}
	if w.Counters().Unlogged == 0 {
		t.Error("nobody is told that events were left out")
	}
}

// What is kept has a bound in each share, and the oldest go.
func TestSharesOfTheLogAreBounded(t *testing.T) {
	w := newWorld(t, byMembers, func(c *fleet.Config) { c.Keep(1000, 50, 20, 10) })
	for range 10 {
		w.hears("pos-1")
	}
	w.approve("pos-1")
	for i := range 60 {
		if err := w.Log(t.Context(), fleet.Event{Kind: "rollout.opened", Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		w.hears("pos-1", func(r *manifest.Report) {
			r.Events = []manifest.EventCount{{Code: fault.Rollback, Count: int64(i + 1)}, {Code: fault.Rollback, Count: 1}}
		})
		if err := w.posts(fmt.Sprintf("new-%d", i)); err != nil {
			t.Fatal(err)
		}
		if i == 30 {
			w.reopen()
		}
	}
	check := func() {
		t.Helper()
		got := w.kinds()
		if got["rollout.opened"] != 50 || got["agent.event pos"] != 50 || got["agent.new new"] != 10 || got["agent.state new"] != 10 || len(got) != 4 {
			t.Errorf("kept: %v", got)
		}
	}
	check()
	w.reopen()
	check()
	page, err := w.Events(t.Context(), fleet.EventQuery{Limit: 1})
	if err != nil || page.Events[0].Text != "10" {
		t.Errorf("the first that is kept: %+v, %v", page, err)
	}
	a, err := w.Find(t.Context(), "pos-1")
	if err != nil {
		t.Fatal(err)
	}
	if page, err := w.Events(t.Context(), fleet.EventQuery{Agent: a.ID}); err != nil || len(page.Events) != 50 {
		t.Errorf("of one machine: %d, %v", len(page.Events), err)
	}
	// Backwards, page by page, over the numbers that are no longer there.
	n := 0
	for before := uint64(0); ; {
		page, err := w.Events(t.Context(), fleet.EventQuery{Last: true, Before: before, Limit: 7})
		if err != nil {
			t.Fatal(err)
		}
		if n += len(page.Events); len(page.Events) == 0 {
			break
		}
		before = page.Events[0].Seq
	}
	if n != 120 {
		t.Errorf("%d events backwards, 120 are kept", n)
	}
}

func TestMachinesAreBounded(t *testing.T) {
	w := newWorld(t, byMembers, func(c *fleet.Config) { c.Keep(5, 50, 20, 10) })
	for i := range 5 {
		if err := w.posts(fmt.Sprintf("pos-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.posts("pos-5"); !errors.Is(err, fault.Quota) {
		t.Errorf("one too many: %v", err)
	}
	w.pass(time.Second)
	if err := w.posts("pos-4"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if _, err := w.Forget(t.Context(), []string{"pos-3"}); err != nil {
		t.Fatal(err)
	}
	if err := w.posts("pos-5"); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// A log from before there were shares opens, is bounded, and takes what such a version
// logs after that.
func TestLogWithoutSharesOpens(t *testing.T) {
	w := newWorld(t, func(c *fleet.Config) { c.Keep(10, 5, 5, 10) })
	w.hears("pos-1")
	w.approve("pos-1")
	w.hears("pos-1", state(manifest.StateFailed, "2.4.1"))
	for i := range 3 {
		if err := w.Log(t.Context(), fleet.Event{Kind: "rollout.opened", Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	want := w.kinds()
	without := func(change func(tx *bolt.Tx) error) {
		t.Helper()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(filepath.Join(w.dir, fleet.DBFile), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		w.open()
	}
	without(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("shares")) })
	if got := w.kinds(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("kept %v of %v", got, want)
	}
	without(func(tx *bolt.Tx) error { // as the other version does
		log := tx.Bucket([]byte("events"))
		for i := range 7 {
			seq, err := log.NextSequence()
			if err != nil {
				return err
			}
			v, err := json.Marshal(fleet.Event{Seq: seq, Time: w.clock(), Kind: fleet.KindAgentEvent, Text: fmt.Sprint(i)})
			if err != nil {
				return err
			}
			if err := log.Put([]byte{0, 0, 0, 0, 0, 0, 0, byte(seq)}, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err := w.Log(t.Context(), fleet.Event{Kind: "rollout.opened", Text: "later"}); err != nil {
		t.Fatal(err)
	}
	got := w.kinds()
	if got["agent.event"] != 5 || got["rollout.opened"] != 4 || got["agent.approved pos"] != 1 {
		t.Errorf("kept: %v", got)
	}
	page, err := w.Events(t.Context(), fleet.EventQuery{Last: true, Limit: 1})
	if err != nil || page.Events[0].Text != "later" || page.Events[0].Seq != uint64(13) {
		t.Errorf("the last: %+v, %v", page, err)
	}
}

// However much was logged once before, there is room for the next, and the disk is bounded.
func TestMarksAreBounded(t *testing.T) {
	w := newWorld(t, func(c *fleet.Config) { c.Keep(10, 1000, 5, 10) })
	once := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			e := fleet.Event{Kind: fleet.KindExpirySoon, Text: fmt.Sprint(i)}
			if err := w.LogOnce(t.Context(), fmt.Sprintf("manifest %d 7d", 1000-i), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	logged := func(want int) {
		t.Helper()
		if n := w.kinds()[fleet.KindExpirySoon]; n != want {
			t.Errorf("%d are logged, want %d", n, want)
		}
	}
	once(0, 25)
	logged(25)
	once(15, 25) // these are still known
	logged(25)
	w.reopen()
	once(15, 25)
	logged(25)
	once(25, 28)
	once(18, 28)
	logged(28)
	once(0, 1) // and this one no longer
	logged(29)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(w.dir, fleet.DBFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket([]byte("marks")).Stats().KeyN
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil || n != 10 {
		t.Errorf("%d marks on the disk, %v", n, err)
	}
	w.open()
}
