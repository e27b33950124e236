package manifest

import (
	"crypto/sha256"
	"encoding/hex"

	"shoal/internal/fault"
)

// Digest is a SHA-256. As text, and so in JSON, it is 64 lower-case hex digits.
type Digest [sha256.Size]byte

// Sum returns the SHA-256 of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if !decodeHex(d[:], s) {
		return Digest{}, fault.New(fault.Malformed, "%q is not a SHA-256: 64 lower-case hex digits are wanted", clip(s))
	}
	return d, nil
}

// ParsePrefixed reads "sha256:" and 64 lower-case hex digits, the form of fleet ids.
func ParsePrefixed(s string) (Digest, error) {
	if len(s) < len(digestPrefix) || s[:len(digestPrefix)] != digestPrefix {
		return Digest{}, fault.New(fault.Malformed, "%q does not start with %q", clip(s), digestPrefix)
	}
	return ParseDigest(s[len(digestPrefix):])
}

const digestPrefix = "sha256:"

// String returns bare lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Prefixed returns "sha256:" and lower-case hex.
func (d Digest) Prefixed() string { return digestPrefix + d.String() }

// IsZero reports whether d is the zero Digest, which stands for "not known".
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText returns bare hex.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads bare hex.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// FleetID is a Digest whose text has the prefix "sha256:".
type FleetID Digest

// String returns the prefixed form.
func (f FleetID) String() string { return Digest(f).Prefixed() }

// IsZero reports whether f is not set.
func (f FleetID) IsZero() bool { return Digest(f).IsZero() }

// MarshalText returns the prefixed form.
func (f FleetID) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the prefixed form.
func (f *FleetID) UnmarshalText(b []byte) error {
	d, err := ParsePrefixed(string(b))
	*f = FleetID(d)
	return err
}

// Infohash is the SHA-1 of a torrent's info dict (BEP 3). It finds peers and decides
// nothing.
type Infohash [20]byte

// ParseInfohash reads 40 lower-case hex digits.
func ParseInfohash(s string) (Infohash, error) {
	var h Infohash
	if !decodeHex(h[:], s) {
		return Infohash{}, fault.New(fault.Malformed, "%q is not an infohash: 40 lower-case hex digits are wanted", clip(s))
	}
	return h, nil
}

// String returns lower-case hex.
func (h Infohash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns lower-case hex.
func (h Infohash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads lower-case hex.
func (h *Infohash) UnmarshalText(b []byte) (err error) {
	*h, err = ParseInfohash(string(b))
	return err
}

// decodeHex fills dst from s and reports whether s is exactly that, in lower case:
// one spelling for one value.
func decodeHex(dst []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(dst)) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	_, err := hex.Decode(dst, []byte(s))
	return err == nil
}
