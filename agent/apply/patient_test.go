package apply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
)

// errInUse is what Windows says of a file that a virus scanner has open.
var errInUse = errors.New("the process cannot access the file because it is being used by another process")

// impatient waits in no time.
func impatient(waits *[]time.Duration) patient {
	var now time.Time
	return patient{
		inUse: func(err error) bool { return errors.Is(err, errInUse) },
		now:   func() time.Time { return now },
		wait: func(ctx context.Context, d time.Duration) error {
			now = now.Add(d)
			*waits = append(*waits, d)
			return ctx.Err()
		},
	}
}

func TestFilesInUseAreTriedAgain(t *testing.T) {
	other := errors.New("another error")
	rows := []struct {
		name  string
		fails []error
		again bool
		want  error
		waits int
	}{
		{"free", nil, true, nil, 0},
		{"scanned-for-a-while", []error{errInUse, errInUse, errInUse}, true, nil, 3},
		{"another-error", []error{errInUse, other}, true, other, 1},
		{"cannot-be-repeated", []error{errInUse}, false, errInUse, 0},
		{"for-ever", slices.Repeat([]error{errInUse}, 100), true, fault.ApplyFailed, 17},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var waits []time.Duration
			n := 0
			err := impatient(&waits).try(t.Context(), "acme.exe", func() error {
				n++
				if n <= len(r.fails) {
					return r.fails[n-1]
				}
				return nil
			}, func() bool { return r.again })
			if !errors.Is(err, r.want) || len(waits) != r.waits {
				t.Errorf("%v after %v", err, waits)
			}
			if r.want == fault.ApplyFailed && (!errors.Is(err, errInUse) || !strings.Contains(why(err), "tried again for 1m")) {
				t.Errorf("it says %q", why(err))
			}
		})
	}
	var waits []time.Duration
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := impatient(&waits).try(ctx, "acme.exe", func() error { return errInUse }, func() bool { return true }); err != errInUse || len(waits) != 1 {
		t.Errorf("when it is to stop: %v after %v", err, waits)
	}
}

// staging returns a swapper and a transaction that is about to swap.
func staging(t *testing.T, m *machine) (*selfupdater, *journal, *[]time.Duration) {
	t.Helper()
	s := &selfupdater{binary: newBinary(m.proc, memTarget)}
	waits := new([]time.Duration)
	s.patient = impatient(waits)
	j := exampleJournal()
	j.Swap, j.State, j.To = SwapSelfupdate, Staged, sum(newProgram)
	j.ToRelease.Length = int64(len(newProgram))
	u := updateTo(newProgram)
	for _, err := range []error{s.stage(t.Context(), j, u.Source, ""), s.backup(j), s.unchanged(j), s.verify(j)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s, j, waits
}

// A scanner holds the program when it is to be moved away, and when it is to be put in
// place: that was undone, and is done again.
func TestCommitBinaryIsTriedAgain(t *testing.T) {
	rows := []struct {
		name, held string
		fails      []int // which of those calls
	}{
		{"moving-away", "rename .acme.shoal-20261122T112000-abc.old", []int{1, 2}},
		{"putting-in-place", "rename acme", []int{1, 3}}, // 2 and 4 put the old program back
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapSelfupdate, false)
			s, j, waits := staging(t, m)
			calls := 0
			m.proc.err = errInUse
			m.proc.match = func(call string) bool {
				if call != r.held {
					return false
				}
				calls++
				return slices.Contains(r.fails, calls)
			}
			if err := s.swap(t.Context(), j); err != nil || len(*waits) != 2 {
				t.Errorf("%v after %v", err, *waits)
			}
			m.assertWhole(t, "swapped", newProgram)
		})
	}
}

// If the program could not be put back either, another try would remove what is left.
func TestCommitBinaryIsNotTriedAgainWithoutATarget(t *testing.T) {
	m := newMachine(SwapSelfupdate, false)
	s, j, waits := staging(t, m)
	m.proc.err, m.proc.match = errInUse, func(call string) bool { return call == "rename acme" }
	if err := s.swap(t.Context(), j); !errors.Is(err, errInUse) || len(*waits) != 0 {
		t.Errorf("%v after %v", err, *waits)
	}
	m.proc.match = nil
	if err := s.restore(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	m.assertWhole(t, "restored", oldProgram)
}

// A bad version that still runs cannot be replaced there, and is moved away.
func TestRunningProgramIsMovedAway(t *testing.T) {
	m := newMachine(SwapSelfupdate, false)
	s, j, _ := staging(t, m)
	if err := s.swap(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	m.proc.err = errInUse
	m.proc.match = func(call string) bool {
		return call == "rename acme" && m.target() != "" || call == "remove .acme.shoal-20261122T112000-abc.bad.old"
	}
	if err := s.restore(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	m.assertWhole(t, "restored", oldProgram)
	if err := s.clean(j, false); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	m.proc.match = nil
	left, err := s.leftovers()
	if err != nil || len(left) != 1 {
		t.Fatalf("left: %q, %v", left, err)
	}
	if err := s.sweep(left); err != nil {
		t.Fatal(err)
	}
	m.assertTidy(t, "swept")
}
