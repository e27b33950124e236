package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// swarmProtocol is the ALPN name (RFC 7301) of BitTorrent inside fleet TLS. With it a
// connection meant for the one port of a machine is of no use at the other.
const swarmProtocol = "shoal.swarm.v1"

// There are no session tickets anywhere here: connections last, so there would be
// little to save, and each one proves anew that both ends hold a key that is accepted.

// Dialling returns how this machine connects to a peer of the swarm: TLS 1.3, both ends
// with certificates of the fleet.
func (m *Member) Dialling() *tls.Config {
	c := m.swarm()
	c.ServerName, c.RootCAs = ServerName, m.accepts
	return c
}

// Accepting returns how this machine answers a peer of the swarm that connects to it.
func (m *Member) Accepting() *tls.Config {
	c := m.swarm()
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.accepts
	return c
}

func (m *Member) swarm() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{m.leaf},
		NextProtos:             []string{swarmProtocol},
		SessionTicketsDisabled: true,
		// What is sent is pieces: whole records from the first on.
		DynamicRecordSizingDisabled: true,
		Time:                        func() time.Time { return anyTime },
		VerifyConnection:            verifySwarm,
	}
}

func verifySwarm(cs tls.ConnectionState) error {
	if _, ok := Peer(&cs); !ok {
		return errors.New("its certificate is not one of this fleet")
	}
	if cs.NegotiatedProtocol != swarmProtocol {
		return errors.New("it speaks another protocol")
	}
	return nil
}

// Serving returns how this machine answers over HTTPS. Clients are asked for a
// certificate: one that is given must be of the fleet, and [Peer] tells whether one was.
func (m *Member) Serving() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{m.leaf},
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              m.accepts,
		Time:                   func() time.Time { return anyTime },
	}
}

// verify checks that cert is a server's of the fleet.
func (m *Member) verify(cert *x509.Certificate) error {
	_, err := cert.Verify(x509.VerifyOptions{
		DNSName: ServerName, Roots: m.accepts, CurrentTime: anyTime,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}
