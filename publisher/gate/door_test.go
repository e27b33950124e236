package gate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Both are answered on one port, also while others are slow to begin, and the gate still
// counts the connections of both.
func TestDoor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(ln, 100, 50)
	door := Door{
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, Patience: time.Minute,
		Plain: func(from netip.Addr) bool { return from == netip.MustParseAddr("127.0.0.1") },
	}.Listen(g)
	srv := &http.Server{ConnContext: g.ConnContext, Handler: g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(contextKey{}) == nil {
			t.Error("the gate does not know a connection")
		}
		if r.TLS != nil {
			io.WriteString(w, "tls")
		} else {
			io.WriteString(w, "plain")
		}
	}))}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(door) }()
	for range 60 { // more than the gate lets in from there
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	get := func(from, scheme string) string {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		tr := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(scheme + "://" + ln.Addr().String())
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			return ""
		}
		return string(b)
	}
	if got := get("127.0.0.1", "http"); got != "plain" {
		t.Errorf("plain: %q", got)
	}
	if got := get("127.0.0.1", "https"); got != "tls" {
		t.Errorf("TLS: %q", got)
	}
	if second, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).Dial("tcp", ln.Addr().String()); err == nil {
		second.Close()
		if got := get("127.0.0.2", "http"); got != "" {
			t.Errorf("plain where it may not: %q", got)
		}
		if got := get("127.0.0.2", "https"); got != "tls" {
			t.Errorf("TLS from there: %q", got)
		}
	}
	srv.Close()
	if err := <-done; err != http.ErrServerClosed {
		t.Errorf("it ends with %v", err)
	}
}
