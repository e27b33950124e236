package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one neighbour may say. What is beyond is not even read; who goes on and on is at
// fault.
const (
	messagesPerSecond = 32
	messagesAtOnce    = 256
	bytesPerSecond    = 256 << 10
	bytesAtOnce       = 2 << 20
	maxInbox          = 64        // messages that wait
	maxInboxBytes     = 256 << 10 // of them
	floodAt           = 1024      // messages beyond all that

	inTurn = 16 // messages of one neighbour that are read before the others have their turn
)

// Faults.
const (
	mutedAfter = 3
	mutedFor   = 10 * time.Minute
	faultsFade = time.Hour // a fault is forgotten so long after the last one
	maxRecords = 1024
)

// Member is one member of a channel. Its methods may be called at any time and from any
// goroutine; none waits for the board or a link.
type Member struct {
	c    Config
	log  *slog.Logger
	ctx  context.Context // of the board's offers
	stop context.CancelFunc
	wake chan struct{} // has an element when there is something to do

	running sync.WaitGroup
	toJudge chan *transfer
	judged  chan judgement

	mu         sync.Mutex // guards what follows; never held while a link or the board is called
	neighbours map[*Neighbour]struct{}
	records    map[string]*record
	changed    bool // the board may hold something else than head says
	stats      Stats

	state // belongs to the loop
}

// record is what is known of somebody, connected or not.
type record struct {
	faults  int
	last    time.Time
	muted   time.Time     // until then
	serving *rate.Limiter // of all that it is given, over whatever connections
}

// Neighbour is one end of a link.
type Neighbour struct {
	m    *Member
	who  string
	link Link

	// Guarded by m.mu.
	inbox    [][]byte
	inBytes  int
	messages *rate.Limiter
	bytes    *rate.Limiter
	over     int
	left     bool
	have     Head
	heard    time.Time

	relation // belongs to the loop
}

// New returns a member with no neighbours. Close must be called.
func New(c Config) *Member {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Member{
		c: c, log: c.Logger, wake: make(chan struct{}, 1), changed: true,
		toJudge: make(chan *transfer, maxTransfers), judged: make(chan judgement, maxTransfers),
		neighbours: make(map[*Neighbour]struct{}), records: make(map[string]*record),
		state: state{transfers: make(map[key]*transfer), passed: make(map[key]time.Time)},
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.running.Go(m.run)
	m.running.Go(m.judge)
	return m
}

// Close ends the member and waits for an offer under way. Links are left as they are.
func (m *Member) Close() {
	m.stop()
	m.running.Wait()
}

// Join adds a neighbour: who it is, as far as can be known, and the way to it. It is nil,
// and the link not used, for one who is muted.
func (m *Member) Join(who string, link Link) *Neighbour {
	now := time.Now()
	nb := &Neighbour{
		m: m, who: who, link: link, heard: now,
		messages: rate.NewLimiter(messagesPerSecond, messagesAtOnce), bytes: rate.NewLimiter(bytesPerSecond, bytesAtOnce),
		relation: relation{refused: make(map[key]time.Time)},
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.record(who, now)
	if now.Before(r.muted) {
		return nil
	}
	nb.serving = r.serving
	m.neighbours[nb] = struct{}{}
	m.poke()
	return nb
}

// Deliver takes what the neighbour said, which is copied, or dropped if it has said too
// much.
func (nb *Neighbour) Deliver(message []byte) {
	m, now := nb.m, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	nb.heard = now
	m.stats.Heard++
	m.stats.HeardBytes += int64(len(message))
	switch {
	case nb.left:
	case len(message) > partHead+maxPart, len(nb.inbox) >= maxInbox, nb.inBytes+len(message) > maxInboxBytes,
		!nb.messages.AllowN(now, 1), !nb.bytes.AllowN(now, len(message)):
		m.stats.Dropped++
		if nb.over++; nb.over >= floodAt {
			m.poke()
		}
	default:
		nb.inbox, nb.inBytes = append(nb.inbox, bytes.Clone(message)), nb.inBytes+len(message)
		m.poke()
	}
}

// Leave takes the neighbour out. Its link is not used any more, soon.
func (nb *Neighbour) Leave() {
	nb.m.mu.Lock()
	defer nb.m.mu.Unlock()
	nb.left = true
	nb.m.poke()
}

// Changed says that the board may hold something else than before.
func (m *Member) Changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = true
	m.poke()
}

// poke wakes the loop.
func (m *Member) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Seen returns how the neighbour is known now.
func (nb *Neighbour) Seen() Seen {
	m := nb.m
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Seen{Who: nb.who, Have: nb.have, Heard: nb.heard}
	if r := m.records[nb.who]; r != nil {
		s.Faults = r.faults
	}
	return s
}

// Muted reports whether somebody is kept out.
func (m *Member) Muted(who string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[who]
	return r != nil && time.Now().Before(r.muted)
}

// Stats returns what the member did.
func (m *Member) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	now := time.Now()
	for _, r := range m.records {
		if now.Before(r.muted) {
			st.Muted++
		}
	}
	return st
}

// count changes the stats.
func (m *Member) count(change func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.stats)
}

// run is the loop: everything but judging happens in it.
func (m *Member) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.wake:
		case <-timer.C:
		case j := <-m.judged:
			m.conclude(j, time.Now())
		case <-m.ctx.Done():
			return
		}
		timer.Reset(time.Until(m.step(time.Now())))
	}
}

// judge has the board judge documents, one after the other.
func (m *Member) judge() {
	for {
		select {
		case t := <-m.toJudge:
			v := m.c.Board.Offer(m.ctx, Document{
				Name: t.name, SHA256: t.sha256, Root: t.root, From: t.from.who, Body: t.body,
			})
			m.judged <- judgement{t, v} // there is room for every transfer
		case <-m.ctx.Done():
			return
		}
	}
}

// step does what is to be done now, and returns when there is more.
func (m *Member) step(now time.Time) time.Time {
	m.mu.Lock()
	changed := m.changed
	m.changed = false
	var here, gone, flooding []*Neighbour
	for nb := range m.neighbours {
		if nb.left {
			delete(m.neighbours, nb)
			gone = append(gone, nb)
			continue
		}
		here = append(here, nb)
		for ; nb.over >= floodAt; nb.over -= floodAt {
			flooding = append(flooding, nb)
		}
	}
	m.mu.Unlock()
	if changed {
		m.look()
	}
	for _, nb := range gone {
		m.abandon(nb)
	}
	for _, nb := range flooding {
		m.fault(nb, now, "says too much")
	}
	more := m.read(here, now)
	next := m.tell(here, now)
	if at := m.fetch(here, now); at.Before(next) {
		next = at
	}
	if more {
		next = now
	}
	return next
}

// read takes what neighbours have said, in turn. It reports whether there is more.
func (m *Member) read(here []*Neighbour, now time.Time) (more bool) {
	for range inTurn {
		more = false
		for _, nb := range here {
			m.mu.Lock()
			var b []byte
			if len(nb.inbox) > 0 {
				b = nb.inbox[0]
				if nb.inbox, nb.inBytes = nb.inbox[1:], nb.inBytes-len(b); len(nb.inbox) == 0 {
					nb.inbox = nil
				}
			}
			more = more || len(nb.inbox) > 0
			m.mu.Unlock()
			if b != nil && !nb.closed {
				m.hear(nb, b, now)
			}
		}
		if !more {
			return false
		}
	}
	return more
}

// fault notes that a neighbour did what nobody honest does. With the last one it is out,
// and all that go by the same name.
func (m *Member) fault(nb *Neighbour, now time.Time, why string) {
	m.mu.Lock()
	r := m.record(nb.who, now)
	if now.Sub(r.last) > faultsFade {
		r.faults = 0
	}
	r.faults++
	r.last = now
	var out []*Neighbour
	if r.faults >= mutedAfter {
		r.faults, r.muted = 0, now.Add(mutedFor)
		for o := range m.neighbours {
			if o.who == nb.who {
				out = append(out, o)
			}
		}
	}
	m.mu.Unlock()
	m.log.Debug("a neighbour is at fault", "peer", nb.who, "why", why)
	if len(out) > 0 {
		m.log.Warn("muted a neighbour", "peer", nb.who, "why", why, "for", mutedFor)
	}
	for _, o := range out {
		m.hangUp(o)
	}
}

// record returns what is known of somebody. It is called with m.mu held.
func (m *Member) record(who string, now time.Time) *record {
	r := m.records[who]
	if r == nil {
		m.makeRoom(now)
		r = &record{serving: rate.NewLimiter(servedPerSecond, servedAtOnce)}
		m.records[who] = r
	}
	return r
}

// makeRoom is called with m.mu held.
func (m *Member) makeRoom(now time.Time) {
	if len(m.records) < maxRecords {
		return
	}
	var any string
	for who, r := range m.records {
		any = who
		if now.Sub(r.last) > faultsFade {
			delete(m.records, who)
		}
	}
	if len(m.records) >= maxRecords {
		delete(m.records, any)
	}
}

// hangUp ends the link with a neighbour.
func (m *Member) hangUp(nb *Neighbour) {
	if !nb.closed {
		nb.closed = true
		m.abandon(nb)
		nb.link.Close()
	}
}
