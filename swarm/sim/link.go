package sim

import "time"

// Bytes of what is sent.
const (
	packet      = 1514          // a full packet, as the link counts it
	mss         = 1448          // payload of it
	headers     = packet - mss  // of any packet, and all of an acknowledgement
	record      = 22            // of a TLS record, beside what is in it
	haveSize    = 9             // messages (BEP 3)
	requestSize = 17            //
	blockExtra  = 13 + 2*record // of a piece message and its records
	firstWindow = 10 * mss      // RFC 6928
	leastWindow = 4 * mss       //
	slower      = 0.7           // of the window where a queue was full (RFC 9438, section 4.6)
	queued      = 4             // packets of one connection that wait in its machine's queue
	acked       = 2             // packets to an acknowledgement (RFC 5681, section 4.2)
	longQueue   = 50 * time.Millisecond
	onceIn      = 2 * longQueue // a window gets smaller
)

// A host is a machine and its link.
type host struct {
	*events
	rate  float64 // bytes per second, each way
	delay time.Duration
	up    queue
	down  queue
	sent  int64 // bytes
}

// A queue is what waits for one direction of a link.
type queue struct {
	packets []parcel
	bytes   int
	busy    bool
}

// A parcel is a packet under way: payload of a flow up to its byte end, or the
// acknowledgement of that.
type parcel struct {
	of   *flow
	size int // with headers
	end  int64
	ack  bool
}

func newHost(e *events, bitsPerSecond float64, delay time.Duration) *host {
	return &host{events: e, rate: bitsPerSecond / 8, delay: delay}
}

// pass lets the first of a queue over the link, and calls over with it.
func (h *host) pass(q *queue, over func(parcel)) {
	if q.busy || len(q.packets) == 0 {
		return
	}
	q.busy = true
	p := q.packets[0]
	q.packets = q.packets[1:]
	h.after(time.Duration(float64(p.size)/h.rate*float64(time.Second)), func() {
		q.busy = false
		q.bytes -= p.size
		over(p)
		h.pass(q, over)
	})
}

func (q *queue) add(p parcel) {
	q.packets = append(q.packets, p)
	q.bytes += p.size
}

func (h *host) send(p parcel) {
	h.up.add(p)
	h.pass(&h.up, h.leaves)
}

func (h *host) leaves(p parcel) {
	h.sent += int64(p.size)
	to := p.of.to
	if p.ack {
		to = p.of.from
	} else {
		p.of.waiting--
		p.of.pump()
	}
	h.after(h.delay, func() { to.receive(p) })
}

func (h *host) receive(p parcel) {
	if !p.ack && float64(h.down.bytes) > longQueue.Seconds()*h.rate {
		p.of.slowDown()
	}
	h.down.add(p)
	h.pass(&h.down, func(p parcel) {
		if p.ack {
			p.of.acknowledged(p.end)
		} else {
			p.of.deliver(p.end)
		}
	})
}

// A flow is one direction of a connection: a stream of messages in packets, with a window
// as TCP has.
type flow struct {
	*events
	from, to *host

	messages []*message // written, and not delivered
	held     []*message // blocks that are not written yet
	unsent   int64      // that may be written and not sent when the next block is written

	written, sent, confirmed int64
	waiting                  int // packets in the queue of from
	unacked                  int // packets

	window float64
	grown  bool // it has been too large
	cut    time.Duration
}

// A message is written to a flow. Its functions, if there are any, are called when it is
// written, when its first packet is there, and when it is there.
type message struct {
	size               int
	given, begun, done func()
	start, end         int64
	began              bool
}

func connect(a, b *host) (there, back *flow) {
	there = &flow{events: a.events, from: a, to: b, window: firstWindow, cut: -onceIn}
	back = &flow{events: a.events, from: b, to: a, window: firstWindow, cut: -onceIn}
	return there, back
}

func (f *flow) write(m *message) {
	m.start = f.written
	f.written += int64(m.size)
	m.end = f.written
	f.messages = append(f.messages, m)
	if m.given != nil {
		m.given()
	}
	f.pump()
}

// block writes a message when no more than unsent bytes wait before it.
func (f *flow) block(unsent int64, m *message) {
	f.held, f.unsent = append(f.held, m), unsent
	f.pump()
}

func (f *flow) pump() {
	for {
		if len(f.held) > 0 && f.written-f.sent < f.unsent {
			m := f.held[0]
			f.held = f.held[1:]
			f.write(m)
			continue
		}
		if f.sent == f.written || f.waiting == queued || float64(f.sent-f.confirmed) >= f.window {
			return
		}
		n := min(mss, f.written-f.sent)
		f.sent += n
		f.waiting++
		f.from.send(parcel{of: f, size: int(n) + headers, end: f.sent})
	}
}

func (f *flow) slowDown() {
	if f.now-f.cut >= onceIn {
		f.window = max(leastWindow, slower*f.window)
		f.grown, f.cut = true, f.now
	}
}

func (f *flow) acknowledged(to int64) {
	n := float64(to - f.confirmed)
	if n <= 0 {
		return
	}
	f.confirmed = to
	if f.grown {
		n *= mss / f.window
	}
	f.window += n
	f.pump()
}

// deliver takes a packet: what ends in it can be used.
func (f *flow) deliver(end int64) {
	if f.unacked++; f.unacked == acked || end == f.sent {
		f.unacked = 0
		f.to.send(parcel{of: f, size: headers, end: end, ack: true})
	}
	for len(f.messages) > 0 {
		m := f.messages[0]
		if m.start < end && !m.began {
			m.began = true
			f.understood(m.begun)
		}
		if m.end > end {
			return
		}
		f.messages = f.messages[1:]
		f.understood(m.done)
	}
}

func (f *flow) understood(do func()) {
	if do != nil {
		f.after(working, do)
	}
}
