package picker

import (
	"slices"
	"testing"
	"time"
)

const (
	piece = 64 << 10
	limit = 16 << 20
)

// a clock that tests move by hand.
var start = time.Unix(1_800_000_000, 0)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

func newPicker(pieces int, have ...int) *Picker {
	return New(pieces, piece, limit, func(int) int64 { return piece }, func(i int) bool { return slices.Contains(have, i) })
}

// join adds a peer that answers and has these pieces.
func join(k *Picker, pieces ...int) *Peer {
	p := k.Join(start)
	p.Choking = false
	for _, i := range pieces {
		k.Has(p, i)
	}
	return p
}

func wantPicked(t *testing.T, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("picked %v, want %v", got, want)
	}
}

func TestRarestFirst(t *testing.T) {
	k := newPicker(4)
	join(k, 0, 1, 3)
	join(k, 0, 3)
	p := join(k, 0, 1, 2, 3)
	wantPicked(t, k.Pick(p, at(0)), 2)
	k.Came(p, 2, piece, at(100))
	wantPicked(t, k.Pick(p, at(300))[:1], 1)
}

func TestEachPieceOfOnePeer(t *testing.T) {
	k := newPicker(3, 1)
	a, b := join(k, 0, 1, 2), join(k, 0, 1, 2)
	got := slices.Concat(k.Pick(a, at(0)), k.Pick(b, at(0)))
	slices.Sort(got)
	wantPicked(t, got, 0, 2)
	wantPicked(t, k.Pick(a, at(0)))
	wantPicked(t, k.Pick(b, at(0)))
}

// What nobody brings is asked of others: of who is left, or right away if it was wrong.
func TestFreedPieces(t *testing.T) {
	for _, row := range []struct {
		name string
		free func(k *Picker, a *Peer)
	}{
		{"left", func(k *Picker, a *Peer) { k.Leave(a); k.Leave(a) }},
		{"bad", func(k *Picker, a *Peer) { k.Came(a, 0, piece, at(10)); k.Judged(0, false) }},
	} {
		k := newPicker(1)
		a := join(k, 0)
		wantPicked(t, k.Pick(a, at(0)), 0)
		b := join(k, 0)
		wantPicked(t, k.Pick(b, at(0)))
		row.free(k, a)
		wantPicked(t, k.Pick(b, at(20)), 0)
		k.Judged(0, true)
		k.Leave(b)
		wantPicked(t, k.Pick(join(k, 0), at(30)))
	}
}

// A peer that has left is asked for nothing, though its reader may not know yet.
func TestWhoHasLeft(t *testing.T) {
	k := newPicker(1)
	a := join(k, 0)
	k.Leave(a)
	k.Has(a, 0)
	wantPicked(t, k.Pick(a, at(0)))
	wantPicked(t, k.Pick(join(k, 0), at(0)), 0)
}

// A peer is asked for as much as it sends in QueueTime and two round trips, and one piece;
// an origin for a few at least.
func TestHowMuch(t *testing.T) {
	for _, row := range []struct {
		name string
		rate int64 // bytes per second
		rtt  time.Duration
		org  bool
		want int
	}{
		{"unknown", 0, 0, false, 1},
		{"origin", 0, 0, true, originPieces},
		{"slow", 16 << 10, 0, false, 1},
		{"1-MiB-a-second", 1 << 20, 0, false, 2},
		{"far-away", 1 << 20, 125 * time.Millisecond, false, 6},
		{"absurd", 1 << 40, time.Hour, false, limit / piece},
	} {
		k := newPicker(1000)
		p := join(k)
		for i := range 1000 {
			k.Has(p, i)
		}
		p.Origin, p.RTT = row.org, row.rtt
		p.rate.Add(0, at(0))
		p.rate.Add(row.rate/4, at(1))
		if got := len(k.Pick(p, at(250))); got != row.want {
			t.Errorf("%s: %d pieces, want %d", row.name, got, row.want)
		}
		wantPicked(t, k.Pick(p, at(250)))
	}
}

// A peer that chokes has to know that something is wanted of it, and that takes nothing
// from the others.
func TestChoking(t *testing.T) {
	k := newPicker(2)
	p := join(k, 0)
	p.Choking = true
	wantPicked(t, k.Pick(p, at(0)), 0)
	k.Has(p, 1)
	wantPicked(t, k.Pick(p, at(0)))
	o := join(k, 0)
	wantPicked(t, k.Pick(o, at(0)), 0)
	k.Judged(0, true)
	wantPicked(t, k.Pick(p, at(10)), 1)
}

// late is what Late says.
type late struct {
	p     *Peer
	piece int
	again bool
}

func lateAt(k *Picker, ms int) (all []late) {
	k.Late(at(ms), func(p *Peer, piece int, again bool) { all = append(all, late{p, piece, again}) })
	return all
}

// Who claims and does not give keeps a piece for LateAfter, gets no other, and is not asked
// again before idleTime has passed or it has sent something.
func TestWhoGivesNothing(t *testing.T) {
	k := newPicker(3)
	liar := join(k, 0, 1, 2)
	honest := join(k, 0)
	k.Has(honest, 1)
	wantPicked(t, k.Pick(liar, at(0)), 2)
	k.Has(honest, 2)
	if got := lateAt(k, 1999); got != nil {
		t.Fatalf("late: %v", got)
	}
	if got := lateAt(k, 2000); len(got) != 1 || got[0] != (late{honest, 2, false}) {
		t.Fatalf("late: %v", got)
	}
	if got := lateAt(k, 2100); got != nil {
		t.Fatalf("late twice: %v", got)
	}
	k.Came(honest, 2, piece, at(2200))
	k.Judged(2, true)
	wantPicked(t, k.Pick(liar, at(2300)))
	wantPicked(t, k.Pick(liar, at(6900)))
	if got := k.Pick(liar, at(7100)); len(got) != 1 {
		t.Fatalf("never asked again: %v", got)
	}
}

// Whoever sends what it was asked for, however late, is asked again.
func TestWhoComesBack(t *testing.T) {
	k := newPicker(2)
	p := join(k, 0, 1)
	first := k.Pick(p, at(0))
	o := join(k, 0, 1)
	if got := lateAt(k, 2000); len(got) != 1 || got[0].p != o {
		t.Fatalf("late: %v", got)
	}
	k.Came(p, first[0], piece, at(2500))
	k.Judged(first[0], true)
	wantPicked(t, k.Pick(p, at(2500)), 1-first[0])
}

// Where pieces take long, nobody is late who takes no longer.
func TestSlowForEveryone(t *testing.T) {
	k := newPicker(2)
	a, b := join(k, 0, 1), join(k, 0, 1)
	one, other := k.Pick(a, at(0)), k.Pick(b, at(0))
	k.Came(a, one[0], piece, at(3000))
	k.Judged(one[0], true)
	if got := lateAt(k, 11_900); got != nil {
		t.Fatalf("late: %v", got)
	}
	if got := lateAt(k, 12_000); len(got) != 1 || got[0].p != a || got[0].piece != other[0] {
		t.Fatalf("late: %v", got)
	}
}

// Who takes far longer than the others is asked only for what none of those has, and what it
// has not begun with is asked of them as soon as they have it.
func TestSlowPeers(t *testing.T) {
	const slowPiece, fastPiece = 100, 30
	k := newPicker(400)
	slow, fast := join(k, slowPiece), join(k)
	wantPicked(t, k.Pick(slow, at(0)), slowPiece)
	ms := 0
	for ; ms < 1500; ms += 100 { // the others take 100 ms for a piece
		k.Has(fast, fastPiece+ms/100)
		wantPicked(t, k.Pick(fast, at(ms)), fastPiece+ms/100)
		k.Came(fast, fastPiece+ms/100, piece, at(ms+100))
		k.Judged(fastPiece+ms/100, true)
	}
	if got := lateAt(k, ms); got != nil {
		t.Fatalf("late, though nobody else has it: %v", got)
	}
	k.Has(fast, slowPiece)
	if got := lateAt(k, ms); len(got) != 1 || got[0] != (late{fast, slowPiece, false}) {
		t.Fatalf("late: %v, want the slow one's piece of the fast one", got)
	}
	k.Came(fast, slowPiece, piece, at(ms+100))
	k.Judged(slowPiece, true)
	k.Came(slow, slowPiece, piece, at(ms+100)) // in vain

	// It is known by what it took for the next one.
	k.Has(slow, 200)
	wantPicked(t, k.Pick(slow, at(ms+6000)), 200)
	ms += 8000
	k.Came(slow, 200, piece, at(ms))
	k.Judged(200, true)
	for _, i := range []int{210, 211} {
		k.Has(slow, i)
	}
	k.Has(fast, 211)
	wantPicked(t, k.Pick(slow, at(ms)), 210)
	k.Came(slow, 210, piece, at(ms+2000))
	k.Judged(210, true)
	wantPicked(t, k.Pick(slow, at(ms+2000)))
	for _, row := range []struct {
		fact string
		then func()
	}{
		{"chokes", func() { fast.Choking = true }},
		{"lets its time pass", func() { fast.Choking, fast.idle = false, at(ms+2000) }},
		{"leaves", func() { k.Leave(fast) }},
	} {
		row.then()
		if s := k.scarce(at(ms + 2000)); !s.has(211) {
			t.Errorf("a piece is left to a fast peer that %s", row.fact)
		}
	}
}

// Where everyone takes as long, nobody is slow.
func TestNobodyIsSlow(t *testing.T) {
	k := newPicker(100)
	a, b := join(k), join(k)
	for i := range 40 {
		p := []*Peer{a, b}[i%2]
		k.Has(p, i)
		wantPicked(t, k.Pick(p, at(i*5000)), i)
		k.Came(p, i, piece, at(i*5000+4000))
		k.Judged(i, true)
	}
	for _, p := range []*Peer{a, b} {
		if k.slow(p, at(200_000)) {
			t.Error("a peer is slow that takes no longer than the others")
		}
	}
}

// A piece that two are asked for is free when both have left, and not before.
func TestAskedOfTwo(t *testing.T) {
	k := newPicker(1)
	a := join(k, 0)
	k.Pick(a, at(0))
	b := join(k, 0)
	lateAt(k, 2000)
	c := join(k, 0)
	k.Leave(a)
	wantPicked(t, k.Pick(c, at(2100)))
	k.Leave(b)
	wantPicked(t, k.Pick(c, at(2100)), 0)
}

// Every piece comes in the end, whoever leaves, lies or dawdles.
func TestEverythingComes(t *testing.T) {
	const pieces, peers = 200, 12
	k := newPicker(pieces)
	here := make([]bool, pieces)
	missing := pieces
	var all []*Peer
	for range peers {
		p := join(k)
		for i := range pieces {
			k.Has(p, i)
		}
		all = append(all, p)
	}
	asked := make(map[*Peer][]int)
	give := func(p *Peer, pieces []int) { asked[p] = append(asked[p], pieces...) }
	ms := 0
	for ; missing > 0; ms += 50 {
		if ms > 600_000 {
			t.Fatalf("%d pieces have not come", missing)
		}
		now := at(ms)
		k.Late(now, func(p *Peer, piece int, _ bool) { give(p, []int{piece}) })
		k.PickAll(now, give)
		for i, p := range all {
			if i < peers/2 || len(asked[p]) == 0 { // half of them give nothing, ever
				continue
			}
			n := asked[p][0]
			asked[p] = asked[p][1:]
			k.Came(p, n, piece, now)
			good := ms%7 > 0
			k.Judged(n, good)
			if good && !here[n] {
				here[n] = true
				missing--
			}
		}
		if ms == 1000 {
			k.Leave(all[peers-1])
			asked[all[peers-1]] = nil
		}
	}
	t.Logf("after %d ms", ms)
}
