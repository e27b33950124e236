package swarm

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"shoal/swarm/announce"
)

const (
	infoPeersEvery = time.Second // how often peers are offered, while the dict is missing

	// All peers are asked at once, for so long. A dict that is put together from what
	// several gave may be spoilt by one of them, and the engine does not know by whom: from
	// then on one is asked alone, for a while that doubles when all have had their turn.
	infoTogether = 2 * time.Second
	firstTurn    = time.Second
	longestTurn  = 8 * time.Second
)

// FetchInfo gets the info dict that ref names from peers (BEP 9): those of o, those that
// the trackers of o tell of, and the neighbours in the node's channels. Nothing of the
// torrent itself is fetched, and nothing is served. It waits for as long as ctx lets it.
// Errors are ErrBadInfo, ErrBusy when the torrent is here, ErrClosed and ctx's cause.
func (n *Node) FetchInfo(ctx context.Context, ref Ref, o FetchOptions) (*Info, error) {
	s, err := n.reserve(&Info{ref: ref})
	if err != nil {
		return nil, fmt.Errorf("fetching an info dict: %w", err)
	}
	defer n.running.Done()
	defer s.end(ErrClosed)
	defer close(s.opened) // with nothing in it
	ctx, cancel := s.within(ctx)
	defer cancel()

	s.seeking = &infoSeeker{s: s, pause: firstTurn, found: make(map[netip.AddrPort]struct{}), tried: make(map[netip.AddrPort]struct{})}
	for _, t := range o.Trackers {
		if u, err := announce.CheckURL(t); err == nil {
			n.trackers.Start(ctx, u, s.seeking)
		}
	}
	for alone := false; ; alone = true {
		b, err := s.seeking.ask(ctx, o.Peers, alone)
		if err != nil {
			return nil, fmt.Errorf("fetching an info dict: %w", err)
		}
		if b == nil {
			continue
		}
		i, err := OpenInfo(b, ref)
		if err != nil {
			return nil, fmt.Errorf("fetching an info dict: %w", err)
		}
		return i, nil
	}
}

// infoSeeker is a torrent whose info dict is looked for.
type infoSeeker struct {
	s *share

	mu    sync.Mutex // guards what follows; never held while the engine is called
	found map[netip.AddrPort]struct{}
	tried map[netip.AddrPort]struct{} // that were asked alone
	pause time.Duration               // how long one is, now
	turn  *turn                       // under way
}

// turn is one attempt. Nothing that a peer gave is left of it for the next.
type turn struct {
	alone bool
	asked *torrent.PeerConn // who is asked alone
	timer *time.Timer       // ends it
	over  chan struct{}
	end   func() // closes over
}

// ask is one turn: of all peers, or of one alone. It returns nil if no dict came of it.
func (i *infoSeeker) ask(ctx context.Context, known []string, alone bool) ([]byte, error) {
	// The engine believes a dict by its SHA-1. It is not to act on it: without storage
	// there is nothing that it could do.
	t := i.begin(alone)
	defer t.timer.Stop()
	lib, _ := i.s.n.cl.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash: i.s.info.ref.Infohash, DeferStorageOpen: true, DisallowDataDownload: true, DisallowDataUpload: true,
	})
	defer lib.Drop()
	tick := time.NewTicker(infoPeersEvery)
	defer tick.Stop()
	for {
		lib.AddPeers(i.offers(ctx, known))
		select {
		case <-lib.GotInfo():
			mi := lib.Metainfo()
			return mi.InfoBytes, nil
		case <-t.over:
			select {
			case <-lib.GotInfo():
				mi := lib.Metainfo()
				return mi.InfoBytes, nil
			default:
				return nil, nil
			}
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// begin begins a turn. When nobody is left who was not asked alone, all may be again.
func (i *infoSeeker) begin(alone bool) *turn {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.turn != nil && i.turn.alone && i.turn.asked == nil {
		clear(i.tried)
		i.pause = min(2*i.pause, longestTurn)
	}
	over := make(chan struct{})
	t := &turn{alone: alone, over: over, end: sync.OnceFunc(func() { close(over) })}
	t.timer = time.AfterFunc(infoTogether, t.end)
	i.turn = t
	return t
}

// introduced is for a peer's extension handshake: only who is asked may have a dict. The
// engine's lock is held.
func (i *infoSeeker) introduced(p *peer, m *pp.ExtendedHandshakeMessage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.turn
	if !t.alone || t.asked == p.pc {
		return
	}
	_, tried := i.tried[p.remote]
	// Who dialled us could be anybody, again and again.
	if t.asked == nil && !tried && p.dialled && m.M[pp.ExtensionNameMetadata] != 0 && m.MetadataSize > 0 && m.MetadataSize <= MaxInfoSize {
		i.tried[p.remote] = struct{}{}
		t.asked = p.pc
		t.timer.Reset(i.pause)
		return
	}
	m.MetadataSize = 0
	delete(m.M, pp.ExtensionNameMetadata)
}

// left is for the end of a connection. The engine's lock is held.
func (i *infoSeeker) left(pc *torrent.PeerConn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.turn.asked == pc {
		i.turn.end()
	}
}

// offers are the peers to dial now.
func (i *infoSeeker) offers(ctx context.Context, known []string) []torrent.PeerInfo {
	n := i.s.n
	i.Offer(n.acquainted())
	for _, name := range known {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		addrs, err := resolve(ctx, name)
		cancel()
		if err == nil {
			n.learn(name, addrs)
			i.Offer(addrs)
		}
	}
	connected := i.s.reachable()
	i.mu.Lock()
	defer i.mu.Unlock()
	var offers []torrent.PeerInfo
	for a := range i.found {
		if _, tried := i.tried[a]; !tried && !connected[a] && a != n.tr.local {
			offers = append(offers, n.peerInfo(a, torrent.PeerSourceTracker))
		}
		if len(offers) == neighbours {
			break
		}
	}
	return offers
}

// Status implements announce.Torrent.
func (i *infoSeeker) Status() announce.Status {
	return announce.Status{
		Infohash: i.s.info.ref.Infohash, PeerID: i.s.n.cl.PeerID(), Port: i.s.n.tr.local.Port(),
		Left: i.s.info.ref.Length, Wanting: true,
	}
}

// Offer implements announce.Torrent.
func (i *infoSeeker) Offer(peers []netip.AddrPort) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range peers {
		if len(i.found) < maxFound {
			i.found[unmap(p)] = struct{}{}
		}
	}
}

// Complete implements announce.Torrent.
func (i *infoSeeker) Complete() <-chan struct{} { return nil }
