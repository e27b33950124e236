package swarm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"github.com/anacrolix/torrent/storage"

	"shoal/swarm/announce"
	"shoal/swarm/disk"
)

// fewPeers is how many are so few that trackers are asked again soon.
const fewPeers = 4

// How much one request asks for. Stock clients answer up to 16 KiB, and some no other
// length. Members of a fleet with a key ask for half a piece: of large files, what
// each message costs is most of what a fast network leaves to do.
const (
	usualBlock    = 16 << 10
	blocksOfPiece = 2
)

// A share is one torrent of a node, from before its file is opened until it is dropped.
type share struct {
	n     *Node
	info  *Info
	block int64 // bytes that one request asks for

	ctx    context.Context // governs the share; its cause is why it ended
	cancel context.CancelCauseFunc

	opened   chan struct{} // closed when the file is open and the engine has it, or neither
	seeding  atomic.Bool   // it is complete, and the call that brought it is over
	store    *disk.Store   // set before opened is closed
	lib      *torrent.Torrent
	keeper   sync.WaitGroup
	trackers sync.Map                   // the URLs announced to
	super    atomic.Pointer[superShare] // if it is super seeded; set before the engine has it
	wake     chan struct{}              // of the keeper, when there is much to tidy up
	ending   sync.Once

	wish    wish
	picking *picking    // if it is fetched; set before the engine has it
	seeking *infoSeeker // if only its info dict is looked for; set before the engine has it

	tally
}

// open reserves the place of a torrent, opens its file and gives both to the engine. If
// it succeeds, the caller must call done when it has finished its part.
func (n *Node) open(ctx context.Context, i *Info, openStore func(context.Context) (*disk.Store, error)) (s *share, done func(), err error) {
	s, err = n.reserve(i)
	if err != nil {
		return s, nil, err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	st, err := openStore(ctx)
	if err == nil {
		err = s.add(st)
	}
	close(s.opened)
	if err != nil {
		s.end(err)
		n.running.Done()
		return nil, nil, err
	}
	return s, n.running.Done, nil
}

// reserve takes the place of a torrent, or returns who has it, with ErrBusy.
func (n *Node) reserve(i *Info) (*share, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if s, ok := n.torrents[i.ref.Infohash]; ok {
		return s, ErrBusy
	}
	s := &share{n: n, info: i, block: usualBlock, opened: make(chan struct{}), wake: make(chan struct{}, 1), wish: newWish(i.Pieces())}
	if n.tr.accepting != nil {
		s.block = min(max(usualBlock, i.pieceLength/blocksOfPiece), maxBlock)
	}
	s.ctx, s.cancel = context.WithCancelCause(n.ctx)
	s.tally.live = make(map[*torrent.PeerConn]*peer)
	n.torrents[i.ref.Infohash] = s
	n.running.Add(1)
	return s, nil
}

// within returns ctx, which also ends with the share.
func (s *share) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// add gives the torrent to the engine, which from then on closes st.
func (s *share) add(st *disk.Store) error {
	if s.ctx.Err() != nil {
		st.Close()
		return context.Cause(s.ctx)
	}
	s.store = st
	sealed := st.Sealed()
	if !sealed {
		st.Judged(s.judged)
		s.picking = newPicking(s)
	}
	if s.n.tr.super != nil && sealed {
		s.super.Store(newSuperShare(s.info))
	}
	lib, isNew := s.n.cl.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash:  s.info.ref.Infohash,
		InfoBytes: s.info.raw,
		Storage:   st,
		ChunkSize: pp.Integer(s.block),
	})
	if !isNew || lib.Info() == nil {
		// It would ask peers for the info dict now. Nothing that passed OpenInfo gets here.
		st.Close()
		lib.Drop()
		return fmt.Errorf("adding torrent %x: %w", s.info.ref.Infohash, ErrBadInfo)
	}
	s.lib = lib
	return nil
}

// addTrackers announces to those trackers that can be, and are not announced to yet.
func (s *share) addTrackers(trackers []string) {
	for _, t := range trackers {
		u, err := announce.CheckURL(t)
		if err != nil {
			s.n.log.Warn("leaving out a tracker", "error", err)
			continue
		}
		if _, known := s.trackers.LoadOrStore(u, nil); !known {
			s.n.trackers.Start(s.ctx, u, announced{s})
		}
	}
}

// announced is what trackers are told of a share.
type announced struct{ s *share }

func (a announced) Status() announce.Status {
	s := a.s
	left := s.info.ref.Length - s.store.Verified()
	sum, peers := s.count()
	return announce.Status{
		Infohash: s.info.ref.Infohash, PeerID: s.n.cl.PeerID(), Port: s.n.tr.local.Port(),
		Uploaded: sum.given.Sum(), Downloaded: sum.useful.Sum(), Left: left,
		Wanting: left > 0 && peers < fewPeers,
	}
}

func (a announced) Offer(peers []netip.AddrPort) { a.s.heard(peers, false) }

func (a announced) Complete() <-chan struct{} { return a.s.lib.Complete().On() }

// end takes the torrent out of the engine, closes its file and waits for both. The cause
// is what calls under way return.
func (s *share) end(cause error) {
	s.ending.Do(func() {
		s.cancel(cause)
		<-s.opened
		if s.lib != nil {
			s.lib.Drop()
		}
		s.keeper.Wait()
		last := s.stats()
		n := s.n
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.torrents, s.info.ref.Infohash)
		n.dropped.Received.add(last.Received)
		n.dropped.Given.add(last.Given)
	})
}

// Seed serves the file at path, as it lies there: the file is opened for reading, hashed
// once, and never changed. It may be renamed or replaced meanwhile, the node goes on
// serving what it opened. If the file is not the content of i, the error is ErrContent.
// Trackers are told, and the torrent is served until Drop or Close; ctx governs only the
// call. Seeding what the node seeds already only adds the trackers.
func (n *Node) Seed(ctx context.Context, i *Info, path string, trackers []string) error {
	s, done, err := n.open(ctx, i, func(ctx context.Context) (*disk.Store, error) { return disk.OpenSeed(ctx, i.layout(), path) })
	if errors.Is(err, ErrBusy) && s.seeding.Load() {
		s.addTrackers(trackers)
		return nil
	}
	if err != nil {
		return fmt.Errorf("seeding %q: %w", path, err)
	}
	defer done()
	s.lib.DisallowDataDownload()
	s.addTrackers(trackers)
	s.tellNeighbours()
	s.keep(nil)
	s.seeding.Store(true)
	return nil
}

// noStorage is where torrents without a file of their own would go; there are none.
type noStorage struct{}

func (noStorage) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{}, errors.ErrUnsupported
}
