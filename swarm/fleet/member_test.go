package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

func join(t testing.TB, dir string, lines ...string) *Member {
	t.Helper()
	m, err := parse(t, lines...).Join(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestVector pins what another implementation must come to: the certificates that
// follow from a key and a leaf's key.
func TestVector(t *testing.T) {
	k, err := Parse(readTestdata(t, "fleet.key"))
	if err != nil {
		t.Fatal(err)
	}
	a := k.keys[0].ca
	ca, err := a.certificate()
	if err != nil {
		t.Fatal(err)
	}
	leafKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	leaf, err := a.leaf(ca, leafKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id := identity(leaf)
	var got bytes.Buffer
	line := func(name, value string) { got.WriteString(name + " " + value + "\n") }
	line("ca-public-key", hex.EncodeToString(a.key.Public().(ed25519.PublicKey)))
	line("ca-id", a.id())
	line("leaf-public-key", hex.EncodeToString(leafKey.Public().(ed25519.PublicKey)))
	line("leaf-identity", hex.EncodeToString(id[:]))
	pem.Encode(&got, &pem.Block{Type: "CERTIFICATE", Headers: nil, Bytes: ca.Raw})
	pem.Encode(&got, &pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	if *update {
		if err := os.WriteFile("testdata/vector.txt", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readTestdata(t, "vector.txt"); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the key leads to\n%s\nwant\n%s", got.Bytes(), want)
	}
}

func readTestdata(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	// A checkout may have other line ends.
	return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
}

func TestCertificatesHaveNoDateAndOneName(t *testing.T) {
	m := join(t, "", oneKey)
	for _, when := range []time.Time{time.Unix(0, 0), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		if _, err := m.leaf.Leaf.Verify(x509.VerifyOptions{DNSName: ServerName, Roots: m.accepts, CurrentTime: when}); err != nil {
			t.Errorf("in %d: %v", when.Year(), err)
		}
	}
	a := m.keys.keys[0].ca
	ca, err := a.certificate()
	if err != nil {
		t.Fatal(err)
	}
	// Somebody who has the key, and a victim who has the authority among its roots.
	for name, forged := range map[string]*x509.Certificate{
		"bank.example": {DNSNames: []string{"bank.example"}},
		"192.0.2.1":    {IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
		"2001:db8::1":  {IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}},
	} {
		forged.SerialNumber, forged.NotBefore, forged.NotAfter = m.leaf.Leaf.SerialNumber, notBefore, notAfter
		cert, err := sign(forged, ca, m.leaf.Leaf.PublicKey, a.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: m.accepts}); err == nil {
			t.Errorf("the authority vouches for %s", name)
		}
	}
}

func TestLeafIsKept(t *testing.T) {
	dir := t.TempDir()
	first := join(t, dir, oneKey)
	if again := join(t, dir, oneKey); again.ID() != first.ID() {
		t.Error("after a restart the machine is another one")
	}
	if rotated := join(t, dir, anotherKey, oneKey); rotated.ID() != first.ID() {
		t.Error("with a new fleet key the machine is another one")
	}
	if other := join(t, t.TempDir(), oneKey); other.ID() == first.ID() {
		t.Error("two state directories are one machine")
	}
	if visitor, another := join(t, "", oneKey), join(t, "", oneKey); visitor.ID() == another.ID() {
		t.Error("two visitors are one machine")
	}
	path := filepath.Join(dir, LeafFile)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, oneKey).Join(dir); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged key: %v", err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := parse(t, oneKey).Join(dir); !errors.Is(err, ErrExposed) {
			t.Errorf("a key that everyone can read: %v", err)
		}
	}
}

// meet connects a dialling to an accepting end and returns how the handshake ended for
// both. In TLS 1.3 the one that dials learns last that it is not wanted.
func meet(t *testing.T, dialling, accepting *tls.Config) (state tls.ConnectionState, derr, aerr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan error, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			accepted <- err
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(time.Minute))
		c := tls.Server(raw, accepting)
		if err := c.Handshake(); err != nil {
			accepted <- err
			return
		}
		state = c.ConnectionState()
		_, err = c.Write([]byte("!"))
		accepted <- err
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(raw, dialling)
	if derr = c.Handshake(); derr == nil {
		_, derr = c.Read(make([]byte, 1))
	}
	raw.Close()
	aerr = <-accepted // after which state is set
	return state, derr, aerr
}

func TestRotationBothWays(t *testing.T) {
	old, added := join(t, "", oneKey), join(t, "", oneKey, anotherKey)
	swapped, fresh := join(t, "", anotherKey, oneKey), join(t, "", anotherKey)
	members := map[string]*Member{"old": old, "added": added, "swapped": swapped, "new": fresh}
	apart := map[[2]string]bool{ // by a round more than one
		{"old", "swapped"}: true, {"old", "new"}: true, {"added", "new"}: true,
	}
	for da, a := range members {
		for db, b := range members {
			state, derr, aerr := meet(t, a.Dialling(), b.Accepting())
			if apart[[2]string{da, db}] || apart[[2]string{db, da}] {
				if derr == nil || aerr == nil {
					t.Errorf("%s meets %s: %v, %v", da, db, derr, aerr)
				}
				continue
			}
			if derr != nil || aerr != nil {
				t.Errorf("%s meets %s: %v, %v", da, db, derr, aerr)
				continue
			}
			if id, ok := Peer(&state); !ok || id != a.ID() || state.Version != tls.VersionTLS13 {
				t.Errorf("%s is seen as %v, %v, TLS %x", da, id, ok, state.Version)
			}
		}
	}
}

func TestSwarmRefuses(t *testing.T) {
	m := join(t, "", oneKey)
	a := m.keys.keys[0].ca
	ca, err := a.certificate()
	if err != nil {
		t.Fatal(err)
	}
	// signed is a member's config with another certificate.
	signed := func(c *tls.Config, change func(*x509.Certificate)) *tls.Config {
		template := *m.leaf.Leaf
		template.DNSNames = []string{ServerName}
		change(&template)
		cert, err := sign(&template, ca, m.leaf.Leaf.PublicKey, a.key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: m.leaf.PrivateKey}}
		return c
	}
	with := func(c *tls.Config, change func(*tls.Config)) *tls.Config { change(c); return c }
	stranger := join(t, "", anotherKey)
	rows := []struct {
		name                string
		dialling, accepting *tls.Config
	}{
		{"no-certificate", with(m.Dialling(), func(c *tls.Config) { c.Certificates = nil }), m.Accepting()},
		{"key-of-another-fleet", with(stranger.Dialling(), func(c *tls.Config) { c.RootCAs = m.accepts }), m.Accepting()},
		{"peer-of-another-fleet", m.Dialling(), with(stranger.Accepting(), func(c *tls.Config) { c.ClientCAs = m.accepts })},
		{"tls-1.2", with(m.Dialling(), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), m.Accepting()},
		{"another-protocol", with(m.Dialling(), func(c *tls.Config) { c.NextProtos = []string{"http/1.1"}; c.VerifyConnection = nil }), m.Accepting()},
		{"no-protocol", with(m.Dialling(), func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil }), m.Accepting()},
		{"web-server-instead-of-a-peer", m.Dialling(), m.Serving()},
		{"another-name", signed(m.Dialling(), func(c *x509.Certificate) { c.DNSNames = []string{"x." + ServerName} }), m.Accepting()},
		{"no-name", signed(m.Dialling(), func(c *x509.Certificate) { c.DNSNames = nil }), m.Accepting()},
		{"for-servers-only", signed(m.Dialling(), func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), m.Accepting()},
		{"for-clients-only", m.Dialling(), signed(m.Accepting(), func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, derr, aerr := meet(t, r.dialling, r.accepting)
			if derr == nil || aerr == nil {
				t.Errorf("they met: %v, %v", derr, aerr)
			}
		})
	}
}
