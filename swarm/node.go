package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/time/rate"

	"shoal/swarm/announce"
	"shoal/swarm/ban"
	"shoal/swarm/lsd"
	"shoal/swarm/picker"
)

const (
	// A ban is looked into only when what the engine found has been told to [share.judged].
	banDelay     = 100 * time.Millisecond
	classesEvery = time.Minute // how often the node looks again at what classes depend on
	// stealAfter is how long a request has to be answered before another peer may be asked.
	stealAfter = picker.LateAfter
	farewell   = time.Second // how long Close waits for trackers to be told that we leave
)

// Node is one BitTorrent node. Its methods can be called at any time and from any
// goroutine; none may be called from a Progress callback.
type Node struct {
	log      *slog.Logger
	tr       *transport
	cl       *torrent.Client
	trackers *announce.Client
	lsd      *lsd.Announcer // nil if neighbours are not looked for

	ctx    context.Context // ends with ErrClosed when the node closes
	cancel context.CancelCauseFunc

	closing sync.Once
	closed  chan struct{}
	left    chan struct{} // has one element after a peer has left

	mu       sync.Mutex // guards what follows; never held while the engine is called
	torrents map[[20]byte]*share
	channels map[[20]byte]*Channel // by their rendezvous
	dropped  Stats                 // the sums of those that are no longer there
	running  sync.WaitGroup        // what Close waits for; added to under mu while not closed
}

// New starts a node. If it cannot listen, the error is a *PortError.
func New(c Config) (*Node, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Listen == "" {
		c.Listen = ":0"
	}
	if c.MaxPeers == 0 {
		c.MaxPeers = defaultMaxPeers
		if c.SuperSeed {
			c.MaxPeers = originMaxPeers
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	classes, err := newClassifier(c.Origins)
	if err != nil {
		return nil, err
	}
	tr, err := newTransport(c.Listen, c.Fleet, classes, c.Logger)
	if err != nil {
		return nil, err
	}
	tr.limits.set(c.Limits)
	n := &Node{
		log: c.Logger, tr: tr,
		trackers: announce.New(announce.Config{Transport: c.TrackerTransport, UserAgent: clientName, Logger: c.Logger}),
		closed:   make(chan struct{}), left: make(chan struct{}, 1), torrents: make(map[[20]byte]*share),
		channels: make(map[[20]byte]*Channel),
	}
	if c.SuperSeed {
		tr.super = n.superShare
	}
	tr.picking = n.picking
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	if n.cl, err = torrent.NewClient(n.engineConfig(c)); err != nil {
		tr.close()
		close(tr.done)
		return nil, err
	}
	n.cl.AddListener(tr)
	n.cl.AddDialer(tr)
	n.running.Go(n.watchClasses)
	n.running.Go(n.watchBans)
	if c.LAN.Enabled {
		if n.lsd, err = n.newAnnouncer(c); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// engineConfig is how the torrent engine is set up.
func (n *Node) engineConfig(c Config) *torrent.ClientConfig {
	e := torrent.NewDefaultClientConfig()
	e.Slogger = slog.New(quiet{c.Logger.Handler()})
	// The engine opens no sockets; all connections are ours.
	e.DisableTCP, e.DisableUTP, e.NoDHT, e.DialForPeerConns = true, true, true, false
	e.NoDefaultPortForwarding = true
	e.DisableWebtorrent = true
	e.LocalServiceDiscovery = nil
	e.DisableTrackers = true
	e.DefaultStorage = noStorage{}

	id := append([]byte(peerIDPrefix), rand.Text()...)
	e.PeerID = string(id[:20])
	e.Bep20 = peerIDPrefix
	e.ExtendedHandshakeClientVersion = clientName
	e.HTTPUserAgent = clientName

	// Plain handshakes first; peers that insist on obfuscation get it.
	// Inside fleet TLS there is nothing to hide.
	e.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{Preferred: false, RequirePreferred: c.Fleet != nil}
	e.HandshakesTimeout = handshakeTimeout
	e.EstablishedConnsPerTorrent = c.MaxPeers
	e.TorrentPeersHighWater = max(200, 4*c.MaxPeers)
	e.DialRateLimiter = rate.NewLimiter(100, 100)
	e.DropDuplicatePeerIds = true
	// The engine looks no further than that much of what is wanted, and counts what nobody
	// offers yet too: with a seed that offers piece by piece it would ask for nothing.
	e.MaxUnverifiedBytes = 0

	// Everyone serves everyone, also once it has everything; without this the engine
	// chokes whoever does not give back.
	e.Seed = true
	e.UploadRateLimiter = rate.NewLimiter(rate.Inf, 0)
	// A request is not taken from one peer and given to another before it has had a
	// chance to be answered, or much arrives twice.
	e.StealRequestGrace = stealAfter

	e.Callbacks.ReadMessage = n.peerSaid
	e.Callbacks.PeerConnAdded = append(e.Callbacks.PeerConnAdded, n.peerAdded, n.followerAdded)
	e.Callbacks.ReadExtendedHandshake = func(pc *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		n.peerIntroduced(pc, m)
		n.followerIntroduced(pc, m)
		if m.MetadataSize > MaxInfoSize {
			m.MetadataSize = 0 // the engine would reserve so much
		}
	}
	e.Callbacks.PeerConnReadExtensionMessage = append(e.Callbacks.PeerConnReadExtensionMessage, n.followerSaid)
	e.Callbacks.ReceivedUsefulData = append(e.Callbacks.ReceivedUsefulData, n.peerDelivered)
	e.Callbacks.PeerConnClosed = func(pc *torrent.PeerConn) {
		n.peerClosed(pc)
		n.followerClosed(pc)
	}
	return e
}

// Addr returns the address the node accepts peers on. Its IP is unspecified if that is
// every address of the machine.
func (n *Node) Addr() netip.AddrPort { return n.tr.local }

// SetLimits replaces the limits, for what is under way as well. Negative limits count as
// none.
func (n *Node) SetLimits(l Limits) {
	n.tr.limits.set(Limits{Up: max(0, l.Up), Down: max(0, l.Down), LANUp: max(0, l.LANUp), LANDown: max(0, l.LANDown)})
}

// watchBans finds out whom the engine has banned.
func (n *Node) watchBans() {
	known := make(map[string]struct{})
	for {
		select {
		case <-n.left:
		case <-n.ctx.Done():
			return
		}
		select {
		case <-time.After(banDelay):
		case <-n.ctx.Done():
			return
		}
		for _, ip := range n.cl.BadPeerIPs() {
			if _, ok := known[ip]; ok {
				continue
			}
			known[ip] = struct{}{}
			a, err := netip.ParseAddr(ip)
			if err != nil {
				continue
			}
			who, d, ok := n.tr.bans.Found(a.Unmap())
			switch {
			case !ok:
			case d < ban.Time && n.chosen(who):
				n.tr.bans.Pardon(who)
			default:
				n.log.Warn("banned a peer that sent bad pieces", "peer", who.At.String(), "for", d)
				n.tr.expel(who)
			}
		}
	}
}

// chosen reports whether somebody is the origin or a configured peer, of any torrent.
func (n *Node) chosen(who ban.Suspect) bool {
	if n.tr.classes.dialled(who.At) == ClassOrigin {
		return true
	}
	n.mu.Lock()
	shares := slices.Collect(maps.Values(n.torrents))
	n.mu.Unlock()
	for _, s := range shares {
		s.pmu.Lock()
		_, known := s.known[who.At]
		s.pmu.Unlock()
		if known {
			return true
		}
	}
	return false
}

// LiftBans lets those in again who are kept out for what they sent. A ban ends by itself
// within an hour.
func (n *Node) LiftBans() { n.tr.bans.Lift() }

// watchClasses keeps up with addresses that change: of origins given by name, and of this
// machine.
func (n *Node) watchClasses() {
	for {
		for _, name := range n.tr.classes.names {
			ctx, cancel := context.WithTimeout(n.ctx, resolveTimeout)
			addrs, err := resolve(ctx, name)
			cancel()
			if err != nil && n.ctx.Err() == nil {
				n.log.Debug("resolving an origin", "origin", name, "error", err)
			}
			n.learn(name, addrs)
		}
		select {
		case <-time.After(classesEvery):
		case <-n.ctx.Done():
			return
		}
		n.tr.classes.refresh()
		n.tr.reclassify()
	}
}

// learn notes the addresses of a host, which may be an origin.
func (n *Node) learn(name string, addrs []netip.AddrPort) {
	changed := false
	for _, a := range addrs {
		changed = n.tr.classes.learn(name, a) || changed
	}
	if changed {
		n.tr.reclassify()
	}
}

func (n *Node) share(infohash [20]byte) *share {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.torrents[infohash]
}

// picking is what is asked for of a torrent, or nil.
func (n *Node) picking(infohash [20]byte) *picking {
	s := n.share(infohash)
	if s == nil {
		return nil
	}
	select {
	case <-s.opened:
		return s.picking
	default:
		return nil // the engine does not have it yet
	}
}

// superShare is the super seeding of a torrent, or nil.
func (n *Node) superShare(infohash [20]byte) *superShare {
	if s := n.share(infohash); s != nil {
		return s.super.Load()
	}
	return nil
}

// Drop ends serving a torrent, or fetching it, and closes its file. It returns when
// nothing is read from the file or written to it any more.
func (n *Node) Drop(infohash [20]byte) {
	if s := n.share(infohash); s != nil {
		s.end(ErrClosed)
	}
}

// Close ends everything the node does: fetches fail with ErrClosed, trackers are told,
// within a second or so, connections and files are closed. It waits for all of that.
func (n *Node) Close() error {
	n.closing.Do(func() {
		defer close(n.closed)
		n.mu.Lock()
		n.cancel(ErrClosed)
		var shares []*share
		for _, s := range n.torrents {
			shares = append(shares, s)
		}
		channels := slices.Collect(maps.Values(n.channels))
		n.mu.Unlock()
		n.tr.ln.Close()
		if n.lsd != nil {
			n.lsd.Close()
		}
		for _, s := range shares {
			s.end(ErrClosed)
		}
		for _, c := range channels {
			c.Close()
		}
		n.trackers.Close(farewell)
		errs := n.cl.Close()
		n.tr.close()
		close(n.tr.done)
		n.tr.running.Wait()
		n.running.Wait()
		if err := errors.Join(errs...); err != nil {
			n.log.Warn("closing the torrent engine", "error", err)
		}
	})
	<-n.closed
	return nil
}
