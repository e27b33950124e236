package swarm

import (
	"sync"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// A wish is which pieces a fetch asks the engine for: those that some peer is to be asked
// for (see picking), or has announced to the engine itself. Whenever there is something to
// decide, the engine goes through all pieces it is asked for, in order.
type wish struct {
	fresh chan struct{} // has one element when something is in new

	mu    sync.Mutex // guards what follows; never held while the engine is called
	known []bool     // the pieces that were announced
	all   bool       // every piece was
	new   []int      // of those, the ones that are not asked for yet
}

func newWish(pieces int) wish {
	return wish{fresh: make(chan struct{}, 1), known: make([]bool, pieces)}
}

// heard notes what a peer has announced.
func (w *wish) heard(m *pp.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all {
		return
	}
	before := len(w.new)
	switch m.Type {
	case pp.Have:
		w.add(int(m.Index))
	case pp.Bitfield:
		for i, has := range m.Bitfield {
			if has {
				w.add(i)
			}
		}
	case pp.HaveAll:
		for i := range w.known {
			w.add(i)
		}
		w.all = true
	}
	if len(w.new) == before {
		return
	}
	select {
	case w.fresh <- struct{}{}:
	default:
	}
}

func (w *wish) add(piece int) {
	if piece < len(w.known) && !w.known[piece] {
		w.known[piece] = true
		w.new = append(w.new, piece)
	}
}

// take returns the pieces that have been announced since the last time.
func (w *wish) take() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	pieces := w.new
	w.new = nil
	return pieces
}

// note notes a piece that the engine is about to be asked for, and reports whether it was
// not before.
func (w *wish) note(piece int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known[piece] {
		return false
	}
	w.known[piece] = true
	return true
}

// announced reports whether the engine knows of anybody who has the piece.
func (w *wish) announced(piece int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[piece]
}

// peerSaid is called by the engine with its lock held, before it goes by the message.
func (n *Node) peerSaid(pc *torrent.PeerConn, m *pp.Message) {
	picked := m.Type == pp.Have && m.Index&ours != 0
	if picked {
		m.Index &^= ours
	}
	refuseBeyond(m)
	switch m.Type {
	case pp.Have, pp.Bitfield, pp.HaveAll:
		if picked {
			return // it is asked for already
		}
		if s := n.share(pc.Torrent().InfoHash()); s != nil {
			s.wish.heard(m)
		}
	}
}

// begin asks for one piece, whoever may have it: an engine that lacks nothing looks for
// no peers.
func (s *share) begin() {
	for p := range s.info.Pieces() {
		if !s.store.Has(p) {
			s.want(p, false)
			return
		}
	}
}

// want asks for a piece, with a priority drawn at random: the engine breaks ties by
// position, and a crowd that asks for the same pieces has nothing to exchange. again has it
// look once more for whom to ask.
func (s *share) want(piece int, again bool) {
	if again {
		// It does look when a piece is wanted that was not before.
		s.lib.Piece(piece).SetPriority(torrent.PiecePriorityNone)
	}
	s.lib.Piece(piece).SetPriority(anyPriority())
}
