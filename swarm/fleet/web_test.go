package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// whoAsks answers with the identity of its client, or with nothing.
func whoAsks(w http.ResponseWriter, r *http.Request) {
	if id, ok := Peer(r.TLS); ok {
		io.WriteString(w, id.String())
	} else if len(r.TLS.PeerCertificates) > 0 {
		io.WriteString(w, "somebody")
	}
}

// startServer serves whoAsks over https; config nil is one of the world's.
func startServer(t *testing.T, config *tls.Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(whoAsks))
	s.TLS = config
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, tr *http.Transport, url string) (string, error) {
	t.Helper()
	t.Cleanup(tr.CloseIdleConnections)
	res, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestWebServers(t *testing.T) {
	m, rotated, other := join(t, "", oneKey), join(t, "", anotherKey, oneKey), join(t, "", anotherKey)
	ours := startServer(t, m.Serving())
	world := startServer(t, nil) // its certificate is for 127.0.0.1, ::1 and example.com
	curious := startServer(t, &tls.Config{ClientAuth: tls.RequestClientCert})
	roots := x509.NewCertPool()
	roots.AddCert(world.Certificate())
	named := func(s *httptest.Server) string { // by a name that is not in its certificate
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		return "https://localhost:" + port
	}
	rows := []struct {
		name string
		web  web
		url  string
		want string // what the server says; "!" is an error, "key" a *KeyError
	}{
		{"member-asks-fleet", web{member: m}, ours.URL, m.ID().String()},
		{"member-asks-fleet-by-name", web{member: m}, named(ours), m.ID().String()},
		{"another-round-of-rotation", web{member: rotated}, ours.URL, "!"}, // presents a key the server has not got yet
		{"other-key-asks-fleet", web{member: other}, ours.URL, "key"},
		{"no-key-asks-fleet", web{}, ours.URL, "key"},
		{"member-asks-world", web{member: m, roots: roots}, world.URL, ""},
		{"no-key-asks-world", web{roots: roots}, world.URL, ""},
		{"curious-server-learns-nothing", web{member: m, roots: roots}, curious.URL, ""},
		{"server-nobody-vouches-for", web{member: m, roots: x509.NewCertPool()}, world.URL, "!"},
		{"server-of-another-name", web{member: m, roots: roots}, named(world), "!"},
		{"system-does-not-trust-it", web{}, world.URL, "!"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := get(t, r.web.transport(), r.url)
			var key *KeyError
			switch {
			case r.want == "key":
				if !errors.As(err, &key) || key.Found != m.keys.IDs()[0] || (r.web.member == nil) != (len(key.Have) == 0) {
					t.Errorf("got %q, %v", got, err)
				}
			case r.want == "!":
				if err == nil || errors.As(err, &key) {
					t.Errorf("got %q, %v", got, err)
				}
			case err != nil || got != r.want:
				t.Errorf("got %q, %v; want %q", got, err, r.want)
			}
		})
	}
}

func TestServersOfTheFleetKnowMembersOnly(t *testing.T) {
	m, other := join(t, "", oneKey), join(t, "", anotherKey)
	s := startServer(t, m.Serving())
	careless := func(certs ...tls.Certificate) *http.Transport {
		return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}
	}
	if got, err := get(t, careless(), s.URL); err != nil || got != "" {
		t.Errorf("without a certificate the client is %q, %v", got, err)
	}
	forced := careless()
	forced.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other.leaf, nil }
	if got, err := get(t, forced, s.URL); err == nil {
		t.Errorf("with another fleet's certificate the client is %q", got)
	}
	old := careless()
	old.TLSClientConfig.MaxVersion = tls.VersionTLS12
	if got, err := get(t, old, s.URL); err == nil {
		t.Errorf("over TLS 1.2 the client is %q", got)
	}
}

func TestBehindAProxy(t *testing.T) {
	m := join(t, "", oneKey)
	ours, world := startServer(t, m.Serving()), startServer(t, nil)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, err := net.Dial("tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(to, buffered)
		io.Copy(from, to)
	}))
	t.Cleanup(proxy.Close)
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(world.Certificate())
	w := &web{member: m, roots: roots}
	for _, row := range []struct{ name, url, want string }{
		{"fleet", ours.URL, m.ID().String()},
		{"address-of-the-world", world.URL, "!"}, // cannot be told from another's
	} {
		tr := w.transport()
		tr.Proxy = http.ProxyURL(through)
		got, err := get(t, tr, row.url)
		if row.want == "!" && err == nil || row.want != "!" && (err != nil || got != row.want) {
			t.Errorf("%s: got %q, %v", row.name, got, err)
		}
	}
}

// late is a listener whose connections are read from when wait has passed, as behind a
// link that loses what is sent first.
type late struct {
	net.Listener
	wait time.Duration
}

func (l late) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: c, from: time.Now().Add(l.wait)}, nil
}

type lateConn struct {
	net.Conn
	from time.Time
}

func (c *lateConn) Read(b []byte) (int, error) {
	time.Sleep(time.Until(c.from))
	return c.Conn.Read(b)
}

// A publisher in the middle of a crowd needs longer for a handshake than an idle one: six
// seconds were seen with 64 machines behind 4 Mbit/s.
func TestHandshakeWithABusyServer(t *testing.T) {
	m := join(t, "", oneKey)
	for _, row := range []struct {
		name           string
		wait, patience time.Duration
		slow           bool
	}{
		{"three-losses", 7 * time.Second, 0, false},
		{"silent", time.Second, 100 * time.Millisecond, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(whoAsks))
			s.TLS = m.Serving()
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.Listener = late{s.Listener, row.wait}
			s.StartTLS()
			t.Cleanup(s.Close)
			got, err := get(t, (&web{member: m, patience: row.patience}).transport(), s.URL)
			var slow *SlowError
			if row.slow {
				if !errors.As(err, &slow) || slow.After != row.patience {
					t.Errorf("got %q, %v", got, err)
				}
			} else if err != nil || got != m.ID().String() {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
