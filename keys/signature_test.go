package keys_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"shoal/keys"
	"shoal/keys/keystest"
)

const namespace = "shoal.manifest.v1"

var msg = []byte(`{"sequence": 43}` + "\n")

// parts is an SSHSIG taken apart, for putting together wrongly.
type parts struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

func (p parts) blob() keys.Signature { return append([]byte("SSHSIG"), ssh.Marshal(p)...) }

func takeApart(t testing.TB, sig keys.Signature) parts {
	t.Helper()
	var p parts
	if err := ssh.Unmarshal(sig[6:], &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func sign(t testing.TB, s keys.Signer, namespace string, msg []byte) keys.Signature {
	t.Helper()
	sig, err := s.Sign(context.Background(), namespace, msg)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// testKey is a key whose private half these tests hold, to sign what it must not.
func testKey(t testing.TB) (ed25519.PrivateKey, keys.PublicKey) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	s, err := keys.FromCrypto(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	return private, s.Public()
}

// signWhole signs parts as they stand, so that only the named field is wrong, not the
// signature over it.
func signWhole(private ed25519.PrivateKey, p parts, sum []byte) keys.Signature {
	tbs := append([]byte("SSHSIG"), wireKey(p.Namespace, p.Reserved, p.Hash, sum)...)
	p.Signature = wireKey(plain, ed25519.Sign(private, tbs))
	return p.blob()
}

func TestVerifyAcceptsItsOwn(t *testing.T) {
	private, pub := testKey(t)
	s, err := keys.FromCrypto(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 1 << 20} {
		msg := make([]byte, n)
		sig := sign(t, s, namespace, msg)
		if err := keys.Verify(pub, namespace, msg, sig); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		armored, err := keys.ParseSignature(sig.Armor())
		if err != nil || !bytes.Equal(armored, sig) {
			t.Errorf("%d bytes: armour reads back as %x, %v", n, armored, err)
		}
		if id, err := sig.KeyID(); err != nil || id != pub.ID() {
			t.Errorf("%d bytes: KeyID %s, %v", n, id, err)
		}
	}
	if got := len(keys.ToBeSigned(namespace, make([]byte, 1<<20))); got > 120 {
		t.Errorf("a signer is shown %d bytes", got)
	}
}

func TestVerifyRefuses(t *testing.T) {
	private, pub := testKey(t)
	s, err := keys.FromCrypto(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	mallory := keystest.New(t, "mallory")
	good := sign(t, s, namespace, msg)
	sum512 := sha512.Sum512(msg)
	sum256 := sha256.Sum256(msg)
	base := takeApart(t, good)

	// A helper that must reproduce the good signature is one whose bad ones mean something.
	if !bytes.Equal(signWhole(private, base, sum512[:]), good) {
		t.Fatal("signWhole does not sign as keys does")
	}
	with := func(change func(*parts)) parts {
		p := base
		change(&p)
		return p
	}
	raw := base.Signature[len(base.Signature)-64:]

	for _, tt := range []struct {
		name string
		sig  keys.Signature
		want string
	}{
		{"of-another-document-type", sign(t, s, "shoal.beacon.v1", msg), "for namespace"},
		{"namespace-rewritten", func() keys.Signature {
			p := takeApart(t, sign(t, s, "shoal.beacon.v1", msg))
			p.Namespace = namespace
			return p.blob()
		}(), "does not fit"},
		{"namespace-with-a-tail", sign(t, s, namespace+"\x00", msg), "for namespace"},
		{"namespace-empty", signWhole(private, with(func(p *parts) { p.Namespace = "" }), sum512[:]), "no namespace"},
		{"of-another-message", sign(t, s, namespace, []byte("other")), "does not fit"},
		{"by-another-key", sign(t, mallory, namespace, msg), "is by key"},
		{"by-another-key-relabelled", with(func(p *parts) {
			p.Signature = takeApart(t, sign(t, mallory, namespace, msg)).Signature
		}).blob(), "does not fit"},
		{"by-the-fido2-form-of-the-key", func() keys.Signature {
			point := pub.Point()
			p := with(func(p *parts) { p.PublicKey = wireKey(sk, point[:], "ssh:"); p.Signature = nil })
			tbs, app := sha256.Sum256(keys.ToBeSigned(namespace, msg)), sha256.Sum256([]byte("ssh:"))
			rest := []byte{1, 0, 0, 0, 1}
			p.Signature = append(wireKey(sk, ed25519.Sign(private, slices.Concat(app[:], rest, tbs[:]))), rest...)
			return p.blob()
		}(), "is by key"},
		{"by-the-fido2-form-without-application", func() keys.Signature {
			point := pub.Point()
			rest := []byte{1, 0, 0, 0, 1}
			return with(func(p *parts) {
				p.PublicKey = wireKey(sk, point[:], "")
				p.Signature = append(wireKey(sk, raw), rest...)
			}).blob()
		}(), "is by key"},
		{"hash-sha256", signWhole(private, with(func(p *parts) { p.Hash = "sha256" }), sum256[:]), "over hash"},
		{"hash-sha256-called-sha512", signWhole(private, base, sum256[:]), "does not fit"},
		{"hash-name-upper-case", signWhole(private, with(func(p *parts) { p.Hash = "SHA512" }), sum512[:]), "over hash"},
		{"version-0", signWhole(private, with(func(p *parts) { p.Version = 0 }), sum512[:]), "version 0"},
		{"version-2", signWhole(private, with(func(p *parts) { p.Version = 2 }), sum512[:]), "version 2"},
		{"reserved-in-use", signWhole(private, with(func(p *parts) { p.Reserved = "x" }), sum512[:]), "reserved"},
		{"byte-after-the-blob", append(slices.Clone(good), 0), "after its end"},
		{"two-blobs", append(slices.Clone(good), good...), "after its end"},
		{"byte-after-the-64", with(func(p *parts) { p.Signature = append(slices.Clone(p.Signature), 0) }).blob(), "not of the form"},
		{"63-bytes", with(func(p *parts) { p.Signature = wireKey(plain, raw[:63]) }).blob(), "not of the form"},
		{"65-bytes", with(func(p *parts) { p.Signature = wireKey(plain, append(slices.Clone(raw), 0)) }).blob(), "not of the form"},
		{"0-bytes", with(func(p *parts) { p.Signature = wireKey(plain, []byte{}) }).blob(), "not of the form"},
		{"format-rsa", with(func(p *parts) { p.Signature = wireKey("rsa-sha2-512", raw) }).blob(), "not of the form"},
		{"format-fido2", with(func(p *parts) { p.Signature = append(wireKey(sk, raw), 1, 0, 0, 0, 1) }).blob(), "not of the form"},
		{"no-signature", with(func(p *parts) { p.Signature = nil }).blob(), "wire form"},
		{"key-rsa", with(func(p *parts) { p.PublicKey = wireKey("ssh-rsa", []byte{1, 0, 1}, make([]byte, 256)) }).blob(), "not supported"},
		{"key-certificate", with(func(p *parts) { p.PublicKey = wireKey("ssh-ed25519-cert-v01@openssh.com", p.PublicKey) }).blob(), "not supported"},
		{"key-with-a-tail", with(func(p *parts) { p.PublicKey = append(slices.Clone(p.PublicKey), 0) }).blob(), "exactly the fields"},
		{"s-plus-group-order", with(func(p *parts) { p.Signature = wireKey(plain, addOrder(raw)) }).blob(), "does not fit"},
		{"raw-signature-without-sshsig", base.Signature, "not an SSH signature"},
		{"magic-lower-case", append([]byte("sshsig"), good[6:]...), "not an SSH signature"},
		{"armour-where-a-blob-is-due", good.Armor(), "not an SSH signature"},
		{"empty", nil, "not an SSH signature"},
		{"magic-only", keys.Signature("SSHSIG"), "cut short"},
		{"huge", append(slices.Clone(good), make([]byte, 4<<10)...), "longer than"},
		{"length-field-of-4-GiB", append([]byte("SSHSIG\x00\x00\x00\x01\xff\xff\xff\xff"), good[14:]...), "cut short"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := keys.Verify(pub, namespace, msg, tt.sig)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}

	t.Run("no-namespace-wanted", func(t *testing.T) {
		if err := keys.Verify(pub, "", msg, good); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("no-key-wanted", func(t *testing.T) {
		if err := keys.Verify(keys.PublicKey{}, namespace, msg, good); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("every-bit-flipped", func(t *testing.T) {
		for i := range len(good) * 8 {
			sig := slices.Clone(good)
			sig[i/8] ^= 1 << (i % 8)
			if err := keys.Verify(pub, namespace, msg, sig); err == nil {
				t.Errorf("accepted with bit %d flipped", i)
			}
		}
	})
	t.Run("every-prefix", func(t *testing.T) {
		for i := range good {
			if _, err := keys.ParseSignature(good[:i]); err == nil {
				t.Errorf("the first %d bytes are accepted", i)
			}
		}
	})
}

// addOrder returns the signature with S + L for S: the same residue, refused by RFC 8032.
func addOrder(raw []byte) []byte {
	s := littleEndian(raw[32:])
	return append(slices.Clone(raw[:32]), toLittleEndian(s.Add(s, groupOrder))...)
}

var groupOrder, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

func littleEndian(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func toLittleEndian(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

// The holder of a key can choose R = 0. Written in its one canonical form that is a
// signature like any other; in the other forms it would be a second one that fits.
func TestVerifyTakesRInCanonicalFormOnly(t *testing.T) {
	private, pub := testKey(t)
	expanded := sha512.Sum512(private.Seed())
	expanded[0] &= 248
	expanded[31] = expanded[31]&127 | 64
	secret := littleEndian(expanded[:32])
	forge := func(r []byte) keys.Signature {
		point := pub.Point()
		k := sha512.Sum512(slices.Concat(r, point[:], keys.ToBeSigned(namespace, msg)))
		s := new(big.Int).Mul(littleEndian(k[:]), secret)
		raw := append(slices.Clone(r), toLittleEndian(s.Mod(s, groupOrder))...)
		return parts{1, wireKey(plain, point[:]), namespace, "", "sha512", wireKey(plain, raw)}.blob()
	}
	canonical := append([]byte{1}, make([]byte, 31)...)
	if err := keys.Verify(pub, namespace, msg, forge(canonical)); err != nil {
		t.Fatalf("R = 0 in canonical form: %v", err)
	}
	minusZero := slices.Clone(canonical)
	minusZero[31] = 0x80
	plusP := bytes.Repeat([]byte{0xff}, 32)
	plusP[0], plusP[31] = 0xee, 0x7f
	for name, r := range map[string][]byte{"sign-of-zero": minusZero, "y-plus-p": plusP} {
		if err := keys.Verify(pub, namespace, msg, forge(r)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVerifyFIDO2(t *testing.T) {
	token := keystest.NewSK(t, "alice")
	pub := token.Public()
	signWith := func(flags byte) keys.Signature {
		token.Flags = flags
		return sign(t, token, namespace, msg)
	}
	touched := signWith(0x01)
	p := takeApart(t, touched)
	tail := func(change func(rest []byte) []byte) keys.Signature {
		q, n := p, len(p.Signature)-5
		q.Signature = append(slices.Clone(p.Signature[:n]), change(slices.Clone(p.Signature[n:]))...)
		return q.blob()
	}
	point := pub.Point()
	for _, tt := range []struct {
		name string
		sig  keys.Signature
		want string // empty: accepted
	}{
		{"touched", touched, ""},
		{"touched-and-verified-by-pin", signWith(0x05), ""},
		{"all-flags", signWith(0xff), ""},
		{"not-touched", signWith(0x00), "without touching"},
		{"verified-by-pin-but-not-touched", signWith(0x04), "without touching"},
		{"all-flags-but-touched", signWith(0xfe), "without touching"},
		{"touch-claimed-afterwards", func() keys.Signature {
			q := takeApart(t, signWith(0x00))
			q.Signature[len(q.Signature)-5] = 0x01
			return q.blob()
		}(), "does not fit"},
		{"counter-changed", tail(func(r []byte) []byte {
			binary.BigEndian.PutUint32(r[1:], 99)
			return r
		}), "does not fit"},
		{"no-flags", tail(func([]byte) []byte { return nil }), "not of the form"},
		{"counter-of-3-bytes", tail(func(r []byte) []byte { return r[:4] }), "not of the form"},
		{"byte-after-the-counter", tail(func(r []byte) []byte { return append(r, 0) }), "not of the form"},
		{"another-application", parts{1, wireKey(sk, point[:], "ssh:other"), namespace, "", "sha512", p.Signature}.blob(), "is by key"},
		{"signed-as-plain-key", parts{1, p.PublicKey, namespace, "", "sha512",
			takeApart(t, sign(t, keystest.New(t, "alice"), namespace, msg)).Signature}.blob(), "not of the form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := keys.Verify(pub, namespace, msg, tt.sig)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && err == nil:
				t.Error("accepted")
			case tt.want != "" && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}
}

// What x/crypto says of the same signature over the same bytes.
func TestVerifyAgreesWithXCrypto(t *testing.T) {
	for name, s := range map[string]keys.Signer{"plain": keystest.New(t, "alice"), "fido2": keystest.NewSK(t, "alice")} {
		t.Run(name, func(t *testing.T) {
			sig := sign(t, s, namespace, msg)
			theirs, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.Public().String()))
			if err != nil {
				t.Fatal(err)
			}
			var raw ssh.Signature
			if err := ssh.Unmarshal(takeApart(t, sig).Signature, &raw); err != nil {
				t.Fatal(err)
			}
			if err := theirs.Verify(keys.ToBeSigned(namespace, msg), &raw); err != nil {
				t.Errorf("x/crypto: %v", err)
			}
			if err := keys.Verify(s.Public(), namespace, msg, sig); err != nil {
				t.Errorf("keys: %v", err)
			}
		})
	}
}

func TestParseSignatureArmour(t *testing.T) {
	good := sign(t, keystest.New(t, "alice"), namespace, msg)
	text := string(good.Armor())
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"as-written", text, true},
		{"windows-line-ends", strings.ReplaceAll(text, "\n", "\r\n"), true},
		{"blank-lines-around", "\n\n" + text + "\n\n", true},
		{"blob", string(good), true},
		{"words-before", "signature:\n" + text, false},
		{"words-after", text + "more", false},
		{"two-signatures", text + text, false},
		{"damaged-then-good", strings.Replace(text, "U1NI", "U1N!", 1) + text, false},
		{"another-type", string(pem.EncodeToMemory(&pem.Block{Type: "SSH CERTIFICATE", Bytes: good})), false},
		{"with-headers", string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Headers: map[string]string{"a": "b"}, Bytes: good})), false},
		{"no-end", strings.TrimSuffix(strings.TrimSpace(text), "-----END SSH SIGNATURE-----"), false},
		{"mostly-line-ends", strings.Replace(text, "\n", strings.Repeat("\n", 9<<10), 1), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sig, err := keys.ParseSignature([]byte(tt.text))
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %v", err, tt.ok)
			}
			if tt.ok && !bytes.Equal(sig, good) {
				t.Errorf("reads as %x", sig)
			}
		})
	}
}

// Vectors on disk: testdata/good was made by stock ssh-keygen.
func TestSignatureVectors(t *testing.T) {
	pub, text := readVectors(t)
	for _, path := range vectors(t, "testdata/good/*.sig") {
		sig, err := keys.ParseSignature(readFile(t, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if err := keys.Verify(pub, "shoal.root.v1", text, sig); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	want := map[string]string{
		"byte-after-the-blob":      "after its end",
		"byte-after-the-signature": "not of the form",
		"ecdsa-key":                "not supported",
		"fido2-form-of-the-key":    "is by key",
		"hash-sha256":              "over hash",
		"neutral-point-key":        "small order",
		"other-key":                "is by key",
		"other-message":            "does not fit",
		"other-namespace":          "for namespace",
		"reserved-in-use":          "reserved",
		"rsa-key":                  "not supported",
		"s-plus-group-order":       "does not fit",
		"signature-of-63-bytes":    "not of the form",
		"version-2":                "version 2",
	}
	checkBadVectors(t, ".sig", want, func(path string) error {
		sig, err := keys.ParseSignature(readFile(t, path))
		if err != nil {
			return err
		}
		return keys.Verify(pub, "shoal.root.v1", text, sig)
	})
}

func readVectors(t testing.TB) (keys.PublicKey, []byte) {
	t.Helper()
	pub, err := keys.ReadPublic("testdata/good/key.pub")
	if err != nil {
		t.Fatal(err)
	}
	return pub, readFile(t, "testdata/good/message")
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzParseSignature(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.sig", "testdata/bad/*.sig"} {
		for _, path := range vectors(f, pattern) {
			b := readFile(f, path)
			f.Add(b)
			if block, _ := pem.Decode(b); block != nil {
				f.Add(block.Bytes)
			}
		}
	}
	f.Add([]byte(sign(f, keystest.NewSK(f, "alice"), namespace, msg)))
	f.Fuzz(func(t *testing.T, b []byte) {
		sig, err := keys.ParseSignature(b)
		if err != nil {
			return
		}
		if _, err := sig.KeyID(); err != nil {
			t.Fatalf("parsed, but has no key: %v", err)
		}
		// A signature has one blob: taken apart and put together it is the same bytes.
		if again := takeApart(t, sig).blob(); !bytes.Equal(again, sig) {
			t.Fatalf("%x is also %x", sig, again)
		}
		if again, err := keys.ParseSignature(sig.Armor()); err != nil || !bytes.Equal(again, sig) {
			t.Fatalf("armour of %x reads back as %x, %v", sig, again, err)
		}
	})
}

// FuzzVerify looks for a second signature that fits: none of ours may, for ed25519 as
// checked here has exactly one for each R, and the fuzzer does not know the key.
func FuzzVerify(f *testing.F) {
	alice, token := keystest.New(f, "alice"), keystest.NewSK(f, "bob")
	known := [][]byte{sign(f, alice, namespace, msg), sign(f, token, namespace, msg)}
	role := keys.Role{Threshold: 1, Keys: []keys.PublicKey{alice.Public(), token.Public()}}
	for _, k := range known {
		f.Add(k, namespace, msg)
		f.Add(k, "shoal.root.v1", msg)
	}
	f.Add([]byte(sign(f, keystest.New(f, "mallory"), namespace, msg)), namespace, msg)
	f.Fuzz(func(t *testing.T, sig []byte, ns string, m []byte) {
		isKnown := ns == namespace && bytes.Equal(m, msg) &&
			slices.ContainsFunc(known, func(k []byte) bool { return bytes.Equal(k, sig) })
		var entries []keys.Entry
		fits := false
		for _, k := range role.Keys {
			fits = fits || keys.Verify(k, ns, m, sig) == nil
			entries = append(entries, keys.Entry{KeyID: k.ID(), Sig: sig})
		}
		if fits != isKnown {
			t.Fatalf("signature %x for %q over %x: fits %v, want %v", sig, ns, m, fits, isKnown)
		}
		if _, err := role.Verify(ns, m, entries); (err == nil) != isKnown {
			t.Fatalf("role says %v of signature %x", err, sig)
		}
	})
}
