// Package swarm is one BitTorrent node: it serves files, fetches files, and counts
// where the bytes came from.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"
)

// MaxInfoSize is the largest info dict, in bytes, that this package makes or opens.
const MaxInfoSize = 256 << 10

var (
	// ErrBadInfo says that bytes are not the info dict a Ref names, or not of a shape allowed here.
	ErrBadInfo = errors.New("info dict is not as signed or of a shape not allowed")
	// ErrContent says that a file is not the content its info dict describes.
	ErrContent = errors.New("file is not the content of this torrent")
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("swarm node is closed")
)

// PortError says that the node cannot listen on the address it was given.
type PortError struct {
	Addr string
	Err  error
}

func (e *PortError) Error() string { return fmt.Sprintf("listening on %q: %v", e.Addr, e.Err) }
func (e *PortError) Unwrap() error { return e.Err }

// SpaceError says that a download does not fit where it should go.
type SpaceError struct {
	Dir        string
	Need, Have int64 // bytes
	Err        error // the operating system's, when a write failed; else nil
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("no room in %q: need %d bytes, have %d", e.Dir, e.Need, e.Have)
}
func (e *SpaceError) Unwrap() error { return e.Err }

// DeadlineError says which deadline ended a fetch.
type DeadlineError struct {
	Which       string // "idle", "total" or "rate"
	Done, Total int64
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("fetching: %s deadline after %d of %d bytes", e.Which, e.Done, e.Total)
}

// Class says how near a peer is.
type Class int

// The classes bytes are counted in.
const (
	ClassLAN Class = iota
	ClassWAN
	ClassOrigin
	ClassWebseed
)

func (c Class) String() string { return [...]string{"lan", "wan", "origin", "webseed"}[c] }

// Limits are in bytes per second; zero is no limit.
type Limits struct{ Up, Down, LANUp, LANDown int64 }

// Config is what New needs; every field has a useful zero.
type Config struct {
	Listen   string
	Origins  []string
	Limits   Limits
	MaxPeers int
	Logger   *slog.Logger
}

// Ref is how a signed manifest names a torrent.
type Ref struct {
	Infohash   [20]byte
	InfoSHA256 [32]byte
	Length     int64
}

// Info is a checked info dict.
type Info struct {
	raw         []byte
	ref         Ref
	name        string
	pieceLength int64
	pieces      int
}

// OpenInfo checks b against want.
func OpenInfo(b []byte, want Ref) (*Info, error) { return nil, ErrBadInfo }

// BuildInfo hashes r.
func BuildInfo(ctx context.Context, r io.Reader, name string, length int64, private bool) (*Info, error) {
	return nil, ErrBadInfo
}

func (i *Info) Bytes() []byte      { return i.raw }
func (i *Info) Ref() Ref           { return i.ref }
func (i *Info) Name() string       { return i.name }
func (i *Info) PieceLength() int64 { return i.pieceLength }
func (i *Info) Pieces() int        { return i.pieces }

// Metainfo is a complete .torrent file for people and stock clients.
func (i *Info) Metainfo(trackers, webseeds []string) []byte { return nil }

// Magnet is a magnet link for people and stock clients.
func (i *Info) Magnet(trackers, webseeds []string) string { return "" }

// FetchOptions says where to look and when to give up.
type FetchOptions struct {
	Trackers     []string
	Peers        []string
	Progress     func(Progress)
	IdleTimeout  time.Duration
	TotalTimeout time.Duration
	MinRate      int64
}

// Bytes counts payload by class.
type Bytes struct{ LAN, WAN, Origin, Webseed, Given int64 }

// Progress is a moment of a fetch.
type Progress struct {
	Done, Total int64
	Bytes       Bytes
	Peers       int
	Rate        int64
}

// Stats is what the node did since New.
type Stats struct {
	Torrents []TorrentStats
}

// TorrentStats is one torrent's share.
type TorrentStats struct {
	Infohash [20]byte
	Complete bool
	Peers    int
	Bytes    Bytes
}

// Node is one BitTorrent node.
type Node struct{}

// New starts a node.
func New(Config) (*Node, error) { return &Node{}, nil }

func (n *Node) Addr() netip.AddrPort { return netip.AddrPort{} }
func (n *Node) SetLimits(Limits)     {}
func (n *Node) Close() error         { return nil }

// Seed serves the file at path.
func (n *Node) Seed(ctx context.Context, i *Info, path string, trackers []string) error {
	return ErrContent
}

// Fetch downloads to dst.
func (n *Node) Fetch(ctx context.Context, i *Info, dst string, o FetchOptions) (Bytes, error) {
	return Bytes{}, ErrContent
}
func (n *Node) Drop(infohash [20]byte) {}
func (n *Node) Stats() Stats           { return Stats{} }
