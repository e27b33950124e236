// Package keystest makes keys for tests: the same name gives the same key in every run,
// and a FIDO2 token needs no hardware and no finger.
package keystest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"testing"

	"golang.org/x/crypto/ssh"

	"shoal/keys"
)

// New returns the key that belongs to name, which is also its comment.
func New(t testing.TB, name string) keys.Signer {
	t.Helper()
	s, err := keys.FromCrypto(private(name), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// NewRole returns a role of the keys that belong to names, and their signers in the
// same order.
func NewRole(t testing.TB, threshold int, names ...string) (keys.Role, []keys.Signer) {
	t.Helper()
	role := keys.Role{Threshold: threshold}
	var signers []keys.Signer
	for _, name := range names {
		s := New(t, name)
		signers = append(signers, s)
		role.Keys = append(role.Keys, s.Public())
	}
	if err := role.Check(); err != nil {
		t.Fatal(err)
	}
	return role, signers
}

// Sign returns the entries of an envelope: msg signed in namespace by each signer.
func Sign(t testing.TB, namespace string, msg []byte, signers ...keys.Signer) []keys.Entry {
	t.Helper()
	var entries []keys.Entry
	for _, s := range signers {
		sig, err := s.Sign(context.Background(), namespace, msg)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, keys.Entry{KeyID: s.Public().ID(), Sig: sig})
	}
	return entries
}

// SK is a FIDO2 token in software, with the curve point that [New] gives its name.
// Flags and Counter go into the signatures it makes; no bit 0 in Flags means that
// nobody touched it, and the signature must be refused.
type SK struct {
	Flags   byte
	Counter uint32

	application string
	private     ed25519.PrivateKey
	public      keys.PublicKey
}

// NewSK returns a token that has been touched.
func NewSK(t testing.TB, name string) *SK {
	t.Helper()
	k := &SK{Flags: 1, Counter: 1, application: "ssh:shoal", private: private(name)}
	line := ssh.KeyAlgoSKED25519 + " " + base64.StdEncoding.EncodeToString(k.wire()) + " " + name
	pub, err := keys.ParsePublicKey(line)
	if err != nil {
		t.Fatal(err)
	}
	k.public = pub
	return k
}

// Public returns the sk-ssh-ed25519@openssh.com key.
func (k *SK) Public() keys.PublicKey { return k.public }

// Sign signs as a token does: over application, flags, counter and message digest.
func (k *SK) Sign(_ context.Context, namespace string, msg []byte) (keys.Signature, error) {
	application, message := sha256.Sum256([]byte(k.application)), sha256.Sum256(keys.ToBeSigned(namespace, msg))
	extra := binary.BigEndian.AppendUint32([]byte{k.Flags}, k.Counter)
	signed := append(append(application[:], extra...), message[:]...)
	raw := ssh.Marshal(ssh.Signature{
		Format: ssh.KeyAlgoSKED25519,
		Blob:   ed25519.Sign(k.private, signed),
		Rest:   extra,
	})
	return append([]byte("SSHSIG"), ssh.Marshal(struct {
		Version             uint32
		PublicKey           []byte
		Namespace, Reserved string
		Hash                string
		Signature           []byte
	}{1, k.wire(), namespace, "", "sha512", raw})...), nil
}

func (k *SK) wire() []byte {
	return ssh.Marshal(struct {
		Algo        string
		Point       []byte
		Application string
	}{ssh.KeyAlgoSKED25519, k.private.Public().(ed25519.PublicKey), k.application})
}

func private(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("shoal keystest: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}
