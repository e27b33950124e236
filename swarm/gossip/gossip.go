// Package gossip spreads the news of a channel among its members: each tells its
// neighbours what it holds, and whoever holds something older pulls what is newer, has it
// judged, and then tells its own neighbours. No message carries a document that was not
// asked for, nothing is believed before the owner's [Board] has judged it, and no
// neighbour can cost more than what the bounds below name.
//
// It knows nothing of connections. A transport joins a [Member] with its neighbours and
// delivers what they say; package swarm does so over an extension of BEP 10.
//
// # Messages
//
// All numbers are big-endian. There are three messages, and the first byte says which:
//
//	have  01, version, root u64, epoch u64, sequence u64, payload SHA-256 (32 bytes),
//	      size u32, beacon u64
//	want  02, kind, epoch u64, number u64, offset u32
//	part  03, kind, epoch u64, number u64, offset u32, total u32, at most 15 KiB
//
// have says what its sender holds: the version of its root; the order of its manifest,
// the SHA-256 of the manifest's payload and the size of its envelope, all zero for none;
// when its beacon was issued, in seconds of Unix time, zero for none. It is sent first,
// when it changes, and now and then, which also shows that its sender is there. It names
// the highest version of the protocol that its sender speaks, 1; what a later version adds
// to it is skipped.
//
// want asks for the part at an offset. The kinds are 1, a root, whose number is its
// version; 2, a manifest, whose number is its sequence; 3, a beacon, whose number is when
// it was issued. Only a manifest has an epoch. Every part is full but the last; a total of
// zero says that the sender does not have the document.
//
// # What is asked for
//
// The next root, of a neighbour that names a higher one; else, of one that names the same
// root, its manifest if its order is higher, and else its beacon if it is newer. A
// document is asked of one neighbour at a time, and of another if that one stalls.
package gossip

import (
	"context"
	"log/slog"
	"time"
)

// Version is the version of the protocol.
const Version = 1

// Sizes of documents, in bytes. What claims to be larger is refused.
const (
	MaxRoot     = 128 << 10
	MaxManifest = 1 << 20
	MaxBeacon   = 16 << 10
)

// Kind is a kind of document.
type Kind uint8

// The kinds.
const (
	Root     Kind = 1
	Manifest Kind = 2
	Beacon   Kind = 3
)

// max is the largest size of a document of a kind; zero for what is no kind.
func (k Kind) max() uint32 {
	switch k {
	case Root:
		return MaxRoot
	case Manifest:
		return MaxManifest
	case Beacon:
		return MaxBeacon
	}
	return 0
}

func (k Kind) String() string {
	switch k {
	case Root:
		return "root"
	case Manifest:
		return "manifest"
	case Beacon:
		return "beacon"
	}
	return "no document"
}

// Order is that of a manifest; a higher epoch goes before any sequence.
type Order struct{ Epoch, Sequence uint64 }

func (o Order) after(p Order) bool {
	return o.Epoch > p.Epoch || o.Epoch == p.Epoch && o.Sequence > p.Sequence
}

// Head is what a member holds.
type Head struct {
	Root     uint64   // version of the root; zero for none
	Order    Order    // of the manifest; zero for none
	Manifest [32]byte // SHA-256 of the manifest's payload
	Size     uint32   // of the manifest's envelope, in bytes
	Beacon   uint64   // when the beacon was issued, in seconds of Unix time; zero for none
}

// Name says which document is meant.
type Name struct {
	Kind   Kind
	Epoch  uint64 // of a manifest, else zero
	Number uint64 // a root's version, a manifest's sequence, a beacon's issued
}

// Holding is a head and the documents that it names, for a [Board].
type Holding struct {
	Head
	Roots                            [][]byte // from version 1
	ManifestEnvelope, BeaconEnvelope []byte
}

// Document returns the document of a name, or nil.
func (h *Holding) Document(n Name) []byte {
	switch {
	case n.Kind == Root && n.Number >= 1 && n.Number <= uint64(len(h.Roots)):
		return h.Roots[n.Number-1]
	case n.Kind == Manifest && n.Number != 0 && Order{n.Epoch, n.Number} == h.Order:
		return h.ManifestEnvelope
	case n.Kind == Beacon && n.Number != 0 && n.Number == h.Beacon:
		return h.BeaconEnvelope
	}
	return nil
}

// Document is what a neighbour gave.
type Document struct {
	Name   Name
	SHA256 [32]byte // of a manifest's payload, as the neighbour announced it
	Root   uint64   // the version of the root that the neighbour holds
	From   string   // the neighbour, for people
	Body   []byte   // to be kept, but not changed
}

// Verdict is what became of a document.
type Verdict int

// The verdicts.
const (
	// Passed: it is not taken, for no fault of who gave it.
	Passed Verdict = iota
	// Taken: it is good, and stored. [Board.Head] tells of it.
	Taken
	// Faulty: nobody honest gives such a document.
	Faulty
)

// Board is the owner of the documents, who alone judges them. Its methods are called from
// goroutines of the member, and should not wait long; Offer may.
type Board interface {
	// Head returns what is held, and verified.
	Head() Head
	// Document returns what is held under a name, or nil. The bytes are not changed.
	Document(Name) []byte
	// Offer judges what a neighbour gave. It is called for one document at a time.
	Offer(context.Context, Document) Verdict
}

// Link is the way to one neighbour. Its methods are called from one goroutine.
type Link interface {
	// Send sends a message, without waiting for the neighbour to read it.
	Send([]byte)
	// Backlog returns about how many bytes sent so are still here.
	Backlog() int
	// Close ends the link. Nothing has to be delivered any more.
	Close()
}

// Config is what [New] needs.
type Config struct {
	Board Board
	// Logger receives what happens. If nil, nothing is logged.
	Logger *slog.Logger
}

// Seen is a neighbour as it is known here.
type Seen struct {
	Who    string // as given to Join
	Have   Head   // as it says
	Heard  time.Time
	Faults int // it has been found with lately
}

// Stats is what a member did since it was made.
type Stats struct {
	Sent, Heard           int64 // messages
	SentBytes, HeardBytes int64
	// Dropped are messages beyond what one neighbour may say.
	Dropped int64
	// Documents that were judged, and transfers that were given up.
	Taken, Passed, Faulty, Stalled int64
	// Muted are those whose faults keep them out now.
	Muted int
}
