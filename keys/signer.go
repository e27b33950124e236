package keys

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Signer makes signatures with one key. Whatever holds the key is shown [ToBeSigned]
// and no more.
type Signer interface {
	Public() PublicKey
	// Sign signs msg for namespace. It may wait for a person or a network until ctx is
	// done.
	Sign(ctx context.Context, namespace string, msg []byte) (Signature, error)
}

// signer is every Signer of this package.
type signer struct {
	pub PublicKey
	// raw signs exactly the bytes it is given.
	raw func(ctx context.Context, toBeSigned []byte) (ssh.Signature, error)
	// private is set when the key itself is in this process and can be written.
	private ed25519.PrivateKey
}

func (s *signer) Public() PublicKey { return s.pub }

func (s *signer) Sign(ctx context.Context, namespace string, msg []byte) (Signature, error) {
	if namespace == "" {
		return nil, errors.New("no namespace to sign in")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := s.raw(ctx, ToBeSigned(namespace, msg))
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", s.pub.ID(), err)
	}
	sig := sealSignature(s.pub, namespace, raw)
	// An agent, a token or a program may answer with anything, and a fault while
	// signing can give the key away: what does not verify does not leave.
	if err := Verify(s.pub, namespace, msg, sig); err != nil {
		return nil, fmt.Errorf("checking what key %s signed: %w", s.pub.ID(), err)
	}
	return sig, nil
}

// Generate makes a new ssh-ed25519 key. It is in memory only until [WritePrivate].
func Generate(comment string) (Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating key: %w", err)
	}
	s, err := newSigner(private, comment)
	if err != nil {
		return nil, fmt.Errorf("generating key: %w", err)
	}
	return s, nil
}

// FromCrypto makes a Signer of an ed25519 key held elsewhere: a KMS, a PKCS#11 token,
// a TPM. s must sign whole messages (crypto.Hash(0)), not digests.
func FromCrypto(s crypto.Signer, comment string) (Signer, error) {
	own, err := newSigner(s, comment)
	if err != nil {
		return nil, fmt.Errorf("using key: %w", err)
	}
	return own, nil
}

func newSigner(s crypto.Signer, comment string) (*signer, error) {
	private, inMemory := s.(ed25519.PrivateKey)
	if inMemory && (len(private) != ed25519.PrivateKeySize || !private.Equal(ed25519.NewKeyFromSeed(private.Seed()))) {
		// Signing under a public half that is not the secret's would give the secret away.
		return nil, errors.New("the halves of the private key do not fit each other")
	}
	point, ok := s.Public().(ed25519.PublicKey)
	if !ok || len(point) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("signer has a public key of type %T, want an ed25519 key", s.Public())
	}
	pub := PublicKey{algo: algoEd25519, point: [32]byte(point)}
	if err := checkPoint(pub.point); err != nil {
		return nil, err
	}
	pub, err := pub.withComment(comment)
	if err != nil {
		return nil, err
	}
	raw := func(_ context.Context, toBeSigned []byte) (ssh.Signature, error) {
		b, err := s.Sign(rand.Reader, toBeSigned, crypto.Hash(0))
		return ssh.Signature{Format: algoEd25519, Blob: b}, err
	}
	return &signer{pub: pub, raw: raw, private: private}, nil
}
