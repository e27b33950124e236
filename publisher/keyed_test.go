package publisher

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// keyed gives the fleet a key.
func (f *testFleet) keyed() *fleet.Keys {
	f.t.Helper()
	k, err := fleet.Generate()
	if err != nil {
		f.t.Fatal(err)
	}
	f.cfg.FleetKeyFile = filepath.Join(f.t.TempDir(), "fleet")
	if err := k.Write(f.cfg.FleetKeyFile); err != nil {
		f.t.Fatal(err)
	}
	return k
}

func joined(t *testing.T, k *fleet.Keys) *fleet.Member {
	t.Helper()
	m, err := k.Join(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ask asks a server and returns its status and body; 0 is that it did not come to that.
func ask(t *testing.T, via http.RoundTripper, url string) (int, string) {
	t.Helper()
	res, err := (&http.Client{Transport: via, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// private is a served fleet with a key and a release, and all the names it has.
func private(t *testing.T) (s *served, keys *fleet.Keys, content string, names []string) {
	t.Helper()
	f := newFleet(t, 1, "release-1@acme")
	keys = f.keyed()
	content = strings.Repeat("secret business", 20_000)
	res := f.publish("1.0.0", content)
	s = serve(t, f)
	v, err := f.agent()
	if err != nil {
		t.Fatal(err)
	}
	pl, _ := v.Manifest.Artifacts[0].Usable()
	for _, name := range []string{
		tree.Root(1), tree.Manifest(stable), tree.Info(pl.InfoSHA256), tree.Data(res.Artifacts[0].SHA256),
		tree.Release("acme", "1.0.0", v.Manifest.Artifacts[0].Platform()),
	} {
		names = append(names, "/"+name)
	}
	query := "?info_hash=" + url.QueryEscape(string(pl.Infohash[:]))
	names = append(names, "/announce"+query+"&peer_id=-XX0000-abcdefghijkl&port=7001&left=1&compact=1", "/scrape"+query, "/api/v1/status")
	return s, keys, content, names
}

func TestMembersAloneAreServed(t *testing.T) {
	s, keys, _, names := private(t)
	if s.Scheme != "https" || !s.Keyed || s.OpenData {
		t.Errorf("it serves %+v", s.Serving)
	}
	member := fleet.Transport(joined(t, keys))
	t.Cleanup(member.CloseIdleConnections)
	base := "https://" + s.HTTP.String()
	for _, name := range names {
		if code, body := ask(t, member, base+name); code != http.StatusOK || body == "" {
			t.Errorf("a member asks for %s: status %d, %d bytes", name, code, len(body))
		}
	}
	other, err := fleet.Generate()
	if err != nil {
		t.Fatal(err)
	}
	nobody := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(nobody.CloseIdleConnections)
	for _, name := range append(names, "/nothing-like-that", "/data/", "/agents.json") {
		if code, body := ask(t, nobody, base+name); code != http.StatusForbidden || body != "" {
			t.Errorf("without a certificate %s is status %d, %d bytes: %.60q", name, code, len(body), body)
		}
		if code, body := ask(t, fleet.Transport(joined(t, other)), base+name); code != 0 {
			t.Errorf("with another fleet's key %s is status %d, %d bytes", name, code, len(body))
		}
	}
	if code, body := ask(t, nobody, base+"/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	// Plain HTTP is for the fleet page, on this machine.
	conn, err := net.Dial("tcp", s.HTTP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "GET /"+tree.Root(1)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(conn); err != nil || bytes.Contains(b, []byte("200 OK")) || bytes.Contains(b, []byte("payload")) {
		t.Errorf("plain HTTP gets %v: %q", err, b)
	}
}

// Behind a link that is full of a crowd's downloads the first bytes of a handshake may be
// lost three times over, and come seven seconds late.
func TestLateHandshakeIsAnswered(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, "release-1@acme")
	f.keyed()
	s := serve(t, f)
	late := &http.Transport{DialTLSContext: func(_ context.Context, network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		if err != nil {
			return nil, err
		}
		time.Sleep(7 * time.Second)
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true}), nil
	}}
	t.Cleanup(late.CloseIdleConnections)
	if code, body := ask(t, late, "https://"+s.HTTP.String()+"/healthz"); code != http.StatusOK {
		t.Errorf("status %d: %q", code, body)
	}
}

func TestMembersAloneAreSeeded(t *testing.T) {
	s, keys, content, _ := private(t)
	v, err := s.agent()
	if err != nil {
		t.Fatal(err)
	}
	pl, _ := v.Manifest.Artifacts[0].Usable()
	raw := s.read(tree.Info(pl.InfoSHA256))
	if !bytes.Contains(raw, []byte("7:privatei1e")) {
		t.Error("the torrent of a fleet with a key is not private")
	}
	info, err := swarm.OpenInfo(raw, swarm.Ref{Infohash: pl.Infohash, InfoSHA256: pl.InfoSHA256, Length: pl.Length})
	if err != nil {
		t.Fatal(err)
	}
	m := joined(t, keys)
	via := fleet.Transport(m)
	t.Cleanup(via.CloseIdleConnections)
	node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0", Fleet: m, TrackerTransport: via})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dst := filepath.Join(t.TempDir(), "acme.unverified")
	o := swarm.FetchOptions{Trackers: []string{"https://" + s.HTTP.String() + "/announce"}, TotalTimeout: time.Minute}
	if _, err := node.Fetch(t.Context(), info, dst, o); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dst); err != nil || string(b) != content {
		t.Errorf("fetched %d bytes, %v", len(b), err)
	}
	stranger, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := stranger.Fetch(ctx, info, filepath.Join(t.TempDir(), "stolen"), swarm.FetchOptions{Peers: []string{s.Swarm.String()}})
	if err == nil || got.LAN+got.WAN+got.Origin != 0 {
		t.Errorf("a stranger got %+v, %v", got, err)
	}
}

func TestOpenDataOpensTheTreeAlone(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.keyed()
	f.cfg.Serve.OpenData = true
	f.publish("1.0.0", "everyone may read this")
	for _, tlsMode := range []string{"auto", "off"} {
		t.Run("tls-"+tlsMode, func(t *testing.T) {
			f.cfg.Serve.TLS = tlsMode
			s := serve(t, f)
			defer s.stop()
			nobody := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer nobody.CloseIdleConnections()
			base := s.Scheme + "://" + s.HTTP.String()
			if !s.OpenData || !strings.Contains(s.log.String(), "strangers may read") {
				t.Errorf("it is not said: %+v\n%s", s.Serving, s.log)
			}
			if code, _ := ask(t, nobody, base+"/"+tree.Manifest(stable)); code != http.StatusOK {
				t.Errorf("the tree: status %d", code)
			}
			for _, name := range []string{"/announce", "/scrape", "/api/v1/status"} {
				if code, body := ask(t, nobody, base+name); code != http.StatusForbidden || body != "" {
					t.Errorf("%s: status %d, %q", name, code, body)
				}
			}
		})
	}
}

// A machine that serves is the same member after a restart.
func TestServeKeepsItsLeaf(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.keyed()
	var seen []string
	for range 2 {
		s := serve(t, f)
		conn, err := tls.Dial("tcp", s.HTTP.String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, fmt.Sprintf("%x", conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo))
		conn.Close()
		s.stop()
	}
	if seen[0] != seen[1] {
		t.Error("after a restart it is another member")
	}
}

func TestFleetKeyThatIsNoGood(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.keyed()
	file := f.cfg.FleetKeyFile
	rows := []struct {
		name   string
		change func(*Config)
		want   fault.Code
		says   string
	}{
		{"missing", func(c *Config) { c.FleetKeyFile = file + "-gone" }, fault.Config, "no such file"},
		{"spoilt", func(c *Config) { c.FleetKeyFile = f.build("spoilt", "hello") }, fault.Permission, "chmod 600"},
		{"off-without-open-data", func(c *Config) { c.Serve.TLS = "off" }, fault.Config, "strangers"},
		{"public-url-of-http", func(c *Config) { c.Serve.PublicURL = "http://updates.example:7800" }, fault.Config, "https only"},
		{"tls-is-no-such-thing", func(c *Config) { c.Serve.TLS = "on" }, fault.Config, "auto nor off"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			cfg := f.cfg
			cfg.Serve.Listen, cfg.Serve.Swarm = "127.0.0.1:0", "127.0.0.1:0"
			r.change(&cfg)
			p, err := Open(cfg)
			if err == nil {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				err = p.Serve(ctx, func(Serving) { t.Error("it serves"); cancel() })
			}
			var e *fault.Error
			if !errors.Is(err, r.want) || !errors.As(err, &e) || !strings.Contains(err.Error()+fmt.Sprint(e.Detail), r.says) {
				t.Errorf("got %v, want %s with %q", err, r.want, r.says)
			}
		})
	}
	// Nor does a release go out as if the fleet were open.
	f.cfg.FleetKeyFile = file + "-gone"
	if _, err := f.open().Publish(t.Context(), f.request("1.0.0", "content", f.release...)); !errors.Is(err, fault.Config) {
		t.Errorf("publishing without the key: %v", err)
	}
}

func TestEnvelopeSignedWhereTheKeyWas(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.keyed()
	draft, _, err := f.open().Draft(t.Context(), f.request("1.0.0", "content"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dist, "m.env.json")
	if err := os.WriteFile(path, f.sign(draft, manifest.TypeManifest, f.release...), 0o644); err != nil {
		t.Fatal(err)
	}
	f.cfg.FleetKeyFile = "" // the machine that publishes has none
	if _, err := f.open().PublishEnvelope(t.Context(), EnvelopeRequest{Envelope: path, DataDir: f.dist}); err != nil {
		t.Fatal(err)
	}
}
