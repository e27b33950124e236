package keys_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"shoal/keys"
	"shoal/keys/keystest"
)

func wireKey(fields ...any) []byte {
	var b []byte
	for _, f := range fields {
		switch f := f.(type) {
		case string:
			b = append(b, ssh.Marshal(struct{ S string }{f})...)
		case []byte:
			b = append(b, ssh.Marshal(struct{ B []byte }{f})...)
		}
	}
	return b
}

func line(algo string, wire []byte) string {
	return algo + " " + base64.StdEncoding.EncodeToString(wire)
}

const (
	plain = "ssh-ed25519"
	sk    = "sk-ssh-ed25519@openssh.com"
)

func TestParsePublicKeyReadsWhatOpenSSHWrites(t *testing.T) {
	point := keystest.New(t, "alice").Public().Point()
	for _, tt := range []struct {
		name, line, comment string
	}{
		{"plain", line(plain, wireKey(plain, point[:])) + " alice@acme", "alice@acme"},
		{"no-comment", line(plain, wireKey(plain, point[:])), ""},
		{"comment-of-several-words", line(plain, wireKey(plain, point[:])) + " vault key, 2nd floor", "vault key, 2nd floor"},
		{"line-end", line(plain, wireKey(plain, point[:])) + " alice\r\n", "alice"},
		{"tabs-between", strings.ReplaceAll(line(plain, wireKey(plain, point[:]))+" alice", " ", "\t"), "alice"},
		{"fido2", line(sk, wireKey(sk, point[:], "ssh:shoal")) + " alice", "alice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := keys.ParsePublicKey(tt.line)
			if err != nil {
				t.Fatal(err)
			}
			if k.Point() != point || k.Comment() != tt.comment {
				t.Errorf("point %x comment %q, want %x %q", k.Point(), k.Comment(), point, tt.comment)
			}
			theirs, _, _, _, err := ssh.ParseAuthorizedKey([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if want := keys.ID(ssh.FingerprintSHA256(theirs)); k.ID() != want {
				t.Errorf("ID %s, want %s", k.ID(), want)
			}
			if again, err := keys.ParsePublicKey(k.String()); err != nil || again != k {
				t.Errorf("String() reads back as %v, %v", again, err)
			}
		})
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	alice := keystest.New(t, "alice").Public()
	point := alice.Point()
	good := line(plain, wireKey(plain, point[:]))
	for _, tt := range []struct {
		name, line, want string
	}{
		{"empty", "", "not supported"},
		{"options-before-the-key", `command="/bin/sh" ` + good, "no options"},
		{"cert-authority-option", "cert-authority " + good, "no options"},
		{"rsa", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== x", "not supported"},
		{"ecdsa", "ecdsa-sha2-nistp256 AAAA x", "not supported"},
		{"fido2-ecdsa", "sk-ecdsa-sha2-nistp256@openssh.com AAAA x", "not supported"},
		{"certificate", "ssh-ed25519-cert-v01@openssh.com AAAA x", "not supported"},
		{"rsa-wire-under-ed25519-label", line(plain, wireKey("ssh-rsa", []byte{1, 0, 1}, point[:])), "not supported"},
		{"label-says-fido2", line(sk, wireKey(plain, point[:])), "says sk-ssh-ed25519"},
		{"label-says-plain", line(plain, wireKey(sk, point[:], "ssh:")), "says ssh-ed25519"},
		{"two-lines", good + " a\n" + good + " b", "do not print"},
		{"no-key", plain, "wire form"},
		{"no-base64", plain + " alice@acme", "decoding"},
		{"base64-without-padding", strings.TrimRight(line(sk, wireKey(sk, point[:], "ssh:")), "="), "decoding"},
		{"base64-with-stray-bits", strings.Replace(line(sk, wireKey(sk, point[:], "ssh:")), "o=", "p=", 1), "decoding"},
		{"31-byte-point", line(plain, wireKey(plain, point[:31])), "31 bytes"},
		{"33-byte-point", line(plain, wireKey(plain, append(point[:], 0))), "33 bytes"},
		{"bytes-after-the-key", line(plain, append(wireKey(plain, point[:]), 0)), "exactly the fields"},
		{"fido2-without-application", line(sk, wireKey(sk, point[:])), "exactly the fields"},
		{"fido2-long-application", line(sk, wireKey(sk, point[:], strings.Repeat("a", 257))), "application"},
		{"escape-in-comment", good + " \x1b[2J", "do not print"},
		{"bidi-override-in-comment", good + " alice\u202e@acme", "do not print"},
		{"bad-utf8-in-comment", good + " \xff", "do not print"},
		{"long-comment", good + " " + strings.Repeat("a", 2049), "comment is longer"},
		{"long-line", plain + " " + strings.Repeat("A", 4096), "line is longer"},
		{"private-key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "private key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := keys.ParsePublicKey(tt.line)
			if err == nil {
				t.Fatalf("accepted as %s", k)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}
}

func TestBadPublicKeyVectors(t *testing.T) {
	want := map[string]string{
		"another-type-inside":       "says ssh-ed25519",
		"byte-after-the-key":        "exactly the fields",
		"certificate":               "not supported",
		"ecdsa":                     "not supported",
		"escape-in-comment":         "do not print",
		"fido2-without-application": "exactly the fields",
		"not-canonical":             "canonical",
		"options":                   "no options",
		"point-of-31-bytes":         "31 bytes",
		"rsa":                       "not supported",
		"small-order-0":             "small order",
		"small-order-1":             "small order",
		"small-order-1-fido2":       "small order",
		"small-order-8":             "small order",
		"small-order-minus-1":       "small order",
		"two-lines":                 "do not print",
	}
	checkBadVectors(t, ".pub", want, func(path string) error {
		_, err := keys.ReadPublic(path)
		return err
	})
}

// checkBadVectors reads every file of testdata/bad with that suffix and wants it refused
// for the reason given.
func checkBadVectors(t *testing.T, suffix string, want map[string]string, read func(path string) error) {
	t.Helper()
	paths := vectors(t, "testdata/bad/*"+suffix)
	if len(paths) != len(want) {
		t.Errorf("%d files, %d reasons", len(paths), len(want))
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), suffix)
		reason, known := want[name]
		err := read(path)
		if err == nil || !known || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: error %v, want one with %q", path, err, reason)
		}
	}
}

func vectors(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no vectors at %s: %v", pattern, err)
	}
	return paths
}

// The points of small order are found here by arithmetic, not from a list: the eight
// points P with 8P = 0, and every encoding that stands for one of them.
func TestSmallOrderPointsAreRefusedInAllEncodings(t *testing.T) {
	encodings := smallOrderEncodings(t)
	if len(encodings) != 14 {
		t.Fatalf("found %d encodings of points of small order, want 14", len(encodings))
	}
	for _, e := range encodings {
		for _, l := range []string{line(plain, wireKey(plain, e[:])), line(sk, wireKey(sk, e[:], "ssh:"))} {
			if _, err := keys.ParsePublicKey(l); err == nil {
				t.Errorf("point %x is accepted: %s", e, l)
			}
		}
	}
}

func TestNonCanonicalPointsAreRefused(t *testing.T) {
	// 2^255-19 + n, for the 19 values of y that have a second encoding.
	for n := range 19 {
		for _, sign := range []byte{0, 0x80} {
			var e [32]byte
			for i := range e {
				e[i] = 0xff
			}
			e[0], e[31] = byte(0xed+n), 0x7f|sign
			if _, err := keys.ParsePublicKey(line(plain, wireKey(plain, e[:]))); err == nil {
				t.Errorf("point %x is accepted", e)
			}
		}
	}
	// Their neighbours below stay keys.
	for name, change := range map[string]func(*[32]byte){
		"2^255-21":          func(e *[32]byte) { e[0] = 0xeb },
		"a-zero-in-between": func(e *[32]byte) { e[15] = 0 },
		"smaller-top-byte":  func(e *[32]byte) { e[31] = 0x7e },
	} {
		var e [32]byte
		for i := range e {
			e[i] = 0xff
		}
		e[31] = 0x7f
		change(&e)
		if _, err := keys.ParsePublicKey(line(plain, wireKey(plain, e[:]))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Why they are refused: under the neutral point one signature fits every message.
func TestNeutralPointWouldSignAnything(t *testing.T) {
	neutral := [32]byte{1}
	forged := make([]byte, 64)
	forged[0] = 1
	for _, msg := range []string{"root", "manifest"} {
		tbs := keys.ToBeSigned("shoal.root.v1", []byte(msg))
		if !ed25519.Verify(neutral[:], tbs, forged) {
			t.Fatal("crypto/ed25519 refuses the forgery by itself now")
		}
		sig := parts{
			Version: 1, PublicKey: wireKey(plain, neutral[:]), Namespace: "shoal.root.v1", Hash: "sha512",
			Signature: wireKey(plain, forged),
		}.blob()
		if _, err := keys.ParseSignature(sig); err == nil {
			t.Error("a signature by the neutral point is accepted")
		}
	}
}

// Edwards25519 in affine big integers: slow, plain and independent of the code tested.
var (
	fieldP = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD = modDiv(big.NewInt(-121665), big.NewInt(121666))
)

type affine struct{ x, y *big.Int }

func mod(n *big.Int) *big.Int { return n.Mod(n, fieldP) }
func mul(ns ...*big.Int) *big.Int {
	r := big.NewInt(1)
	for _, n := range ns {
		mod(r.Mul(r, n))
	}
	return r
}
func modDiv(a, b *big.Int) *big.Int {
	b = mod(new(big.Int).Set(b))
	return mul(mod(new(big.Int).Set(a)), new(big.Int).ModInverse(b, fieldP))
}

func (p affine) add(q affine) affine {
	t := mul(curveD, p.x, q.x, p.y, q.y)
	one := big.NewInt(1)
	x := new(big.Int).Add(mul(p.x, q.y), mul(p.y, q.x))
	y := new(big.Int).Add(mul(p.y, q.y), mul(p.x, q.x)) // a = -1
	return affine{modDiv(x, new(big.Int).Add(one, t)), modDiv(y, new(big.Int).Sub(one, t))}
}

func (p affine) timesEight() affine {
	p = p.add(p)
	p = p.add(p)
	return p.add(p)
}

func decode(e [32]byte) (affine, bool) {
	sign := uint(e[31] >> 7)
	e[31] &= 0x7f
	var be [32]byte
	for i := range e {
		be[31-i] = e[i]
	}
	y := mod(new(big.Int).SetBytes(be[:]))
	yy := mul(y, y)
	u := new(big.Int).Sub(yy, big.NewInt(1))
	v := new(big.Int).Add(mul(curveD, yy), big.NewInt(1))
	x := new(big.Int).ModSqrt(modDiv(u, v), fieldP)
	if x == nil {
		return affine{}, false
	}
	if x.Bit(0) != sign {
		x = mod(new(big.Int).Neg(x))
	}
	return affine{x, y}, true
}

func smallOrderEncodings(t *testing.T) [][32]byte {
	t.Helper()
	// A point times the prime order of the base point is of small order; a few points
	// give all eight.
	ell, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	torsion := map[string]affine{}
	for i := range 64 {
		p, ok := decode([32]byte{byte(i + 2)})
		if !ok {
			continue
		}
		q := affine{big.NewInt(0), big.NewInt(1)}
		for bit := ell.BitLen() - 1; bit >= 0; bit-- {
			q = q.add(q)
			if ell.Bit(bit) == 1 {
				q = q.add(p)
			}
		}
		if n := q.timesEight(); n.x.Sign() != 0 || n.y.Cmp(big.NewInt(1)) != 0 {
			t.Fatalf("8·%v is not the neutral point", q)
		}
		torsion[q.x.String()+","+q.y.String()] = q
		if len(torsion) == 8 {
			break
		}
	}
	if len(torsion) != 8 {
		t.Fatalf("found %d points of small order, want 8", len(torsion))
	}
	var all [][32]byte
	seen := map[[32]byte]bool{}
	for _, q := range torsion {
		// y and, where it fits in 255 bits, y + p; each with the sign bit set and not
		// where x is 0, as decoders take "minus zero".
		for _, y := range []*big.Int{q.y, new(big.Int).Add(q.y, fieldP)} {
			if y.BitLen() > 255 {
				continue
			}
			var le [32]byte
			for i, b := range y.FillBytes(make([]byte, 32)) {
				le[31-i] = b
			}
			signs := []byte{byte(q.x.Bit(0)) << 7}
			if q.x.Sign() == 0 {
				signs = []byte{0, 0x80}
			}
			for _, s := range signs {
				e := le
				e[31] |= s
				if !seen[e] {
					seen[e] = true
					all = append(all, e)
				}
			}
		}
	}
	return all
}

func FuzzParsePublicKey(f *testing.F) {
	for _, path := range append(vectors(f, "testdata/bad/*.pub"), vectors(f, "testdata/good/*.pub")...) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, line string) {
		k, err := keys.ParsePublicKey(line)
		if err != nil {
			return
		}
		if again, err := keys.ParsePublicKey(k.String()); err != nil || again != k {
			t.Fatalf("%q reads back as %v, %v", k, again, err)
		}
		if strings.ContainsAny(k.String(), "\r\n\x1b") {
			t.Fatalf("%q leaves its line", k)
		}
		// Whatever is a key here is the same key to x/crypto.
		theirs, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.String()))
		if err != nil || keys.ID(ssh.FingerprintSHA256(theirs)) != k.ID() {
			t.Fatalf("%q is %v to x/crypto: %v", k, theirs, err)
		}
	})
}
