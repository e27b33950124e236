package publisher

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/tracker"
	"shoal/swarm"
)

// served is a publisher that serves, on sockets of its own.
type served struct {
	*testFleet
	Serving
	stop func() error
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func serve(t testing.TB, f *testFleet) *served {
	t.Helper()
	s := &served{testFleet: f, log: &lockedBuffer{}}
	f.cfg.Serve.Listen, f.cfg.Serve.Swarm = "127.0.0.1:0", "127.0.0.1:0"
	f.cfg.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan Serving, 1), make(chan error, 1)
	go func() { done <- f.open().Serve(ctx, func(s Serving) { ready <- s }) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	select {
	case s.Serving = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("serving did not begin: %v", err)
	}
	return s
}

func (s *served) url(path string) string { return "http://" + s.HTTP.String() + path }

func (s *served) get(path string) (int, []byte) {
	s.t.Helper()
	resp, err := http.Get(s.url(path))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, b
}

func (s *served) status() Status {
	s.t.Helper()
	code, b := s.get("/api/v1/status")
	var st Status
	if err := json.Unmarshal(b, &st); err != nil || code != http.StatusOK {
		s.t.Fatalf("status %d, %v: %s", code, err, b)
	}
	return st
}

// until waits for what another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *served) announce(infohash manifest.Infohash, port int) string {
	s.t.Helper()
	code, b := s.get(fmt.Sprintf("/announce?info_hash=%s&peer_id=-XX0000-abcdefghijkl&port=%d&left=1&compact=1",
		url.QueryEscape(string(infohash[:])), port))
	if code != http.StatusOK {
		s.t.Fatalf("announce: status %d", code)
	}
	return string(b)
}

func compact(a netip.AddrPort) string {
	ip := a.Addr().As4()
	return string(append(ip[:], byte(a.Port()>>8), byte(a.Port())))
}

func TestServeGivesWhatIsPublished(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	content := make([]byte, 3<<20)
	rand.Read(content)
	res := f.publish("1.0.0", string(content))
	s := serve(t, f)
	if s.Seeds != 1 {
		t.Errorf("ready with %d seeds", s.Seeds)
	}
	if code, body := s.get("/healthz"); code != http.StatusOK || string(body) != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	for _, name := range []string{tree.Root(1), tree.Manifest(stable), tree.Data(res.Artifacts[0].SHA256)} {
		if code, body := s.get("/" + name); code != http.StatusOK || !bytes.Equal(body, f.read(name)) {
			t.Errorf("%s: status %d, %d bytes", name, code, len(body))
		}
	}
	if got := s.announce(res.Artifacts[0].Infohash, 7001); !strings.Contains(got, "5:peers6:"+compact(s.Swarm)) {
		t.Errorf("the tracker does not send peers to the origin seed at %s: %q", s.Swarm, got)
	}

	// Another node, which knows only the tracker, gets the bytes from the origin.
	v, err := f.agent()
	if err != nil {
		t.Fatal(err)
	}
	pl, _ := v.Manifest.Artifacts[0].Usable()
	info, err := swarm.OpenInfo(f.read(tree.Info(pl.InfoSHA256)), swarm.Ref{Infohash: pl.Infohash, InfoSHA256: pl.InfoSHA256, Length: pl.Length})
	if err != nil {
		t.Fatal(err)
	}
	node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0", Origins: []string{s.Swarm.String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dst := filepath.Join(t.TempDir(), "acme.unverified")
	got, err := node.Fetch(t.Context(), info, dst, swarm.FetchOptions{Trackers: []string{s.url("/announce")}, TotalTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dst); err != nil || !bytes.Equal(b, content) {
		t.Errorf("fetched %d bytes, %v", len(b), err)
	}
	if got.Origin != int64(len(content)) {
		t.Errorf("received %+v, want all from the origin", got)
	}
	st := s.status()
	if st.Schema != "shoal.serve/v1" || st.FleetID != manifest.FleetID(v.Manifest.Repo) || !st.Ready || st.Swarm != s.Swarm.String() {
		t.Errorf("status %+v", st)
	}
	want := int64(len(content))
	if st.Given.Swarm < want || st.Given.HTTP != want || st.Given.Total != st.Given.Swarm+st.Given.HTTP {
		t.Errorf("given %+v, want %d each way", st.Given, want)
	}
	if len(st.Torrents) != 1 || st.Torrents[0].Given != st.Given.Swarm || !st.Torrents[0].Seeding || !st.Torrents[0].Current || st.Torrents[0].Version != "1.0.0" {
		t.Errorf("torrents %+v", st.Torrents)
	}
	if st.Tracker.Announces < 2 || st.Tracker.Refused != 0 {
		t.Errorf("tracker %+v", st.Tracker)
	}
}

func TestServePicksUpWhatIsPublishedMeanwhile(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	s := serve(t, f)
	if s.Seeds != 0 {
		t.Errorf("ready with %d seeds of an empty repository", s.Seeds)
	}
	first := f.publish("1.0.0", "one").Artifacts[0]
	if got := s.announce(manifest.Infohash{1}, 7001); !strings.Contains(got, "failure reason") {
		t.Errorf("the tracker answers for a stranger's torrent: %q", got)
	}
	until(t, "the first release", func() bool {
		return strings.Contains(s.announce(first.Infohash, 7001), compact(s.Swarm))
	})
	second := f.publish("1.1.0", "two").Artifacts[0]
	until(t, "the second release", func() bool {
		return strings.Contains(s.announce(second.Infohash, 7001), compact(s.Swarm))
	})
	// Who is half way through the first may finish.
	if got := s.announce(first.Infohash, 7001); !strings.Contains(got, compact(s.Swarm)) {
		t.Errorf("the replaced release is gone at once: %q", got)
	}
	for _, torrent := range s.status().Torrents {
		if torrent.Current != (torrent.Version == "1.1.0") || !torrent.Seeding {
			t.Errorf("torrent %+v", torrent)
		}
	}
	if _, body := s.get("/" + tree.Manifest(stable)); !bytes.Equal(body, f.read(tree.Manifest(stable))) {
		t.Errorf("the manifest served is not the published one")
	}
}

func TestServeRefusesToGiveWhatIsNotSigned(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	good := f.publish("1.0.0", "one").Artifacts[0]
	data := f.path(tree.Data(good.SHA256))
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, []byte("0ne"), 0o444); err != nil {
		t.Fatal(err)
	}
	s := serve(t, f)
	if got := s.announce(good.Infohash, 7001); s.Seeds != 0 || strings.Contains(got, compact(s.Swarm)) {
		t.Errorf("a spoilt file is seeded: %d seeds, %q", s.Seeds, got)
	}
	if log := s.log.String(); !strings.Contains(log, "seeding failed") || !strings.Contains(log, "version=1.0.0") {
		t.Errorf("nobody is told:\n%s", log)
	}
}

func TestServeRetiresWhatNobodyOffers(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	p := f.open()
	node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	seeds, tr := newSeeds(p, node), tracker.New(tracker.Config{})
	now := time.Now()
	if !seeds.round(t.Context(), tr, now) || seeds.count() != 1 {
		t.Fatalf("%d seeds", seeds.count())
	}
	f.publish("1.1.0", "two")
	seeds.round(t.Context(), tr, now)
	seeds.retire(tr, now.Add(keepOld-time.Second))
	// The tracker also knows where machines that follow the channel meet.
	if seeds.count() != 2 || tr.Stats().Torrents != 1+2 {
		t.Errorf("%d seeds and %d torrents before the time is over, want 2 and one more", seeds.count(), tr.Stats().Torrents)
	}
	seeds.retire(tr, now.Add(keepOld))
	if seeds.count() != 1 || tr.Stats().Torrents != 1+1 || len(node.Stats().Torrents) != 1 {
		t.Errorf("%d seeds, %d torrents, %d in the node after it, want 1, one more, and 1", seeds.count(), tr.Stats().Torrents, len(node.Stats().Torrents))
	}
}

func TestServeSaysWhoHasThePort(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, which := range []string{"serve.listen", "serve.swarm"} {
		t.Run(which, func(t *testing.T) {
			f := newFleet(t, 1, "release-1@acme")
			f.cfg.Serve = ServeConfig{Listen: "127.0.0.1:0", Swarm: "127.0.0.1:0"}
			if which == "serve.listen" {
				f.cfg.Serve.Listen = busy.Addr().String()
			} else {
				f.cfg.Serve.Swarm = busy.Addr().String()
			}
			err := f.open().Serve(t.Context(), nil)
			e := wantCode(t, err, fault.PortInUse)
			text := strings.Join(append(e.Detail, e.Next...), "\n")
			if !strings.Contains(text, which) {
				t.Errorf("the error does not say which setting to change:\n%s", text)
			}
			if who := fmt.Sprintf("(process %d)", os.Getpid()); runtime.GOOS == "linux" && !strings.Contains(text, who) {
				t.Errorf("the error does not name us, %s:\n%s", who, text)
			}
		})
	}
	t.Run("an-address-of-another-machine", func(t *testing.T) {
		f := newFleet(t, 1, "release-1@acme")
		f.cfg.Serve = ServeConfig{Listen: "192.0.2.1:0", Swarm: "127.0.0.1:0"}
		wantCode(t, f.open().Serve(t.Context(), nil), fault.Config)
	})
}

func TestServeEndsWithAnAnswerUnderWay(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	s := serve(t, f)
	conn, err := net.Dial("tcp", s.HTTP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := conn.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	// The connection is idle now; ending must not wait for it.
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.HTTP.String()); err == nil {
		t.Error("the port is still open")
	}
	// And the ports are free for the next one.
	f.cfg.Serve.Listen, f.cfg.Serve.Swarm = s.HTTP.String(), s.Swarm.String()
	ctx, cancel := context.WithCancel(t.Context())
	if err := f.open().Serve(ctx, func(Serving) { cancel() }); err != nil {
		t.Error(err)
	}
}

func TestServeTakesNoBody(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	s := serve(t, f)
	resp, err := http.Post(s.url("/api/v1/status"), "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s", resp.Status)
	}
}

func TestWhereTheOriginIs(t *testing.T) {
	a := netip.MustParseAddr
	any7801, one := netip.MustParseAddrPort("[::]:7801"), netip.MustParseAddrPort("10.0.0.9:7801")
	rows := []struct {
		name, public string
		swarm        netip.AddrPort
		local        netip.Addr
		want         string
	}{
		{"at-its-public-address", "http://198.51.100.7:7800", any7801, a("10.0.0.4"), "[198.51.100.7:7801]"},
		{"on-this-machine-not-by-the-public-address", "http://198.51.100.7:7800", any7801, a("127.0.0.1"), "[127.0.0.1:7801]"},
		{"where-its-seed-listens", "", one, a("10.0.0.4"), "[10.0.0.9:7801]"},
		{"where-it-was-reached", "", any7801, a("10.0.0.4"), "[10.0.0.4:7801]"},
		{"a-name-that-is-not-resolved-yet", "http://updates.invalid", any7801, a("10.0.0.4"), "[10.0.0.4:7801]"},
		{"nowhere-to-be-known", "", any7801, netip.Addr{}, "[]"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if got := fmt.Sprint(newAddresses(r.public, r.swarm).from(r.local)); got != r.want {
				t.Errorf("from(%s) = %s, want %s", r.local, got, r.want)
			}
		})
	}
	t.Run("a-name", func(t *testing.T) {
		addrs := newAddresses("http://localhost:7800", any7801)
		addrs.resolve(t.Context())
		if got := addrs.from(a("10.0.0.4")); len(got) == 0 || !got[0].Addr().IsLoopback() {
			t.Errorf("from = %v", got)
		}
	})
}
