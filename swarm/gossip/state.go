package gossip

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// A have is said again, so that both ends know of a link that is cut.
	tellEvery   = 15 * time.Second // more or less
	silentAfter = 40 * time.Second

	// What a neighbour is given at most.
	servedPerSecond = 128 << 10
	servedAtOnce    = 2 << 20
	maxBacklog      = 128 << 10 // bytes on their way to it

	maxTransfers = 8
	window       = 4 // parts asked for ahead

	// A transfer has stalled when no part has come for so long; the first counts where
	// another neighbour has the document too, or could use the place.
	impatience   = 2 * time.Second
	patience     = 10 * time.Second
	maxTransfer  = 2 * time.Minute
	firstPause   = 5 * time.Second // for who stalled; it doubles
	maxPause     = 10 * time.Minute
	passedPause  = 250 * time.Millisecond // for who gave what was not taken; it doubles
	passedFor    = 5 * time.Minute        // a document that was not taken is not asked for again
	maxPassed    = 256
	maxRefused   = 16 // of one neighbour
	farFromNow   = time.Hour
	maxHeadsTold = 10 // a second, to one neighbour
)

// key is what tells documents apart that are asked for.
type key struct {
	name   Name
	sha256 [32]byte // of a manifest's payload
}

// state is what the loop knows.
type state struct {
	head      Head
	transfers map[key]*transfer
	passed    map[key]time.Time // manifests that were not taken, until when
}

// relation is what the loop knows of a neighbour.
type relation struct {
	closed  bool
	told    Head
	greeted bool
	toldAt  time.Time
	tellAt  time.Time
	serving *rate.Limiter

	fetching *transfer
	stalls   int
	passed   int               // documents in a row that were not taken
	paused   time.Time         // until then nothing is asked of it
	refused  map[key]time.Time // what it gave and nobody should have, until when
}

// transfer is a document on its way from a neighbour, or with the board.
type transfer struct {
	key
	from    *Neighbour
	root    uint64 // of the neighbour
	body    []byte
	total   uint32 // 0: not known yet
	asked   uint32 // up to here
	began   time.Time
	moved   time.Time
	judging bool
}

type judgement struct {
	t *transfer
	v Verdict
}

// look asks the board what it holds.
func (m *Member) look() {
	head := m.c.Board.Head()
	if head.Root != m.head.Root {
		clear(m.passed) // under another root another verdict
	}
	m.head = head
}

// hear takes one message.
func (m *Member) hear(nb *Neighbour, b []byte, now time.Time) {
	msg, err := parse(b)
	if err != nil {
		m.fault(nb, now, err.Error())
		return
	}
	switch msg.kind {
	case msgHave:
		m.mu.Lock()
		nb.have = msg.have
		m.mu.Unlock()
	case msgWant:
		m.serve(nb, msg, now)
	case msgPart:
		m.take(nb, msg, now)
	}
}

// serve answers a want, unless the neighbour has had too much lately, or does not read.
func (m *Member) serve(nb *Neighbour, msg message, now time.Time) {
	b := encodePart(msg.name, m.c.Board.Document(msg.name), msg.offset)
	if nb.link.Backlog() < maxBacklog && nb.serving.AllowN(now, len(b)) {
		m.send(nb, b)
	}
}

func (m *Member) send(nb *Neighbour, b []byte) {
	m.count(func(st *Stats) { st.Sent, st.SentBytes = st.Sent+1, st.SentBytes+int64(len(b)) })
	nb.link.Send(b)
}

// take adds a part to the document that is on its way from a neighbour.
func (m *Member) take(nb *Neighbour, msg message, now time.Time) {
	t := nb.fetching
	if t == nil || t.judging || t.name != msg.name {
		return // it comes too late
	}
	if msg.total == 0 {
		m.stall(t, now)
		return
	}
	if t.total == 0 {
		t.total = msg.total
	}
	if msg.total != t.total {
		m.refuse(t, now, fmt.Sprintf("gave part of a %v of %d bytes, which has %d", t.name.Kind, msg.total, t.total))
		m.abandon(nb)
		return
	}
	if int(msg.offset) != len(t.body) {
		// What was asked for again after a stall comes twice, and who is asked for too much
		// leaves parts out.
		return
	}
	t.body, t.moved = append(t.body, msg.data...), now
	if uint32(len(t.body)) == t.total {
		t.judging = true
		m.toJudge <- t // there is room for every transfer
		return
	}
	m.ask(t)
}

// ask asks for the next parts.
func (m *Member) ask(t *transfer) {
	for t.asked == 0 || t.asked < t.total && t.asked < uint32(len(t.body))+window*maxPart {
		m.send(t.from, encodeWant(t.name, t.asked))
		t.asked += maxPart
	}
}

// refuse holds a document against the neighbour that gave it. Others may give a better
// one by that name.
func (m *Member) refuse(t *transfer, now time.Time, why string) {
	remember(t.from.refused, maxRefused, t.key, now)
	m.count(func(st *Stats) { st.Faulty++ })
	m.fault(t.from, now, why)
}

// remember keeps a key for a while, in a map of at most most.
func remember(m map[key]time.Time, most int, k key, now time.Time) {
	for old, until := range m {
		if now.After(until) {
			delete(m, old)
		}
	}
	for old := range m {
		if len(m) < most {
			break
		}
		delete(m, old)
	}
	m[k] = now.Add(passedFor)
}

// conclude acts on what the board said.
func (m *Member) conclude(j judgement, now time.Time) {
	t := j.t
	delete(m.transfers, t.key)
	t.from.fetching = nil
	switch j.v {
	case Taken:
		t.from.stalls, t.from.passed = 0, 0
		m.count(func(st *Stats) { st.Taken++ })
		m.look()
	case Faulty:
		m.refuse(t, now, "gave a bad "+t.name.Kind.String())
	default:
		m.count(func(st *Stats) { st.Passed++ })
		if t.name.Kind == Manifest { // the verdict is on what was signed, whoever has it
			remember(m.passed, maxPassed, t.key, now)
		} else {
			remember(t.from.refused, maxRefused, t.key, now)
		}
		// An honest neighbour rarely has two such; one that is not could go on for ever.
		t.from.paused = now.Add(min(passedPause<<min(t.from.passed, 10), maxPause))
		t.from.passed++
		m.look()
	}
}

// abandon ends the transfer from a neighbour, unless the board has it already.
func (m *Member) abandon(nb *Neighbour) {
	if t := nb.fetching; t != nil && !t.judging {
		delete(m.transfers, t.key)
		nb.fetching = nil
	}
}

// stall gives up a transfer, and leaves its neighbour alone for a while.
func (m *Member) stall(t *transfer, now time.Time) {
	nb := t.from
	m.abandon(nb)
	nb.paused = now.Add(min(firstPause<<min(nb.stalls, 10), maxPause))
	nb.stalls++
	m.count(func(st *Stats) { st.Stalled++ })
	m.log.Debug("a neighbour stalled", "peer", nb.who, "document", t.name.Kind.String())
}

// tell says to neighbours what is held, those that need to know or have not heard of us
// for a while, and parts with those that have been silent. It returns when to look again.
func (m *Member) tell(here []*Neighbour, now time.Time) time.Time {
	next := now.Add(farFromNow)
	for _, nb := range here {
		if nb.closed {
			continue
		}
		m.mu.Lock()
		heard, have := nb.heard, nb.have
		m.mu.Unlock()
		if now.Sub(heard) >= silentAfter {
			m.log.Debug("a neighbour is silent", "peer", nb.who)
			m.hangUp(nb)
			continue
		}
		due := nb.tellAt
		if !nb.greeted {
			due = now
		} else if nb.told != m.head && have != m.head {
			due = nb.toldAt.Add(time.Second / maxHeadsTold)
		}
		if !due.After(now) {
			nb.told, nb.greeted, nb.toldAt = m.head, true, now
			nb.tellAt = now.Add(tellEvery*4/5 + rand.N(tellEvery*2/5))
			due = nb.tellAt
			if nb.link.Backlog() < maxBacklog {
				m.send(nb, m.head.encode())
			}
		}
		if silent := heard.Add(silentAfter); silent.Before(due) {
			due = silent
		}
		if due.Before(next) {
			next = due
		}
	}
	return next
}

// fetch gives up what has stalled, and asks for what is newer. It returns when to look
// again.
func (m *Member) fetch(here []*Neighbour, now time.Time) time.Time {
	next := now.Add(farFromNow)
	wait := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, t := range m.transfers {
		if t.judging {
			continue
		}
		limit := t.moved.Add(patience)
		if len(m.transfers) >= maxTransfers || m.elsewhere(here, t.key, now) {
			limit = t.moved.Add(impatience)
		} else {
			wait(t.moved.Add(impatience))
		}
		if end := t.began.Add(maxTransfer); end.Before(limit) {
			limit = end
		}
		if !now.Before(limit) {
			m.stall(t, now)
			continue
		}
		wait(limit)
	}
	// Those that have not stalled come first, or a few could take every place.
	rand.Shuffle(len(here), func(i, j int) { here[i], here[j] = here[j], here[i] })
	slices.SortStableFunc(here, func(a, b *Neighbour) int { return min(a.stalls, 1) - min(b.stalls, 1) })
	for _, nb := range here {
		if now.Before(nb.paused) {
			wait(nb.paused)
			continue
		}
		if nb.closed || nb.fetching != nil || len(m.transfers) >= maxTransfers {
			continue
		}
		k, have, ok := m.wanted(nb, now)
		if !ok || m.transfers[k] != nil {
			continue
		}
		t := &transfer{key: k, from: nb, root: have.Root, began: now, moved: now}
		if k.name.Kind == Manifest {
			t.total = have.Size
		}
		m.transfers[k], nb.fetching = t, t
		m.ask(t)
		wait(now.Add(impatience))
	}
	return next
}

// elsewhere reports whether a document could be had from a neighbour that is free.
func (m *Member) elsewhere(here []*Neighbour, k key, now time.Time) bool {
	return slices.ContainsFunc(here, func(nb *Neighbour) bool {
		if nb.closed || nb.fetching != nil || now.Before(nb.paused) {
			return false
		}
		other, _, ok := m.wanted(nb, now)
		return ok && other == k
	})
}

// wanted is what a neighbour is to be asked for, and what it says that it has.
func (m *Member) wanted(nb *Neighbour, now time.Time) (key, Head, bool) {
	m.mu.Lock()
	h := nb.have
	m.mu.Unlock()
	if h.Root > m.head.Root {
		k := key{name: Name{Kind: Root, Number: m.head.Root + 1}}
		return k, h, !now.Before(nb.refused[k])
	}
	if h.Root < m.head.Root || h.Root == 0 {
		return key{}, h, false
	}
	if h.Order.after(m.head.Order) {
		k := key{Name{Manifest, h.Order.Epoch, h.Order.Sequence}, h.Manifest}
		if !now.Before(nb.refused[k]) && !now.Before(m.passed[k]) {
			return k, h, true
		}
	}
	if h.Beacon > m.head.Beacon {
		k := key{name: Name{Kind: Beacon, Number: h.Beacon}}
		return k, h, !now.Before(nb.refused[k])
	}
	return key{}, h, false
}
