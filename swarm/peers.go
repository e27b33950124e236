package swarm

import (
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"shoal/swarm/fleet"
)

// How many requests may be on their way to one peer. What is asked of a peer has to be
// sent before anything asked later, and cannot be had from anyone else meanwhile, so it
// should be no more than keeps the connection busy: as much as arrives in queueTime and
// two round trips.
const (
	queueTime     = 250 * time.Millisecond
	rateOver      = 250 * time.Millisecond // how often the rate is measured
	firstRequests = 16
	leastRequest  = 2 * usualBlock // bytes
	originPieces  = 2              // of the origin, which offers piece by piece, at least so many whole
	mostRequests  = 256

	// Closed connections wait to be counted; with this many, now.
	maxLeft = 64
)

// extensions are what we speak besides BEP 3. The engine would also do ut_holepunch
// (BEP 55), which is of use over uTP only and lets any peer make us dial any address.
var extensions = &torrent.LocalLtepProtocolMap{
	Index:      []pp.ExtensionName{pp.ExtensionNameMetadata, pp.ExtensionNamePex},
	NumBuiltin: 2,
}

// A peer is a connection that finished its handshake.
type peer struct {
	pc      *torrent.PeerConn
	remote  netip.AddrPort
	dialled bool
	conn    *conn          // nil if it is gone already
	member  fleet.Identity // who it is, in a fleet with a key
	listens uint16         // the port it says it accepts peers on; 0 if unknown
	allows  int            // requests it is ready to queue

	helped    time.Time // when it brought something last, or came
	blocks    int       // that came since
	brought   bool      // something has come, ever
	good, bad int       // pieces it took part in
	since     time.Time // the last look at the rate
}

// class is what the peer counts as, by what is known now.
func (p *peer) class(c *classifier) Class {
	if p.dialled {
		return c.dialled(p.remote)
	}
	return c.accepted(p.remote.Addr(), p.listens)
}

// reached is where the peer accepts connections, if that is known.
func (p *peer) reached() netip.AddrPort {
	if p.dialled || p.listens == 0 {
		return p.remote
	}
	return netip.AddrPortFrom(p.remote.Addr(), p.listens)
}

// A tally knows the peers of a share and counts their payload.
type tally struct {
	collecting sync.Mutex // held while counts are brought together

	pmu     sync.Mutex                  // guards what follows; never held while the engine is called
	found   map[netip.AddrPort]bool     // addresses of peers, connected or not; true if on the LAN
	touched map[int][]*peer             // who brought parts of pieces that are not judged yet
	known   map[netip.AddrPort]struct{} // where configured peers are
	refused map[netip.AddrPort]refusal  // addresses that hung up on us
	live    map[*torrent.PeerConn]*peer
	left    []*peer // closed, but not yet in past
	past    traffic // of connections that are closed and counted
}

// traffic is payload by class.
type traffic struct {
	received, useful, given ByClass
}

func (t *traffic) add(p *peer, class Class) {
	st := p.pc.Stats()
	t.received[class] += st.BytesReadData.Int64()
	t.useful[class] += st.BytesReadUsefulData.Int64()
	t.given[class] += st.BytesWrittenData.Int64()
}

// count returns the payload so far, and the number of connected peers.
func (s *share) count() (traffic, int) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	s.pmu.Lock()
	live := make([]*peer, 0, len(s.live))
	for _, p := range s.live {
		live = append(live, p)
	}
	classes := make([]Class, len(live))
	for i, p := range live {
		classes[i] = p.class(s.n.tr.classes)
	}
	left := s.left
	s.left = nil
	sum := s.past
	s.pmu.Unlock()
	for _, p := range left {
		sum.add(p, p.class(s.n.tr.classes))
	}
	s.pmu.Lock()
	s.past = sum
	s.pmu.Unlock()
	for i, p := range live {
		sum.add(p, classes[i])
	}
	return sum, len(live)
}

// realAddr is where a peer of the engine's is.
func realAddr(a torrent.PeerRemoteAddr) netip.AddrPort {
	if ours, ok := a.(peerAddr); ok {
		return ours.real
	}
	remote, _ := netip.ParseAddrPort(a.String()) // from peer exchange
	return remote
}

// reachable returns the addresses at which connected peers accept connections.
func (s *share) reachable() map[netip.AddrPort]bool {
	s.pmu.Lock()
	defer s.pmu.Unlock()
	m := make(map[netip.AddrPort]bool, len(s.live))
	for _, p := range s.live {
		m[p.reached()] = true
	}
	return m
}

// peerAdded, peerIntroduced, peerDelivered and peerClosed are called by the engine with
// its lock held: they must not call it.

// noMessage is no type of a message: the engine ends a connection on which one comes.
const noMessage pp.MessageType = 255

// refuseBeyond refuses messages about pieces that no torrent of ours can have. The engine
// would note them all, where it has no info dict to compare them with.
func refuseBeyond(m *pp.Message) {
	switch m.Type {
	case pp.Have, pp.AllowedFast, pp.Suggest:
		if m.Index >= maxPieces {
			m.Type = noMessage
		}
	case pp.Bitfield:
		if len(m.Bitfield) > maxPieces { // a multiple of eight, as that is
			m.Type = noMessage
		}
	}
}

func (n *Node) peerAdded(pc *torrent.PeerConn) {
	pc.LocalLtepProtocolMap = extensions
	pc.PeerMaxRequests = firstRequests
	remote := realAddr(pc.RemoteAddr)
	p := &peer{pc: pc, remote: unmap(remote), dialled: pc.Discovery != torrent.PeerSourceIncoming, allows: firstRequests, since: time.Now(), helped: time.Now()}
	if p.conn = n.tr.find(p.remote, p.dialled); p.conn != nil {
		p.member = p.conn.member
	}
	if !p.dialled {
		n.tr.greet(p.remote)
	}
	if s := n.share(pc.Torrent().InfoHash()); s != nil {
		s.pmu.Lock()
		s.live[pc] = p
		s.pmu.Unlock()
	}
}

// peer returns what is known of a connection, with the lock of its share held, or nil and
// nothing held if it is not, or never got as far as a torrent.
func (n *Node) peer(pc *torrent.PeerConn) (*share, *peer) {
	t := pc.Torrent()
	if t == nil {
		return nil, nil
	}
	s := n.share(t.InfoHash())
	if s == nil {
		return nil, nil
	}
	s.pmu.Lock()
	if p := s.live[pc]; p != nil {
		return s, p
	}
	s.pmu.Unlock()
	return nil, nil
}

func (n *Node) peerIntroduced(pc *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
	s, p := n.peer(pc)
	if p == nil {
		return
	}
	defer s.pmu.Unlock()
	p.allows = mostRequests
	if m.Reqq > 0 {
		p.allows = m.Reqq
	}
	m.Reqq = min(p.allows, firstRequests) // which the engine takes over
	if m.Port > 0 && m.Port < 1<<16 && !p.dialled {
		p.listens = uint16(m.Port)
		n.tr.listens(p.remote, p.listens)
	}
	if s.seeking != nil {
		s.seeking.introduced(p, m)
	}
}

func (n *Node) peerDelivered(e torrent.ReceivedUsefulDataEvent) {
	pc, ok := e.Peer.TryAsPeerConn()
	if !ok {
		return
	}
	s, p := n.peer(pc)
	if p == nil {
		return
	}
	defer s.pmu.Unlock()
	p.helped, p.brought = time.Now(), true
	s.touch(int(e.Message.Index), p)
	p.blocks++
	if p.conn != nil && p.conn.ask.Load() != nil {
		pc.PeerMaxRequests = min(p.allows, mostRequests) // it hears of no more than it is to ask for
		return
	}
	if over := time.Since(p.since); over >= rateOver {
		inTime := 1 + int(float64(p.blocks)*float64(queueTime+2*p.conn.rtt())/float64(over))
		least := max(1, leastRequest/int(s.block))
		if p.class(n.tr.classes) == ClassOrigin {
			least = max(least, originPieces*int(s.info.pieceLength/s.block))
		}
		pc.PeerMaxRequests = min(max(inTime, least), mostRequests, p.allows)
		p.blocks, p.since = 0, p.since.Add(over)
	}
}

func (n *Node) peerClosed(pc *torrent.PeerConn) {
	select {
	case n.left <- struct{}{}: // the engine may have banned it
	default:
	}
	s, p := n.peer(pc)
	if p == nil {
		return
	}
	defer s.pmu.Unlock()
	delete(s.live, pc)
	s.hungUp(p, time.Now())
	if s.seeking != nil {
		s.seeking.left(pc)
	}
	s.left = append(s.left, p)
	if len(s.left) >= maxLeft {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}
