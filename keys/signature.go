package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// maxSignature bounds a signature from outside, without its armour: ours have about
// 200 bytes and the FIDO2 application.
const maxSignature = 4 << 10

const (
	magic     = "SSHSIG"
	version   = 1
	hashName  = "sha512"
	armorType = "SSH SIGNATURE"

	// Bit 0 of a FIDO2 signature's flags: someone touched the token.
	userPresent = 0x01
)

// Signature is an SSHSIG blob without armour. It is as untrusted as where it came from.
type Signature []byte

// ParseSignature reads a signature as ssh-keygen -Y sign writes it, or without the
// armour. It refuses whatever no key of ours could have made; only [Verify] says
// whether a signature is good.
func ParseSignature(b []byte) (Signature, error) {
	if armored := bytes.TrimSpace(b); bytes.HasPrefix(armored, []byte("-----BEGIN")) {
		if len(armored) > 2*maxSignature {
			return nil, fmt.Errorf("armoured signature is longer than %d bytes", 2*maxSignature)
		}
		block, rest := pem.Decode(armored)
		if block == nil || block.Type != armorType || len(block.Headers) > 0 || len(rest) > 0 ||
			bytes.Count(armored, []byte("-----BEGIN")) > 1 { // pem skips what it cannot read
			return nil, fmt.Errorf("not exactly one %q block", armorType)
		}
		b = block.Bytes
	}
	if _, err := openSignature(b); err != nil {
		return nil, err
	}
	return Signature(bytes.Clone(b)), nil
}

// KeyID returns the fingerprint of the key the signature claims to be from: which key
// to try first, not who signed.
func (s Signature) KeyID() (ID, error) {
	o, err := openSignature(s)
	if err != nil {
		return "", err
	}
	return o.key.ID(), nil
}

// PublicKey returns the key the signature carries. It is as much a claim as
// [Signature.KeyID]: a signature that verifies under it says that some holder of that
// key signed, and the caller must know from elsewhere whose key it is.
func (s Signature) PublicKey() (PublicKey, error) {
	o, err := openSignature(s)
	if err != nil {
		return PublicKey{}, err
	}
	return o.key, nil
}

// Armor returns the signature as text, as ssh-keygen -Y verify reads it.
func (s Signature) Armor() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: armorType, Bytes: s})
}

// ToBeSigned returns what a key signs for msg in namespace: about 110 bytes with the
// SHA-512 of msg in them. It is for programs behind cmd: and for tests.
func ToBeSigned(namespace string, msg []byte) []byte {
	sum := sha512.Sum512(msg)
	return append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{namespace, "", hashName, sum[:]})...)
}

// Verify reports whether sig was made by pub over msg in namespace. The namespace must
// come from what the caller wants to know, never from what is being checked.
func Verify(pub PublicKey, namespace string, msg []byte, sig Signature) error {
	o, err := openSignature(sig)
	if err != nil {
		return err
	}
	if o.namespace != namespace {
		return fmt.Errorf("signature is for namespace %.64q, want %q", o.namespace, namespace)
	}
	if !o.key.same(pub) {
		return fmt.Errorf("signature is by key %s, want %s", o.key.ID(), pub.ID())
	}
	return pub.verify(ToBeSigned(namespace, msg), o.raw)
}

// verify checks the signature proper. ed25519.Verify takes the two halves of a
// signature in canonical form only: R is compared as bytes, S >= the group order fails.
func (k PublicKey) verify(signed []byte, raw ssh.Signature) error {
	if k.algo == algoSKEd25519 {
		flags := raw.Rest[0]
		if flags&userPresent == 0 {
			return errors.New("signature was made without touching the FIDO2 token")
		}
		application, message := sha256.Sum256([]byte(k.application)), sha256.Sum256(signed)
		signed = append(application[:], raw.Rest...)
		signed = append(signed, message[:]...)
	}
	if !ed25519.Verify(k.point[:], signed, raw.Blob) {
		return errors.New("signature does not fit the key and the bytes")
	}
	return nil
}

// blob is SSHSIG after the magic preamble. Every field has one encoding and nothing may
// follow, so one signature has one blob.
type blob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// opened is a signature whose shape, not yet its truth, has been checked.
type opened struct {
	key       PublicKey
	namespace string
	raw       ssh.Signature
}

func openSignature(b []byte) (opened, error) {
	if len(b) > maxSignature {
		return opened{}, fmt.Errorf("signature is longer than %d bytes", maxSignature)
	}
	body, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return opened{}, errors.New("not an SSH signature")
	}
	if len(body) >= 4 && binary.BigEndian.Uint32(body) != version {
		return opened{}, fmt.Errorf("signature has version %d, want %d", binary.BigEndian.Uint32(body), version)
	}
	var f blob
	if err := ssh.Unmarshal(body, &f); err != nil {
		return opened{}, errors.New("signature is cut short or has bytes after its end")
	}
	if f.Namespace == "" {
		return opened{}, errors.New("signature has no namespace")
	}
	if len(f.Reserved) > 0 {
		return opened{}, errors.New("signature uses the reserved field")
	}
	if f.Hash != hashName {
		return opened{}, fmt.Errorf("signature is over hash %.16q, want %q", f.Hash, hashName)
	}
	key, err := parseWireKey(f.PublicKey)
	if err != nil {
		return opened{}, fmt.Errorf("reading the signature's key: %w", err)
	}
	raw, err := parseRaw(key, f.Signature)
	if err != nil {
		return opened{}, err
	}
	return opened{key, f.Namespace, raw}, nil
}

// parseRaw reads the SSH wire signature inside an SSHSIG, which is also what agents and
// programs answer. x/crypto ignores what follows the 64 bytes of an ed25519 signature;
// here nothing may, and a FIDO2 one is followed by flags and counter.
func parseRaw(key PublicKey, wire []byte) (ssh.Signature, error) {
	var raw ssh.Signature
	if err := ssh.Unmarshal(wire, &raw); err != nil {
		return raw, errors.New("signature proper is not in SSH wire form")
	}
	rest := 0
	if key.algo == algoSKEd25519 {
		rest = 1 + 4
	}
	if raw.Format != key.algo || len(raw.Blob) != ed25519.SignatureSize || len(raw.Rest) != rest {
		return raw, fmt.Errorf("signature proper is not of the form its %s key makes", key.algo)
	}
	return raw, nil
}

func sealSignature(key PublicKey, namespace string, raw ssh.Signature) Signature {
	return append([]byte(magic), ssh.Marshal(blob{
		Version:   version,
		PublicKey: key.wire(),
		Namespace: namespace,
		Hash:      hashName,
		Signature: ssh.Marshal(raw),
	})...)
}
