package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A server whose link is full of a crowd's downloads loses packets of its answers too. What
// is lost is sent again after a second, then two, then four; so that one who was unlucky
// three times still gets in, there is time for a fourth.
const (
	dialTimeout      = 8 * time.Second
	handshakeTimeout = 15 * time.Second
	maxHeader        = 64 << 10
)

// SlowError says that a web server accepted a connection, and that the TLS handshake was
// not done in time.
type SlowError struct {
	After time.Duration // how long it was waited for
}

func (e *SlowError) Error() string {
	return fmt.Sprintf("the server accepts connections, and a TLS handshake was not done within %s", e.After)
}

// KeyError says that a web server presented the certificate of a fleet that this machine
// does not hold the key of.
type KeyError struct {
	Found string   // id of the server's key, as it says
	Have  []string // ids of this machine's; none if it has no key
}

func (e *KeyError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("the server belongs to a fleet with a key (%s), and this machine has none", e.Found)
	}
	return fmt.Sprintf("the server has fleet key %s, this machine %s", e.Found, strings.Join(e.Have, " and "))
}

// Transport returns a transport for web servers of the fleet and for all others: over
// https a server is accepted if it presents a certificate of the fleet, or one that the
// system trusts for the host in the URL. The machine's own certificate is presented to
// servers that ask for one of the fleet. Without a membership (nil) only the system's
// trust counts. A server of a fleet that is not this machine's is a *KeyError, and one that
// accepts a connection and is silent then a *SlowError.
//
// It is the same one for the same membership: documents, announces and reports go to one
// server mostly, and a connection for each would be a handshake for each.
func Transport(m *Member) *http.Transport {
	if m == nil {
		return stranger()
	}
	m.webOnce.Do(func() { m.web = (&web{member: m}).transport() })
	return m.web
}

var stranger = sync.OnceValue((&web{}).transport)

// A web says which web servers are believed to be who they say.
type web struct {
	member *Member        // may be nil
	roots  *x509.CertPool // for servers that are not of the fleet; nil means the system's

	patience time.Duration // of a handshake; zero means handshakeTimeout
}

func (w *web) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	patience := cmp.Or(w.patience, handshakeTimeout)
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dialer.DialContext,
		// A config must know the host that is meant, and crypto/tls does not tell it one
		// that is an address.
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			raw, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, patience, &SlowError{patience})
			defer cancel()
			c := tls.Client(raw, w.config(host))
			if err := c.HandshakeContext(ctx); err != nil {
				raw.Close()
				if errors.Is(err, context.DeadlineExceeded) {
					err = context.Cause(ctx)
				}
				return nil, err
			}
			return c, nil
		},
		TLSClientConfig:        w.config(""), // behind a proxy
		TLSHandshakeTimeout:    patience,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true, // a limit counts the bytes that are kept, and documents are small
		ForceAttemptHTTP2:      true,
	}
}

// config is how a web server is connected to. An empty host is the one crypto/tls knows.
func (w *web) config(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		NextProtos: []string{"h2", "http/1.1"},
		// Whether the server is who it should be is asked below, because there are two
		// ways for it to be.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			name := host
			if name == "" {
				name = cs.ServerName
			}
			return w.verify(cs.PeerCertificates, name)
		},
		GetClientCertificate: w.present,
	}
}

// verify decides on a server's certificates, of which there is at least one.
func (w *web) verify(certs []*x509.Certificate, host string) error {
	cert := certs[0]
	if w.member != nil && w.member.verify(cert) == nil {
		return nil
	}
	if cert.VerifyHostname(ServerName) == nil {
		e := &KeyError{Found: "unknown"}
		if id := strings.TrimPrefix(cert.Issuer.CommonName, caPrefix); isID(id) {
			e.Found = id
		}
		if w.member != nil {
			e.Have = w.member.keys.IDs()
		}
		return e
	}
	if host == "" { // an address, behind a proxy; without a name Verify would ask for none
		return errors.New("behind a proxy, a server that is not of the fleet must have a name")
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{DNSName: host, Roots: w.roots, Intermediates: between})
	return err
}

// isID reports whether s has the form of a key's id.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == idLen
}

// present answers a server that asks for a certificate: one that wants others than the
// fleet's learns nothing of it.
func (w *web) present(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if w.member != nil {
		for _, wanted := range asked.AcceptableCAs {
			if slices.ContainsFunc(w.member.names, func(n []byte) bool { return bytes.Equal(n, wanted) }) {
				return &w.member.leaf, nil
			}
		}
	}
	return new(tls.Certificate), nil
}
