package fleet

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"sync"

	"shoal/internal/durable"
)

// LeafFile is the name of the file, in a state directory, that holds the leaf's key.
const LeafFile = "fleet-leaf.key"

const pemType = "PRIVATE KEY"

// Identity tells the members of a fleet apart: the SHA-256 of a leaf's public key
// (SubjectPublicKeyInfo, DER). It stays the same when the fleet key is replaced. A member
// can make itself any number of them.
type Identity [sha256.Size]byte

// String returns the beginning of the identity, for logs.
func (i Identity) String() string { return hex.EncodeToString(i[:8]) }

// Member is a machine's membership in a fleet: what it presents and whom it accepts.
type Member struct {
	id      Identity
	keys    *Keys
	leaf    tls.Certificate
	accepts *x509.CertPool
	names   [][]byte // of the authorities in accepts, DER

	webOnce sync.Once
	web     *http.Transport // see Transport
}

// Join returns the membership of the machine that keeps its leaf's key in the directory
// dir; the key is made if it is not there. With an empty dir the leaf is for this process
// alone.
func (k *Keys) Join(dir string) (*Member, error) {
	own, err := leafKey(dir)
	if err != nil {
		return nil, err
	}
	m := &Member{keys: k, accepts: x509.NewCertPool()}
	for i := range k.keys {
		a := k.keys[i].ca
		ca, err := a.certificate()
		if err != nil {
			return nil, err
		}
		m.accepts.AddCert(ca)
		m.names = append(m.names, ca.RawSubject)
		if i > 0 {
			continue
		}
		leaf, err := a.leaf(ca, own.Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		m.leaf = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: own, Leaf: leaf}
		m.id = identity(leaf)
	}
	return m, nil
}

// ID is what others know this machine by.
func (m *Member) ID() Identity { return m.id }

// LANKeys are what members know each other's announcements on the LAN by: one secret
// derived from each key, in the order of the keys.
func (m *Member) LANKeys() [][32]byte {
	keys := make([][32]byte, len(m.keys.keys))
	for i, k := range m.keys.keys {
		keys[i] = k.lan
	}
	return keys
}

func identity(leaf *x509.Certificate) Identity { return sha256.Sum256(leaf.RawSubjectPublicKeyInfo) }

// Peer returns who is at the other end of a connection made with a config of this
// package; false if it is nobody of the fleet.
func Peer(cs *tls.ConnectionState) (Identity, bool) {
	if cs == nil || len(cs.VerifiedChains) == 0 || cs.PeerCertificates[0].VerifyHostname(ServerName) != nil {
		return Identity{}, false
	}
	return identity(cs.PeerCertificates[0]), true
}

// leafKey reads the key in dir, or makes one.
func leafKey(dir string) (ed25519.PrivateKey, error) {
	if dir == "" {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	path := filepath.Join(dir, LeafFile)
	key, err := readLeafKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	err = durable.WriteNew(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return readLeafKey(path) // another process was first
	}
	if err != nil {
		return nil, fmt.Errorf("writing the leaf's key: %w", err)
	}
	return key, nil
}

func readLeafKey(path string) (ed25519.PrivateKey, error) {
	b, err := readSecret(path, 0o077)
	if err != nil {
		return nil, fmt.Errorf("reading the leaf's key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("reading the leaf's key: %q is damaged; remove it, and a new one is made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if k, ok := key.(ed25519.PrivateKey); ok && err == nil {
		return k, nil
	}
	return nil, fmt.Errorf("reading the leaf's key: %q is damaged; remove it, and a new one is made", path)
}
