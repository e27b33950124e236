package keys

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// Limits on public keys from outside.
const (
	maxLine        = 4 << 10 // an ed25519 line is about 100 bytes and its comment
	maxApplication = 256     // a FIDO2 application is like "ssh:shoal"
)

// The two key types, as they are named on the wire.
const (
	algoEd25519   = ssh.KeyAlgoED25519
	algoSKEd25519 = ssh.KeyAlgoSKED25519
)

// ID is the OpenSSH fingerprint of a public key, "SHA256:" and 43 characters of base64.
// It says which key is meant; it proves nothing, and the plain and the FIDO2 form of
// one curve point have different IDs.
type ID string

// PublicKey is a checked ed25519 public key: [ParsePublicKey] and the signers make
// them. The zero value is no key; nothing verifies under it.
type PublicKey struct {
	algo        string
	application string // FIDO2 only
	point       [ed25519.PublicKeySize]byte
	comment     string
}

// ParsePublicKey reads one line as it stands in a .pub file: type, base64, comment.
// White space around the line is ignored. Options, certificates, other key types,
// points of small order and points not in canonical form are refused.
func ParsePublicKey(line string) (PublicKey, error) {
	if len(line) > maxLine {
		return PublicKey{}, fmt.Errorf("public key line is longer than %d bytes", maxLine)
	}
	if strings.Contains(line, "PRIVATE KEY-----") {
		return PublicKey{}, errors.New("this is a private key; the public key is the line in its .pub file")
	}
	algo, rest := cutBlank(strings.TrimSpace(line))
	encoded, comment := cutBlank(rest)
	if err := checkAlgo(algo); err != nil {
		return PublicKey{}, err
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return PublicKey{}, fmt.Errorf("decoding public key: %w", err)
	}
	k, err := parseWireKey(wire)
	if err != nil {
		return PublicKey{}, err
	}
	if k.algo != algo {
		return PublicKey{}, fmt.Errorf("public key line says %s but holds a key of type %s", algo, k.algo)
	}
	return k.withComment(comment)
}

// parseWireKey reads the binary form that lines, signatures and agents carry.
func parseWireKey(wire []byte) (PublicKey, error) {
	var head struct {
		Algo string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(wire, &head); err != nil {
		return PublicKey{}, errors.New("public key is not in SSH wire form")
	}
	if err := checkAlgo(head.Algo); err != nil {
		return PublicKey{}, err
	}
	k := PublicKey{algo: head.Algo}
	var point []byte
	if k.algo == algoEd25519 {
		var body struct{ Point []byte }
		if err := ssh.Unmarshal(head.Rest, &body); err != nil {
			return PublicKey{}, errors.New("public key has not exactly the fields of an ssh-ed25519 key")
		}
		point = body.Point
	} else {
		var body struct {
			Point       []byte
			Application string
		}
		if err := ssh.Unmarshal(head.Rest, &body); err != nil {
			return PublicKey{}, errors.New("public key has not exactly the fields of a FIDO2 ed25519 key")
		}
		if len(body.Application) > maxApplication {
			return PublicKey{}, fmt.Errorf("FIDO2 application is longer than %d bytes", maxApplication)
		}
		point, k.application = body.Point, body.Application
	}
	if len(point) != len(k.point) {
		return PublicKey{}, fmt.Errorf("public key is %d bytes long, want %d", len(point), len(k.point))
	}
	copy(k.point[:], point)
	if err := checkPoint(k.point); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// ID returns the key's fingerprint.
func (k PublicKey) ID() ID {
	sum := sha256.Sum256(k.wire())
	return ID("SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]))
}

// Point returns the encoded curve point: what tells one secret from another.
func (k PublicKey) Point() [32]byte { return k.point }

// Comment returns the free text of the key's line, which anyone can change.
func (k PublicKey) Comment() string { return k.comment }

// String returns the key as one line without a line end, as [ParsePublicKey] reads it.
func (k PublicKey) String() string {
	line := k.algo + " " + base64.StdEncoding.EncodeToString(k.wire())
	if k.comment != "" {
		line += " " + k.comment
	}
	return line
}

func (k PublicKey) wire() []byte {
	if k.algo == algoSKEd25519 {
		return ssh.Marshal(struct {
			Algo        string
			Point       []byte
			Application string
		}{k.algo, k.point[:], k.application})
	}
	return ssh.Marshal(struct {
		Algo  string
		Point []byte
	}{k.algo, k.point[:]})
}

// same reports whether k and other are one key, whatever their comments.
func (k PublicKey) same(other PublicKey) bool {
	return k.algo == other.algo && k.application == other.application && k.point == other.point
}

// withComment returns k with a comment that stays on its line and does nothing to the
// terminal it is shown on.
func (k PublicKey) withComment(comment string) (PublicKey, error) {
	if len(comment) > maxLine/2 {
		return PublicKey{}, fmt.Errorf("key comment is longer than %d bytes", maxLine/2)
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if !utf8.ValidString(comment) || strings.ContainsFunc(comment, unprintable) {
		return PublicKey{}, fmt.Errorf("key comment %q has characters that do not print", comment)
	}
	k.comment = strings.TrimSpace(comment)
	return k, nil
}

func checkAlgo(algo string) error {
	if algo == algoEd25519 || algo == algoSKEd25519 {
		return nil
	}
	return fmt.Errorf("key type %.64q is not supported: only %s and %s, and no options before them", algo, algoEd25519, algoSKEd25519)
}

func cutBlank(s string) (before, after string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}
