package swarmtest

import (
	"context"
	"crypto/sha256"
	"sync"

	"shoal/swarm/gossip"
)

// Board is a board that takes any manifest whose body begins with "good" and whose hash is
// the announced one, and has no roots or beacons but the root version it was made with.
type Board struct {
	// Changed, unless nil, is called when something was taken.
	Changed func(gossip.Head)
	// Judge, unless nil, judges instead.
	Judge func(gossip.Document) gossip.Verdict

	mu     sync.Mutex // guards what follows
	head   gossip.Head
	body   []byte
	offers int
}

// NewBoard returns a board that holds root 1 and no manifest.
func NewBoard() *Board { return &Board{head: gossip.Head{Root: 1}} }

// Put has the board hold a manifest.
func (b *Board) Put(sequence uint64, body []byte) {
	b.mu.Lock()
	b.head.Order, b.head.Manifest, b.head.Size = gossip.Order{Epoch: 1, Sequence: sequence}, sha256.Sum256(body), uint32(len(body))
	b.body = body
	head := b.head
	b.mu.Unlock()
	if b.Changed != nil {
		b.Changed(head)
	}
}

// Head implements gossip.Board.
func (b *Board) Head() gossip.Head {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.head
}

// Offers is how many documents were offered.
func (b *Board) Offers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.offers
}

// Document implements gossip.Board.
func (b *Board) Document(n gossip.Name) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n != (gossip.Name{Kind: gossip.Manifest, Epoch: b.head.Order.Epoch, Number: b.head.Order.Sequence}) {
		return nil
	}
	return b.body
}

// Offer implements gossip.Board.
func (b *Board) Offer(_ context.Context, d gossip.Document) gossip.Verdict {
	b.mu.Lock()
	b.offers++
	held := b.head.Order
	b.mu.Unlock()
	v := gossip.Faulty
	switch {
	case b.Judge != nil:
		v = b.Judge(d)
	case d.Name.Kind == gossip.Manifest && len(d.Body) >= 4 && string(d.Body[:4]) == "good" && sha256.Sum256(d.Body) == d.SHA256:
		v = gossip.Taken
	}
	if v == gossip.Taken && d.Name.Kind == gossip.Manifest {
		if d.Name.Number <= held.Sequence {
			return gossip.Passed
		}
		b.Put(d.Name.Number, d.Body)
	}
	return v
}

// SetRoot has the board hold another root.
func (b *Board) SetRoot(version uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head.Root = version
}
