// Package announce keeps trackers told of the torrents of a node, from when each is added
// until it is dropped, and hands on the peers they name: BEP 3 over HTTP, with compact
// replies as in BEP 23 and BEP 7, and BEP 15 over UDP.
//
// A tracker is believed in nothing: its replies are short, its intervals bounded, and it
// cannot point a node at the node's own machine unless it runs there itself.
package announce

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	timeout      = 15 * time.Second // of one announce
	atOnce       = 4                // announces under way to one tracker
	maxPeers     = 200              // taken from one reply
	peersWanted  = 50
	minInterval  = 15 * time.Second
	noInterval   = 30 * time.Minute // where the tracker names none
	maxInterval  = time.Hour
	wantInterval = time.Minute // for who still looks for peers; the tracker may ask for longer
	firstRetry   = 3 * time.Second
	lastRetry    = 5 * time.Minute
)

// Config is what [New] needs.
type Config struct {
	// Transport carries announces over HTTP. If nil, it is like http.DefaultTransport.
	Transport http.RoundTripper
	// UserAgent is sent over HTTP.
	UserAgent string
	// Logger receives what becomes of announces. If nil, nothing is logged.
	Logger *slog.Logger
}

// Status is what a tracker is told of a torrent.
type Status struct {
	Infohash [20]byte
	PeerID   [20]byte
	Port     uint16 // where the node accepts peers
	// Bytes of payload: given and received since the torrent was added, and missing.
	Uploaded, Downloaded, Left int64
	// Wanting says that more peers are needed soon.
	Wanting bool
}

// Torrent is what trackers are told about.
type Torrent interface {
	// Status is asked before each announce.
	Status() Status
	// Offer takes peers that a tracker named. It must not wait.
	Offer([]netip.AddrPort)
	// Complete is closed when nothing is missing any more.
	Complete() <-chan struct{}
}

// Client announces for one node. Its methods can be called at any time, from any
// goroutine.
type Client struct {
	http *http.Client
	own  *http.Transport // closed with the client, if it made one
	ua   string
	log  *slog.Logger

	ctx  context.Context // of everything under way
	stop context.CancelFunc

	mu      sync.Mutex // guards what follows
	closed  bool
	slots   map[string]chan struct{} // by tracker
	running sync.WaitGroup           // added to under mu while not closed
}

// New returns a client that announces nothing yet.
func New(c Config) *Client {
	cl := &Client{ua: c.UserAgent, log: c.Logger, slots: make(map[string]chan struct{})}
	if cl.log == nil {
		cl.log = slog.New(slog.DiscardHandler)
	}
	if c.Transport == nil {
		cl.own = newTransport()
		c.Transport = cl.own
	}
	cl.http = &http.Client{Transport: c.Transport, CheckRedirect: checkRedirect}
	cl.ctx, cl.stop = context.WithCancel(context.Background())
	return cl
}

// Start announces t to a tracker until ctx ends, and then tells the tracker that the node
// leaves. The URL must have passed [CheckURL].
func (c *Client) Start(ctx context.Context, tracker string, t Torrent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	slots := c.slots[tracker]
	if slots == nil {
		slots = make(chan struct{}, atOnce)
		c.slots[tracker] = slots
	}
	c.running.Go(func() { c.follow(ctx, tracker, slots, t) })
}

// Close waits at most for patience until trackers have been told of what has ended, ends
// what is still under way, and waits for that. The contexts given to Start should have
// ended.
func (c *Client) Close(patience time.Duration) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { c.running.Wait(); close(done) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	c.stop()
	<-done
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// The events of BEP 3.
const (
	eventNone      = ""
	eventStarted   = "started"
	eventCompleted = "completed"
	eventStopped   = "stopped"
)

// follow is the life of one torrent at one tracker.
func (c *Client) follow(ctx context.Context, tracker string, slots chan struct{}, t Torrent) {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, RandomizationFactor: 0.3, Multiplier: 2, MaxInterval: lastRetry,
	}
	retry.Reset()
	complete := t.Complete()
	if t.Status().Left == 0 {
		complete = nil // "completed" is for who was told of as incomplete
	}
	event, known := eventStarted, false
	for {
		r, err := c.announce(tracker, slots, t.Status(), event)
		if c.ctx.Err() != nil {
			return
		}
		var wait time.Duration
		if err != nil {
			wait = retry.NextBackOff()
			c.log.Warn("announcing to a tracker", "tracker", tracker, "event", event, "error", err, "again", wait.Round(time.Second))
		} else {
			known, event = true, eventNone
			retry.Reset()
			t.Offer(r.peers)
			wait = r.wait(t.Status().Wanting)
			c.log.Debug("announced to a tracker", "tracker", tracker, "peers", len(r.peers), "again", wait.Round(time.Second))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-complete:
			complete = nil
			if known {
				event = eventCompleted
			}
		case <-c.ctx.Done():
		case <-ctx.Done():
			if known {
				if _, err := c.announce(tracker, slots, t.Status(), eventStopped); err != nil {
					c.log.Debug("telling a tracker that we leave", "tracker", tracker, "error", err)
				}
			}
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// announce makes one announce, when it is its turn.
func (c *Client) announce(tracker string, slots chan struct{}, s Status, event string) (reply, error) {
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	}
	return c.send(ctx, tracker, s, event)
}

// A reply is what a tracker said.
type reply struct {
	interval, min time.Duration // as the tracker said
	peers         []netip.AddrPort
}

// wait is how long to leave it alone.
func (r reply) wait(wanting bool) time.Duration {
	w := r.interval
	if w <= 0 {
		w = noInterval
	}
	if wanting {
		w = min(w, max(r.min, wantInterval))
	}
	w = min(max(w, minInterval), maxInterval)
	return w + rand.N(w/10)
}

// usable drops what no peer can have as an address, and this machine's own addresses
// unless the tracker is on this machine too.
func usable(peers []netip.AddrPort, near bool) []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range peers {
		a := p.Addr().Unmap()
		if p.Port() == 0 || !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() && !near {
			continue
		}
		if out = append(out, netip.AddrPortFrom(a, p.Port())); len(out) == maxPeers {
			break
		}
	}
	return out
}
