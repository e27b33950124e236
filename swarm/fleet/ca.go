package fleet

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"time"
)

// ServerName is the one name in every certificate of every fleet. It can be no real
// host's (RFC 6761).
const ServerName = "fleet.invalid"

const (
	caInfo   = "shoal.fleet.ca.v1"
	caPrefix = "shoal fleet " // and the id
	idLen    = 8
)

// Certificates are valid from the beginning of time to its end, as far as they can say.
var (
	notBefore = time.Unix(0, 0).UTC()
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	// anyTime is when certificates are looked at.
	anyTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// An authority signs the leaves of one fleet key. It follows from the key alone, so that
// everyone who has the key has the same one.
type authority struct{ key ed25519.PrivateKey }

func deriveCA(secret [keyLen]byte) (authority, error) {
	seed, err := hkdf.Key(sha256.New, secret[:], nil, caInfo, ed25519.SeedSize)
	if err != nil {
		return authority{}, fmt.Errorf("deriving the fleet's authority: %w", err)
	}
	return authority{ed25519.NewKeyFromSeed(seed)}, nil
}

func (a authority) id() string {
	sum := sha256.Sum256(a.key.Public().(ed25519.PublicKey))
	return hex.EncodeToString(sum[:idLen])
}

// certificate is the authority's own, the same bytes every time. Should somebody put it
// among the roots of a browser or a system, it can still vouch for no real name or
// address.
func (a authority) certificate() (*x509.Certificate, error) {
	sum := sha256.Sum256(a.key.Public().(ed25519.PublicKey))
	return sign(&x509.Certificate{
		SerialNumber:                big.NewInt(1),
		Subject:                     pkix.Name{CommonName: caPrefix + a.id()},
		SubjectKeyId:                sum[:20],
		NotBefore:                   notBefore,
		NotAfter:                    notAfter,
		KeyUsage:                    x509.KeyUsageCertSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{ServerName},
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}, nil, a.key.Public(), a.key)
}

// leaf is the certificate of a machine with the key pub, signed by the authority whose
// certificate is ca.
func (a authority) leaf(ca *x509.Certificate, pub ed25519.PublicKey) (*x509.Certificate, error) {
	serial := sha256.Sum256(pub)
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always as long (RFC 5280, 4.1.2.2)
	return sign(&x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial[:16]),
		Subject:               pkix.Name{CommonName: ServerName},
		DNSNames:              []string{ServerName},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, ca, pub, a.key)
}

// sign signs a certificate, by itself if there is no parent.
func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate of the fleet: %w", err)
	}
	return x509.ParseCertificate(der)
}
