package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/publisher/fleet"
)

// A report that was recorded must not make a machine that is gone be seen now.
func TestReplayAfterForgetting(t *testing.T) {
	w := newWorld(t)
	recorded := w.report("pos-1")
	if _, err := w.Take(t.Context(), recorded, fleet.Via{}); err != nil {
		t.Fatal(err)
	}
	w.approve("pos-1")
	allow, err := os.ReadFile(filepath.Join(w.dir, "agents.allow"))
	if err != nil {
		t.Fatal(err)
	}
	replay := func(when string) {
		t.Helper()
		if _, err := w.Find(t.Context(), "pos-1"); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s it is still known: %v", when, err)
		}
		if _, err := w.Take(t.Context(), recorded, fleet.Via{}); !errors.Is(err, fault.Rollback) {
			t.Errorf("%s: %v", when, err)
		}
	}
	w.pass(91 * 24 * time.Hour)
	w.reopen() // which tidies
	replay("after 91 days")
	w.reopen()
	replay("after another restart")
	w.hears("pos-1")
	a, err := w.Find(t.Context(), "pos-1")
	if err != nil || !a.Approved {
		t.Fatalf("once it is back: %+v, %v", a, err)
	}
	recorded = w.report("pos-1") // of the same second, and so with the same counter
	if _, err := w.Forget(t.Context(), []string{"pos-1"}); err != nil {
		t.Fatal(err)
	}
	replay("forgotten by a person")
	if err := os.WriteFile(filepath.Join(w.dir, "agents.allow"), allow, 0o644); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	replay("with its key put back")
}

// Counters of machines that are gone are bounded; those of approved keys stay.
func TestForgottenCountersAreBounded(t *testing.T) {
	w := newWorld(t, byMembers, func(c *fleet.Config) { c.Keep(4, 50, 20, 10) })
	var recorded [][]byte
	for round := range 2 {
		for i := range 4 {
			name := fmt.Sprintf("pos-%d", round*4+i)
			env := w.report(name)
			recorded = append(recorded, env)
			if _, err := w.Take(t.Context(), env, fleet.Via{Member: true}); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			w.approve("pos-0")
		}
		w.pass(91 * 24 * time.Hour)
		w.reopen()
	}
	w.reopen()
	for i, want := range []fault.Code{fault.Rollback, fault.OK} {
		if _, err := w.Take(t.Context(), recorded[i], fleet.Via{Member: true}); fault.CodeOf(err) != want {
			t.Errorf("pos-%d: %v, want %s", i, err, want)
		}
	}
}
