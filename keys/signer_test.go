package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"shoal/keys"
)

func keystestPrivate() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
}

// remoteKey is a KMS: it signs, and keeps the key.
type remoteKey struct{ private ed25519.PrivateKey }

func (k remoteKey) Public() crypto.PublicKey { return k.private.Public() }
func (k remoteKey) Sign(_ io.Reader, b []byte, o crypto.SignerOpts) ([]byte, error) {
	if o.HashFunc() != 0 {
		return nil, errors.New("asked for a digest signature")
	}
	return ed25519.Sign(k.private, b), nil
}

// brokenKey answers what it was made with.
type brokenKey struct {
	remoteKey
	sig []byte
	err error
}

func (k brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return k.sig, k.err }

func TestSignerGivesOutNothingThatDoesNotVerify(t *testing.T) {
	private := keystestPrivate()
	offline := errors.New("kms is offline")
	for _, tt := range []struct {
		name string
		key  brokenKey
		want error
	}{
		{"bit-error", brokenKey{sig: bytes.Repeat([]byte{1}, 64)}, nil},
		{"of-other-bytes", brokenKey{sig: ed25519.Sign(private, []byte("other"))}, nil},
		{"of-the-bare-message", brokenKey{sig: ed25519.Sign(private, msg)}, nil},
		{"empty", brokenKey{}, nil},
		{"too-long", brokenKey{sig: make([]byte, 65)}, nil},
		{"its-own-error", brokenKey{err: offline}, offline},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.key.remoteKey = remoteKey{private}
			s, err := keys.FromCrypto(tt.key, "kms")
			if err != nil {
				t.Fatal(err)
			}
			sig, err := s.Sign(context.Background(), namespace, msg)
			if err == nil || sig != nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("signature %x, error %v", sig, err)
			}
		})
	}
}

func TestFromCryptoRefuses(t *testing.T) {
	private := keystestPrivate()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// A signer with the wrong public half gives its secret away with two signatures.
	mismatched := slices.Clone(private)
	copy(mismatched[32:], ed25519.NewKeyFromSeed(make([]byte, 32))[32:])
	neutral := slices.Clone(private)
	copy(neutral[32:], append([]byte{1}, make([]byte, 31)...))
	for _, tt := range []struct {
		name    string
		key     crypto.Signer
		comment string
		want    string
	}{
		{"ecdsa", ec, "", "ed25519"},
		{"halves-of-two-keys", mismatched, "", "do not fit"},
		{"short-private-key", private[:40], "", "do not fit"},
		{"small-order-public-key", remoteKey{neutral}, "", "small order"},
		{"line-end-in-comment", private, "a\nssh-ed25519 AAAA", "do not print"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := keys.FromCrypto(tt.key, tt.comment)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("signer %v, error %v, want one with %q", s, err, tt.want)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	s := generate(t, "alice")
	if _, err := s.Sign(context.Background(), "", msg); err == nil {
		t.Error("signed for no namespace")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Sign(ctx, namespace, msg); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
}

func TestGenerateMakesDistinctKeys(t *testing.T) {
	a, b := generate(t, "a"), generate(t, "b")
	if a.Public().Point() == b.Public().Point() {
		t.Error("two keys are one")
	}
	if _, err := keys.Generate("a\x00b"); err == nil {
		t.Error("a comment with a NUL is accepted")
	}
}
