package swarm

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent"

	"shoal/swarm/announce"
)

const infoPeersEvery = time.Second // how often peers are offered, while the dict is missing

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

	// The engine believes a dict by its SHA-1. It is not to act on it: without storage
	// there is nothing that it could do.
	lib, _ := n.cl.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash: ref.Infohash, DeferStorageOpen: true, DisallowDataDownload: true, DisallowDataUpload: true,
	})
	defer lib.Drop()
	seek := &infoSeeker{s: s, found: make(map[netip.AddrPort]struct{})}
	for _, t := range o.Trackers {
		if u, err := announce.CheckURL(t); err == nil {
			n.trackers.Start(ctx, u, seek)
		}
	}
	tick := time.NewTicker(infoPeersEvery)
	defer tick.Stop()
	for {
		lib.AddPeers(seek.offers(ctx, o.Peers))
		select {
		case <-lib.GotInfo():
			mi := lib.Metainfo()
			i, err := OpenInfo(mi.InfoBytes, ref)
			if err != nil {
				return nil, fmt.Errorf("fetching an info dict: %w", err)
			}
			return i, nil
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("fetching an info dict: %w", context.Cause(ctx))
		}
	}
}

// infoSeeker is a torrent whose info dict is looked for.
type infoSeeker struct {
	s *share

	mu    sync.Mutex // guards found
	found map[netip.AddrPort]struct{}
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
		if !connected[a] && a != n.tr.local {
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
