package publisher

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
	"shoal/swarm"
	members "shoal/swarm/fleet"
)

// browsersTrust makes a certificate as people buy one, for names, and returns what trusts it.
func (f *testFleet) browsersTrust(names ...string) *x509.CertPool {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.t.Fatal(err)
	}
	dir := f.t.TempDir()
	f.cfg.UI.Cert, f.cfg.UI.Key = filepath.Join(dir, "ui.pem"), filepath.Join(dir, "ui.key")
	for path, block := range map[string]*pem.Block{f.cfg.UI.Cert: {Type: "CERTIFICATE", Bytes: der}, f.cfg.UI.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// One port has two certificates: who asks for a name of ui.cert gets that, and everybody
// else the fleet's.
func TestCertificateForBrowsers(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	k := f.keyed()
	f.publish("1.0.0", "content")
	pool := f.browsersTrust("page.acme.lan", "*.people.acme.lan")
	w := watch(t, f)
	issuer := func(name string) string {
		t.Helper()
		c, err := tls.Dial("tcp", w.HTTP.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return string(c.ConnectionState().PeerCertificates[0].Raw)
	}
	theirs := issuer("page.acme.lan")
	for name, same := range map[string]bool{
		"PAGE.acme.lan": true, "x.people.acme.lan": true,
		"": false, "people.acme.lan": false, "a.b.people.acme.lan": false, "127.0.0.1": false, "page.acme.lan.evil.example": false,
	} {
		if got := issuer(name) == theirs; got != same {
			t.Errorf("%q gets the certificate for browsers: %v, want %v", name, got, same)
		}
	}
	// A browser that trusts it, by its name, with a token.
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "page.acme.lan"}}}
	defer browser.CloseIdleConnections()
	ask := func(client *http.Client, path, host, token string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "https://"+w.HTTP.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	for _, row := range []struct {
		path, host, token string
		want              int
	}{
		{"/", "page.acme.lan:7800", testViewer, 200},
		{"/", "page.acme.lan:7800", "", 401},
		{"/", "other.acme.lan", testViewer, 421},
		{"/", "x.people.acme.lan:7800", testViewer, 200},
		{"/", "a.b.people.acme.lan:7800", testViewer, 421},
		{"/" + tree.Root(1), "page.acme.lan", testOperator, 403}, // what is for machines takes the fleet's
		{"/announce", "page.acme.lan", testOperator, 403},
	} {
		if res := ask(browser, row.path, row.host, row.token); res.StatusCode != row.want {
			t.Errorf("%s as %s: %s, want %d", row.path, row.host, res.Status, row.want)
		}
	}
	// Its cookie is for HTTPS alone.
	res := ask(browser, "/login", "page.acme.lan", "")
	if c := res.Cookies(); len(c) != 1 || !c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("the cookie: %v", c)
	}
	// A machine of the fleet sees the fleet's certificate, as before.
	via := members.Transport(joined(t, k))
	defer via.CloseIdleConnections()
	if res := ask(&http.Client{Transport: via}, "/"+tree.Root(1), w.HTTP.String(), ""); res.StatusCode != 200 {
		t.Errorf("for a machine: %s", res.Status)
	}
}

// In an open fleet the port speaks both, and its certificate is the one for browsers.
func TestCertificateForBrowsersOfAnOpenFleet(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	pool := f.browsersTrust("page.acme.lan")
	w := watch(t, f)
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "page.acme.lan"}}}
	defer browser.CloseIdleConnections()
	for _, base := range []string{"http://", "https://"} {
		res, err := browser.Get(base + w.HTTP.String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%s: %s", base, res.Status)
		}
	}
}

func TestCertificateForBrowsersThatCannotServe(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(f *testFleet)
		want   string
	}{
		{"no-key", func(f *testFleet) { f.cfg.UI.Key = "" }, "go together"},
		{"key-of-another", func(f *testFleet) {
			cert := f.cfg.UI.Cert
			f.browsersTrust("page.acme.lan")
			f.cfg.UI.Cert = cert
		}, "private key does not match"},
		{"name-of-the-machines", func(f *testFleet) { f.cfg.Serve.PublicURL = "https://page.acme.lan:7800" }, "the name by which machines reach"},
	} {
		f := newFleet(t, 1, "release-1@acme")
		f.keyed()
		f.publish("1.0.0", "content")
		f.browsersTrust("page.acme.lan")
		f.cfg.Serve.Listen, f.cfg.Serve.Swarm = "127.0.0.1:0", "127.0.0.1:0"
		row.change(f)
		p, err := Open(f.cfg)
		if err == nil {
			err = p.Serve(t.Context(), nil)
		}
		if e := wantCode(t, err, fault.Config); !strings.Contains(e.Message+strings.Join(e.Detail, " "), row.want) {
			t.Errorf("%s: %v %q", row.name, e, e.Detail)
		}
	}
}

// Who comes through a reverse proxy on this host is not this host's user, even though
// the connection is.
func TestReverseProxyOnThisHost(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "content")
	w := watch(t, f)
	to, err := url.Parse(w.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	for name, proxy := range map[string]*httputil.ReverseProxy{
		"with-headers":    httputil.NewSingleHostReverseProxy(to), // X-Forwarded-For, and the name people use
		"without-headers": {Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }},
	} {
		front := httptest.NewServer(proxy)
		for _, path := range append(pages, "/events", "/metrics", "/api/v1/overview") {
			req, err := http.NewRequest(http.MethodGet, front.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "updates.acme.lan"
			if name == "with-headers" {
				req.Host = "127.0.0.1" // not even by the name of this host
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("%s: %s without a token is %s", name, path, res.Status)
			}
		}
		front.Close()
	}
}

// The piece map has what the origin's own connections tell of real peers, while they are there.
func TestSwarmPageWithPeers(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	content := make([]byte, 4<<20)
	rand.Read(content)
	f.publish("1.0.0", string(content))
	w := watch(t, f)
	look := func() view.Torrent {
		t.Helper()
		_, body := w.request("/api/v1/swarm", "")
		var sw struct{ Torrents []view.Torrent }
		if err := json.Unmarshal([]byte(body), &sw); err != nil || len(sw.Torrents) != 1 {
			t.Fatalf("%v: %.300s", err, body)
		}
		return sw.Torrents[0]
	}
	copies := func() (pieces, known int) {
		t.Helper()
		all := look().Copies
		for _, n := range all {
			if n > 0 {
				known++
			}
		}
		return len(all), known
	}
	pieces, known := copies()
	if known != 0 || pieces < 4 {
		t.Fatalf("with nobody there %d of %d pieces are somewhere", known, pieces)
	}
	if _, body := w.request("/swarm", ""); !strings.Contains(body, fmt.Sprintf("0 of %d pieces are with peers", pieces)) {
		t.Error("the page does not say that nobody has a piece")
	}
	v, err := f.agent()
	if err != nil {
		t.Fatal(err)
	}
	pl, _ := v.Manifest.Artifacts[0].Usable()
	info, err := swarm.OpenInfo(f.read(tree.Info(pl.InfoSHA256)), swarm.Ref{Infohash: pl.Infohash, InfoSHA256: pl.InfoSHA256, Length: pl.Length})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 {
		// Slow ones, so that they are there for as long as somebody looks.
		node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0", Origins: []string{w.Swarm.String()}, Limits: swarm.Limits{Down: 64 << 10, LANDown: 64 << 10}})
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		dst := filepath.Join(t.TempDir(), "acme.unverified")
		go func() {
			_, err := node.Fetch(ctx, info, dst, swarm.FetchOptions{Trackers: []string{w.url("/announce")}})
			ended <- err
		}()
	}
	until(t, "the map to know of copies", func() bool { _, known := copies(); return known > 0 && look().Peers == 2 })
	_, body := w.request("/swarm", "")
	if !strings.Contains(body, `<svg class="pieces"`) || strings.Contains(body, fmt.Sprintf("0 of %d pieces are with peers", pieces)) || !strings.Contains(body, "2 connected") {
		t.Errorf("the page does not draw them: %.2000s", body)
	}
	leave()
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a slow peer has everything: nothing was looked at on its way")
		}
	}
	until(t, "the map to forget who left", func() bool { _, known := copies(); return known == 0 && look().Peers == 0 })
}

// What was being counted when an operator did something is not shown after it.
func TestWhatAnOperatorDidIsSeenAtOnce(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "content")
	p := f.open()
	store, err := p.openReports()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var held atomic.Bool
	counting, goOn := make(chan struct{}, 2), make(chan struct{})
	v := view.New(view.Source{
		Fleet: store, Stamp: p.repo.Stamp, Tree: p.repo.Read, Clock: p.now,
		Releases: func() ([]view.Release, error) { return nil, nil },
		Given:    func() view.Given { return view.Given{} },
		Rollout: func(manifest.Channel) (*rollout.Status, error) {
			st := &rollout.Status{Hold: held.Load()}
			counting <- struct{}{}
			<-goOn
			return st, nil
		},
	})
	done := make(chan error)
	go func() {
		_, err := v.Overview(t.Context())
		done <- err
	}()
	<-counting
	held.Store(true)
	v.Forget()
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	o, err := v.Overview(t.Context())
	if err != nil || !o.Channels[0].Rollout.Hold {
		t.Errorf("after it was held the rollout is shown as %+v, %v", o.Channels[0].Rollout, err)
	}
}
