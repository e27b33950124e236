package superseed

import (
	"slices"
	"testing"
	"time"
)

// Pieces are offered from the first to the last. Who has got one that nobody was given by
// this super seed has another to get it from, and two that go from first to last give the
// same: then, and only then, the order is drawn.
func TestOrder(t *testing.T) {
	const pieces, length = 256, 4
	now := time.Unix(1e9, 0)
	for _, row := range []struct {
		name  string
		other func(s *Seed, a, b *Peer, given int)
		mixed bool
	}{
		{"alone", func(*Seed, *Peer, *Peer, int) {}, false},
		{"passed-on", func(s *Seed, _, b *Peer, given int) { s.Announced(b, given, now) }, false},
		{"another-of-the-same-pace", func(s *Seed, a, b *Peer, _ int) {
			s.Announced(b, a.open[0].piece, now) // a is about to get it here
		}, true},
		{"another", func(s *Seed, _, b *Peer, _ int) { s.Announced(b, pieces-1, now) }, true},
		{"somebody-who-had-some", func(s *Seed, _, _ *Peer, _ int) {
			s.Brought(s.Join(now), func(piece int) bool { return piece > 200 }, now)
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := New(pieces, func(int) int64 { return length })
			a, b := s.Join(now), s.Join(now)
			s.Begin(a, now)
			first := a.Take()
			if !slices.IsSorted(first) || len(first) == 0 || first[0] != 0 {
				t.Fatalf("offered at first: %v", first)
			}
			s.Asked(a, Block{0, 0}, now)
			s.Answered(a, Block{0, 0}, length, now)
			s.Announced(a, 0, now)
			row.other(s, a, b, 0)
			if mixed := !slices.IsSorted(s.order); mixed != row.mixed {
				t.Errorf("drawn at random: %v, want %v", mixed, row.mixed)
			}
			again := slices.Clone(s.order)
			s.Announced(b, pieces-2, now)
			if row.mixed && !slices.Equal(again, s.order) {
				t.Error("drawn twice")
			}
			slices.Sort(again)
			for i, piece := range again {
				if i != piece {
					t.Fatalf("piece %d is missing from the order", i)
				}
			}
		})
	}
}

// An offer that is not asked for makes room for another, but not sooner than it takes the
// others to ask: where that is long, more and more would be under way side by side.
func TestRoomWhereAskingTakesLong(t *testing.T) {
	const peers, length = 20, 4
	now := time.Unix(1e9, 0)
	s := New(400, func(int) int64 { return length })
	all := gather(s, peers, now)
	type asked struct {
		p     *Peer
		piece int
	}
	var late []asked // what is offered now is asked for a second later
	for range 15 {
		s.Tick(now)
		late = late[:0]
		for _, p := range all {
			for _, o := range p.open {
				late = append(late, asked{p, o.piece})
			}
		}
		for range 5 {
			now = now.Add(200 * time.Millisecond)
			s.Tick(now)
		}
		for _, l := range late {
			s.Asked(l.p, Block{uint32(l.piece), 0}, now)
			s.Answered(l.p, Block{uint32(l.piece), 0}, length, now)
			s.Announced(l.p, l.piece, now)
		}
	}
	open := offersTo(all)
	if r := s.round(now); open > 2*r.most {
		t.Errorf("%d offers are under way, want about %d", open, r.most)
	}
	if got := s.askTime(); got < time.Second || got > offerPatience {
		t.Errorf("an offer is waited for for %s, want a second at least and %s at most", got, offerPatience)
	}
}

// Peers that ask as late as they can make a super seed wait four times offerPatience and no
// more for who does not ask.
func TestLateAskersBuyLittleTime(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(256, func(int) int64 { return 4 })
	p := s.Join(now)
	s.Begin(p, now)
	for range 100 {
		piece := p.open[0].piece
		now = now.Add(time.Hour)
		s.Asked(p, Block{uint32(piece), 0}, now)
		s.Answered(p, Block{uint32(piece), 0}, 4, now)
		s.Announced(p, piece, now)
		if s.asks > offerPatience {
			t.Fatalf("asking is taken to need %s", s.asks)
		}
	}
	lazy := s.Join(now)
	s.Begin(lazy, now)
	if s.Tick(now.Add(slowOffer * offerPatience)); !lazy.idle {
		t.Error("who does not ask is waited for longer than that")
	}
}

// Where offers take long, whoever has been sent one has long to say that it has it; who does
// not ask has not.
func TestSilence(t *testing.T) {
	const length = 4
	now := time.Unix(1e9, 0)
	s := New(256, func(int) int64 { return length })
	p, lazy := s.Join(now), s.Join(now)
	s.Begin(p, now)
	send := func() int {
		piece := p.open[len(p.open)-1].piece
		s.Asked(p, Block{uint32(piece), 0}, now)
		s.Answered(p, Block{uint32(piece), 0}, length, now)
		return piece
	}
	for range 40 {
		if len(p.open) == 0 {
			s.Tick(now)
		}
		piece := send()
		now = now.Add(4 * time.Second)
		s.Announced(p, piece, now)
	}
	for len(p.open) > 0 { // what it was offered as well, meanwhile
		s.closeOffer(p, 0)
	}
	s.Begin(lazy, now)
	s.Tick(now)
	if len(lazy.open) == 0 || len(p.open) == 0 {
		t.Fatalf("%d and %d pieces are offered, want some to each", len(p.open), len(lazy.open))
	}
	sent := send()
	for _, row := range []struct {
		after  time.Duration
		passed bool
	}{
		{3 * time.Second, false},
		{7 * time.Second, false},
		{9 * time.Second, true},
	} {
		s.Tick(now.Add(row.after))
		if got := p.knows[sent] == passed; got != row.passed {
			t.Errorf("%s after it was sent, the offer has failed: %v, want %v", row.after, got, row.passed)
		}
		if !lazy.idle {
			t.Errorf("after %s the peer that does not ask counts as one that does", row.after)
		}
	}
}

// A crowd that asks late is not offered a piece each because nothing was sent meanwhile; and
// many who ask nothing at all keep who does waiting for a few seconds.
func TestSlowStart(t *testing.T) {
	const length = 4
	begin := time.Unix(1e9, 0)
	t.Run("all-ask-late", func(t *testing.T) {
		s := New(400, func(int) int64 { return length })
		all := gather(s, 64, begin)
		for now := begin; now.Before(begin.Add(time.Second)); now = now.Add(Every) {
			s.Tick(now)
		}
		if n := offersTo(all); n > 16 {
			t.Errorf("%d pieces are offered in a second in which nobody asked", n)
		}
	})
	t.Run("most-never-ask", func(t *testing.T) {
		s := New(400, func(int) int64 { return length })
		gather(s, 200, begin)
		honest := gather(s, 1, begin)[0]
		now := begin
		for ; len(honest.open) == 0; now = now.Add(Every) {
			if now.Sub(begin) > 5*time.Second {
				t.Fatalf("nothing was offered to the last of %d peers", s.Peers())
			}
			s.Tick(now)
		}
	})
}

// Pieces that wait for each other take longer, and that does not allow for more of them.
func TestWaitingAllowsForNoMore(t *testing.T) {
	const length = 4
	now := time.Unix(1e9, 0)
	s := New(4000, func(int) int64 { return length })
	all := gather(s, 50, now)
	most := 0
	for range 600 { // 8 pieces a second, the longest offered first
		s.Tick(now)
		for _, p := range all {
			for _, o := range p.open {
				if !o.asked {
					s.Asked(p, Block{uint32(o.piece), 0}, now)
				}
			}
		}
		now = now.Add(time.Second / 8)
		most = max(most, offersTo(all))
		var last *Peer
		for _, p := range all {
			if len(p.open) > 0 && (last == nil || p.open[0].at.Before(last.open[0].at)) {
				last = p
			}
		}
		if last != nil {
			piece := last.open[0].piece
			s.Answered(last, Block{uint32(piece), 0}, length, now)
			s.Announced(last, piece, now)
		}
	}
	if most > 24 {
		t.Errorf("%d pieces were offered at a time, where eight are sent in a second", most)
	}
}

// Who comes when nothing was to do for long is offered no more at once than the first were.
func TestSecondCrowd(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(400, func(int) int64 { return 4 })
	first := gather(s, 1, now)[0]
	for piece := range 100 {
		s.Announced(first, piece, now)
	}
	s.Leave(first, now)
	now = now.Add(time.Hour)
	second := gather(s, 64, now)
	if n := offersTo(second); n == 0 || n > 8 {
		t.Errorf("%d pieces are offered when 64 peers come", n)
	}
}

// Whose pieces do not spread, because its link is thin, is given fewer than the others, and
// as many again when they do.
func TestWhoBearsLeast(t *testing.T) {
	const peers, length = 6, 4
	now := time.Unix(1e9, 0)
	s := New(4000, func(int) int64 { return length })
	all := gather(s, peers, now)
	thin := all[0]
	// run counts what thin is given, and what the others are on average.
	run := func(spreads bool) (its, theirs int) {
		for range 200 {
			now = now.Add(20 * time.Millisecond)
			s.Tick(now)
			for _, p := range all {
				for _, o := range slices.Clone(p.open) {
					s.Asked(p, Block{uint32(o.piece), 0}, now)
					s.Answered(p, Block{uint32(o.piece), 0}, length, now)
					s.Announced(p, o.piece, now)
					if p == thin {
						its++
					} else {
						theirs++
					}
					for _, q := range all {
						if p != thin || spreads {
							s.Announced(q, o.piece, now)
						}
					}
				}
			}
		}
		return its, theirs / (peers - 1)
	}
	if its, theirs := run(false); its == 0 || 2*its > theirs {
		t.Errorf("who passes nothing on is given %d pieces, the others %d each", its, theirs)
	}
	for piece, p := range s.bearer {
		if p == thin {
			for _, q := range all {
				s.Announced(q, piece, now)
			}
		}
	}
	if thin.bears != 0 {
		t.Errorf("it bears %d pieces that all have", thin.bears)
	}
	if its, theirs := run(true); 2*its < theirs {
		t.Errorf("who passes on what it gets is given %d pieces, the others %d each", its, theirs)
	}
}

// What somebody was offered who has left is offered to somebody else at once.
func TestWhoLeavesIsReplaced(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(400, func(int) int64 { return 4 })
	first := gather(s, 1, now)[0]
	if len(first.open) != leastOffers {
		t.Fatalf("%d pieces are offered to the first, want all that can be sent", len(first.open))
	}
	second := gather(s, 1, now)[0]
	second.Take()
	s.Leave(first, now)
	if got := second.Take(); !slices.Contains(got, 0) {
		t.Errorf("offered when the first has left: %v, want what it was offered", got)
	}
	for piece, p := range s.bearer {
		if p == first {
			t.Errorf("who has left bears piece %d", piece)
		}
	}
}

// gather has so many peers come that take what they are offered.
func gather(s *Seed, peers int, now time.Time) (all []*Peer) {
	for range peers {
		p := s.Join(now)
		s.Begin(p, now)
		all = append(all, p)
	}
	return all
}

// offersTo is how many offers to peers are under way.
func offersTo(peers []*Peer) (n int) {
	for _, p := range peers {
		n += len(p.open)
	}
	return n
}
