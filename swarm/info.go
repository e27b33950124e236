package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"shoal/swarm/disk"
	"shoal/swarm/wire"
)

// Limits of an info dict.
const (
	// MaxInfoSize is the largest info dict, in bytes, that is made or opened. A reader
	// of info dicts stops there.
	MaxInfoSize = 256 << 10

	maxPieces      = wire.MaxPieces
	minPieceLength = 16 << 10
	maxPieceLength = 16 << 20
	maxName        = 255 // bytes; what common filesystems allow

	// A piece can be passed on only when it is whole, so pieces are as small as the
	// size of the dict allows, and the CPU time that each one takes.
	firstPieceLength = 32 << 10
	aimPieces        = 1024
)

// Ref is how a signed document names a torrent.
type Ref struct {
	Infohash   [20]byte // SHA-1 of the info dict, as peers know the torrent
	InfoSHA256 [32]byte // SHA-256 of the info dict; this is what is believed
	Length     int64    // of the file, in bytes
}

// Info is a checked info dict (BEP 3) of one file. Only [OpenInfo] and [BuildInfo] make
// one, and it cannot be changed.
type Info struct {
	raw         []byte
	ref         Ref
	name        string
	pieceLength int64
	hashes      []byte // 20 bytes for each piece
	private     bool
}

// OpenInfo checks that b is the info dict that want names and that it describes a single
// file in a form this package allows: canonical bencode of version 1 with no member but
// `length`, `name`, `piece length`, `pieces` and `private`, a name that is safe as the
// name of a file everywhere, and a sound number of pieces of a sound size. Every failure
// is an ErrBadInfo. b is copied.
func OpenInfo(b []byte, want Ref) (*Info, error) {
	if len(b) > MaxInfoSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBadInfo, len(b), MaxInfoSize)
	}
	if got := sha256.Sum256(b); got != want.InfoSHA256 {
		return nil, fmt.Errorf("%w: SHA-256 is %x, expected %x", ErrBadInfo, got, want.InfoSHA256)
	}
	i, err := parseInfo(bytes.Clone(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBadInfo, err)
	}
	if i.ref.Infohash != want.Infohash {
		return nil, fmt.Errorf("%w: infohash is %x, expected %x", ErrBadInfo, i.ref.Infohash, want.Infohash)
	}
	if i.ref.Length != want.Length {
		return nil, fmt.Errorf("%w: length is %d, expected %d", ErrBadInfo, i.ref.Length, want.Length)
	}
	return i, nil
}

// parseInfo checks the shape of an info dict. It keeps b.
func parseInfo(b []byte) (*Info, error) {
	i := &Info{raw: b}
	var length int64
	var sawName, sawPieces bool
	d := bdecoder{b: b}
	err := d.dict(func(key string) (err error) {
		var v []byte
		switch key {
		case "length":
			length, err = d.integer()
		case "name":
			sawName = true
			v, err = d.bytes()
			i.name = string(v)
		case "piece length":
			i.pieceLength, err = d.integer()
		case "pieces":
			sawPieces = true
			i.hashes, err = d.bytes()
		case "private":
			var p int64
			if p, err = d.integer(); err == nil && p != 1 {
				err = fmt.Errorf("private is %d, only 1 is allowed", p)
			}
			i.private = true
		default:
			err = fmt.Errorf("member %q is not allowed", key)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !sawName || !sawPieces:
		return nil, errors.New("name or pieces is missing")
	case length < 1:
		return nil, fmt.Errorf("length %d is not allowed", length)
	case i.pieceLength < minPieceLength || i.pieceLength > maxPieceLength:
		return nil, fmt.Errorf("piece length %d is not between %d and %d", i.pieceLength, minPieceLength, maxPieceLength)
	}
	if err := checkName(i.name); err != nil {
		return nil, err
	}
	// In this order nothing can overflow: length/pieceLength is bounded before use.
	if length/i.pieceLength >= maxPieces+1 || pieceCount(length, i.pieceLength) > maxPieces {
		return nil, fmt.Errorf("length %d needs more than %d pieces", length, maxPieces)
	}
	if want := pieceCount(length, i.pieceLength) * sha1.Size; len(i.hashes) != want {
		return nil, fmt.Errorf("pieces has %d bytes, expected %d", len(i.hashes), want)
	}
	i.ref = Ref{Infohash: sha1.Sum(b), InfoSHA256: sha256.Sum256(b), Length: length}
	return i, nil
}

func pieceCount(length, pieceLength int64) int {
	return int((length + pieceLength - 1) / pieceLength)
}

// checkName allows what is a plain file name on every system, and only that. Names come
// from whoever made the torrent.
func checkName(s string) error {
	switch {
	case s == "" || len(s) > maxName:
		return fmt.Errorf("name of %d bytes is not allowed", len(s))
	case !utf8.ValidString(s):
		return errors.New("name is not UTF-8")
	case s == "." || s == ".." || s == "-": // "-" means "no name" to some clients
		return fmt.Errorf("name %q is not allowed", s)
	case strings.ContainsAny(s, `/\:*?"<>|`):
		return fmt.Errorf("name %q has a character that is not allowed", s)
	case strings.HasSuffix(s, ".") || strings.HasPrefix(s, " ") || strings.HasSuffix(s, " "):
		return fmt.Errorf("name %q begins or ends with a character that is not allowed there", s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name %q has a character that is not allowed", s)
		}
	}
	stem, _, _ := strings.Cut(strings.ToUpper(s), ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL":
		return fmt.Errorf("name %q is a device on some systems", s)
	}
	if r := []rune(stem); len(r) == 4 && (strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")) &&
		strings.ContainsRune("0123456789¹²³", r[3]) {
		return fmt.Errorf("name %q is a device on some systems", s)
	}
	return nil
}

// BuildInfo makes the info dict of a file called name whose content is the next length
// bytes of r; it is an error for r to have fewer, or more. Pieces are 32 KiB, doubled
// until there are at most 1024, and never above 16 MiB, so the longest file is 128 GiB.
// With private set, clients take peers from the trackers alone (BEP 27).
func BuildInfo(ctx context.Context, r io.Reader, name string, length int64, private bool) (*Info, error) {
	if length < 1 || length > maxPieces*maxPieceLength {
		return nil, fmt.Errorf("hashing %q: a file of %d bytes cannot be shared", name, length)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	pieceLength := pieceLengthFor(length)
	hashes, err := hashPieces(ctx, r, length, pieceLength)
	if err != nil {
		return nil, fmt.Errorf("hashing %q: %w", name, err)
	}
	b := append([]byte(nil), 'd')
	b = appendInt(appendString(b, "length"), length)
	b = appendString(appendString(b, "name"), name)
	b = appendInt(appendString(b, "piece length"), pieceLength)
	b = appendString(appendString(b, "pieces"), hashes)
	if private {
		b = appendInt(appendString(b, "private"), 1)
	}
	return parseInfo(append(b, 'e'))
}

func pieceLengthFor(length int64) int64 {
	n := int64(firstPieceLength)
	for pieceCount(length, n) > aimPieces && n < maxPieceLength {
		n *= 2
	}
	return n
}

func hashPieces(ctx context.Context, r io.Reader, length, pieceLength int64) ([]byte, error) {
	hashes := make([]byte, 0, pieceCount(length, pieceLength)*sha1.Size)
	h := sha1.New()
	buf := make([]byte, 256<<10)
	for done := int64(0); done < length; {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h.Reset()
		n, err := io.CopyBuffer(h, io.LimitReader(r, min(pieceLength, length-done)), buf)
		if err != nil {
			return nil, err
		}
		if done += n; n < pieceLength && done < length {
			return nil, fmt.Errorf("%w: it has only %d of %d bytes", ErrContent, done, length)
		}
		hashes = h.Sum(hashes)
	}
	switch n, err := io.ReadFull(r, buf[:1]); {
	case n > 0:
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrContent, length)
	case err != io.EOF:
		return nil, err
	}
	return hashes, nil
}

// Bytes returns a copy of the info dict, as peers and mirrors pass it on.
func (i *Info) Bytes() []byte { return bytes.Clone(i.raw) }

// Ref returns what a manifest says of this torrent.
func (i *Info) Ref() Ref { return i.ref }

// Name returns the file name stock clients will use, which is safe as one.
func (i *Info) Name() string { return i.name }

// PieceLength returns the length of every piece but the last, in bytes.
func (i *Info) PieceLength() int64 { return i.pieceLength }

// Private reports whether clients take peers from the trackers alone (BEP 27), as in a
// fleet with a key.
func (i *Info) Private() bool { return i.private }

// Pieces returns the number of pieces.
func (i *Info) Pieces() int { return i.layout().Pieces() }

func (i *Info) layout() disk.Layout {
	return disk.Layout{Length: i.ref.Length, PieceLength: i.pieceLength, Hashes: i.hashes}
}

// piece returns where piece n lies and its SHA-1.
func (i *Info) piece(n int) (off, length int64, hash []byte) { return i.layout().Piece(n) }
