package tracker

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	registered = [20]byte([]byte("registered-torrent-1"))
	other      = [20]byte([]byte("registered-torrent-2"))
	stranger   = [20]byte([]byte("somebody-else's-----"))
)

// testTracker is a tracker whose requests seem to come from wherever a test says.
type testTracker struct {
	*Tracker
	t   *testing.T
	now time.Time
}

func newTestTracker(t *testing.T, cfg Config) *testTracker {
	tt := &testTracker{t: t, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	cfg.Clock = func() time.Time { return tt.now }
	tt.Tracker = New(cfg)
	tt.Set([]Torrent{{Infohash: registered}})
	return tt
}

// announce sends one announce from an address. Pairs in more replace or add to the
// parameters of an ordinary one; an empty value removes the parameter.
func (tt *testTracker) announce(from string, more ...string) map[string]any {
	tt.t.Helper()
	return tt.get(tt.ServeAnnounce, from, query(registered, netip.MustParseAddrPort(from).Port(), more...))
}

func (tt *testTracker) get(h http.HandlerFunc, from, rawQuery string) map[string]any {
	tt.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/announce?"+rawQuery, nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h(w, r)
	if w.Code != http.StatusOK {
		tt.t.Fatalf("status %d; clients read failures only with status 200", w.Code)
	}
	return decodeDict(tt.t, w.Body.Bytes())
}

func query(infohash [20]byte, port uint16, more ...string) string {
	params := []string{
		"info_hash", string(infohash[:]),
		"peer_id", fmt.Sprintf("-XX0000-%012d", port),
		"port", strconv.Itoa(int(port)),
		"left", "1000",
		"compact", "1",
	}
	for i := 0; i < len(more); i += 2 {
		if at := slices.Index(params, more[i]); at >= 0 {
			params[at+1] = more[i+1]
		} else {
			params = append(params, more[i], more[i+1])
		}
	}
	var parts []string
	for i := 0; i < len(params); i += 2 {
		if params[i+1] != "" {
			parts = append(parts, params[i]+"="+url.QueryEscape(params[i+1]))
		}
	}
	return strings.Join(parts, "&")
}

// peersOf reads both compact lists of an answer.
func peersOf(t *testing.T, answer map[string]any) []string {
	t.Helper()
	if reason, failed := answer["failure reason"]; failed {
		t.Fatalf("the tracker refused: %v", reason)
	}
	v4, _ := answer["peers"].(string)
	v6, _ := answer["peers6"].(string)
	if len(v4)%6 != 0 || len(v6)%18 != 0 {
		t.Fatalf("compact lists of %d and %d bytes", len(v4), len(v6))
	}
	var list []string
	take := func(s string, n int) {
		for ; s != ""; s = s[n+2:] {
			ip, _ := netip.AddrFromSlice([]byte(s[:n]))
			list = append(list, netip.AddrPortFrom(ip, uint16(s[n])<<8|uint16(s[n+1])).String())
		}
	}
	take(v4, 4)
	take(v6, 16)
	slices.Sort(list)
	return list
}

func TestPeersLearnOfEachOther(t *testing.T) {
	tt := newTestTracker(t, Config{})
	if got := peersOf(t, tt.announce("10.0.0.1:7801")); len(got) != 0 {
		t.Errorf("the first peer was told of %v", got)
	}
	if got := peersOf(t, tt.announce("[2001:db8::7]:7801")); !slices.Equal(got, []string{"10.0.0.1:7801"}) {
		t.Errorf("the second peer was told of %v", got)
	}
	got := peersOf(t, tt.announce("10.0.0.9:7801"))
	if want := []string{"10.0.0.1:7801", "[2001:db8::7]:7801"}; !slices.Equal(got, want) {
		t.Errorf("the third peer was told of %v, want %v", got, want)
	}
	got = peersOf(t, tt.announce("10.0.0.1:7801"))
	if slices.Contains(got, "10.0.0.1:7801") || len(got) != 2 {
		t.Errorf("a peer that came back was told of %v: itself, or not the other two", got)
	}
}

func TestAddressIsTheOneTheRequestCameFrom(t *testing.T) {
	for _, param := range []string{"ip", "ipv4", "ipv6"} {
		t.Run("lie-by-"+param, func(t *testing.T) {
			tt := newTestTracker(t, Config{})
			tt.announce("10.0.0.1:7801", param, "192.0.2.66")
			if got := peersOf(t, tt.announce("10.0.0.2:7801")); !slices.Equal(got, []string{"10.0.0.1:7801"}) {
				t.Errorf("told of %v: the parameter was believed", got)
			}
		})
	}
	t.Run("mapped-ipv4-is-ipv4", func(t *testing.T) {
		tt := newTestTracker(t, Config{})
		tt.announce("[::ffff:10.0.0.1]:7801")
		if got := peersOf(t, tt.announce("10.0.0.2:7801")); !slices.Equal(got, []string{"10.0.0.1:7801"}) {
			t.Errorf("told of %v", got)
		}
	})
}

func TestWhoIsNotToldToOthers(t *testing.T) {
	rows := []struct {
		name string
		do   func(tt *testTracker)
		ask  string
		more []string
		want []string
	}{
		{"stopped-peer", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801", "key", "k")
			tt.announce("10.0.0.1:7801", "key", "k", "event", "stopped")
		}, "10.0.0.2:7801", nil, nil},
		{"neighbour-with-another-key-cannot-stop-it", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801", "key", "k")
			tt.announce("10.0.0.1:7801", "key", "other", "event", "stopped")
		}, "10.0.0.2:7801", nil, []string{"10.0.0.1:7801"}},
		{"peer-that-fell-silent", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801")
			tt.now = tt.now.Add(time.Hour)
			tt.announce("10.0.0.3:7801")
		}, "10.0.0.2:7801", nil, []string{"10.0.0.3:7801"}},
		{"peer-that-does-not-listen", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801", "port", "0")
		}, "10.0.0.2:7801", nil, nil},
		{"link-local-peer", func(tt *testTracker) {
			tt.announce("[fe80::1%eth0]:7801")
		}, "10.0.0.2:7801", nil, nil},
		{"loopback-peer-to-one-elsewhere", func(tt *testTracker) {
			tt.announce("127.0.0.1:7001")
		}, "10.0.0.2:7801", nil, nil},
		{"loopback-peer-to-one-on-loopback", func(tt *testTracker) {
			tt.announce("127.0.0.1:7001")
		}, "127.0.0.1:7002", nil, []string{"127.0.0.1:7001"}},
		{"seed-to-a-seed", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801", "left", "0")
			tt.announce("10.0.0.3:7801")
		}, "10.0.0.2:7801", []string{"left", "0"}, []string{"10.0.0.3:7801"}},
		{"peers-nobody-asked-for", func(tt *testTracker) {
			tt.announce("10.0.0.1:7801")
		}, "10.0.0.2:7801", []string{"numwant", "0"}, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			tt := newTestTracker(t, Config{})
			r.do(tt)
			if got := peersOf(t, tt.announce(r.ask, r.more...)); !slices.Equal(got, r.want) {
				t.Errorf("told of %v, want %v", got, r.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tt := newTestTracker(t, Config{})
	good := query(registered, 7801)
	rows := []struct{ name, query, reason string }{
		{"another-torrent", query(stranger, 7801), "its publisher's releases only"},
		{"no-infohash", query(registered, 7801, "info_hash", ""), "info_hash is missing"},
		{"short-infohash", query(registered, 7801, "info_hash", "short"), "info_hash must"},
		{"two-infohashes", good + "&info_hash=" + strings.Repeat("a", 20), "info_hash must be given once"},
		{"no-peer-id", query(registered, 7801, "peer_id", ""), "peer_id is missing"},
		{"no-port", query(registered, 7801, "port", ""), "port is missing"},
		{"port-too-big", query(registered, 7801, "port", "70000"), "port must"},
		{"negative-port", query(registered, 7801, "port", "-1"), "port must"},
		{"numwant-is-a-word", query(registered, 7801, "numwant", "many"), "numwant must"},
		{"numwant-too-big-for-a-number", query(registered, 7801, "numwant", "99999999999999999999"), "numwant must"},
		{"cut-off-escape", good + "&x=%2", "escape"},
		{"bad-escape", good + "&x=%zz", "escape"},
		{"endless-query", good + "&x=" + strings.Repeat("x", maxQuery), "longer than"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			before := tt.Stats().Refused
			reason, _ := tt.get(tt.ServeAnnounce, "10.0.0.1:7801", r.query)["failure reason"].(string)
			if !strings.Contains(reason, r.reason) {
				t.Errorf("failure reason %q, want one with %q", reason, r.reason)
			}
			if tt.Stats().Refused != before+1 {
				t.Errorf("the refusal was not counted")
			}
		})
	}
	if n := tt.Stats().Peers; n != 0 {
		t.Errorf("%d peers came in with refused announces", n)
	}
	t.Run("not-a-get", func(t *testing.T) {
		w := httptest.NewRecorder()
		tt.ServeAnnounce(w, httptest.NewRequest(http.MethodPost, "/announce?"+good, nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
			t.Errorf("status %d, Allow %q", w.Code, w.Header().Get("Allow"))
		}
	})
}

func TestLimits(t *testing.T) {
	t.Run("one-address-with-many-ports", func(t *testing.T) {
		tt := newTestTracker(t, Config{MaxPerAddress: 3})
		for port := range 50 {
			tt.announce(fmt.Sprintf("10.0.0.1:%d", 1000+port))
		}
		if s := tt.Stats(); s.Peers != 3 || s.Untold != 47 {
			t.Errorf("%+v, want 3 peers and 47 untold", s)
		}
		if got := peersOf(t, tt.announce("10.0.0.2:7801")); len(got) != 3 {
			t.Errorf("told of %v", got)
		}
	})
	t.Run("one-ipv6-network-with-many-addresses", func(t *testing.T) {
		tt := newTestTracker(t, Config{MaxPerAddress: 3})
		for i := range 50 {
			tt.announce(fmt.Sprintf("[2001:db8::%x]:7801", i+1))
		}
		tt.announce("[2001:db8:0:1::1]:7801")
		if n := tt.Stats().Peers; n != 4 {
			t.Errorf("%d peers, want 3 of the crowded network and 1 of the other", n)
		}
	})
	t.Run("room-comes-back-when-peers-go", func(t *testing.T) {
		tt := newTestTracker(t, Config{MaxPerAddress: 1, MaxPeers: 1})
		tt.announce("10.0.0.1:7801")
		tt.announce("10.0.0.2:7801")
		tt.announce("10.0.0.1:7801", "event", "stopped")
		tt.announce("10.0.0.1:7802")
		if got := peersOf(t, tt.announce("10.0.0.3:7801")); !slices.Equal(got, []string{"10.0.0.1:7802"}) {
			t.Errorf("told of %v", got)
		}
	})
	t.Run("full-tracker-still-answers", func(t *testing.T) {
		tt := newTestTracker(t, Config{MaxPeers: 2})
		for i := range 9 {
			tt.announce(fmt.Sprintf("10.0.0.%d:7801", i+1))
		}
		if got := peersOf(t, tt.announce("10.0.0.77:7801")); len(got) != 2 || tt.Stats().Peers != 2 {
			t.Errorf("told of %v, holds %d", got, tt.Stats().Peers)
		}
	})
	t.Run("silent-peers-are-forgotten", func(t *testing.T) {
		tt := newTestTracker(t, Config{})
		for i := range 200 {
			tt.announce(fmt.Sprintf("10.0.1.%d:7801", i+1))
		}
		tt.now = tt.now.Add(time.Hour)
		for i := range 120 { // each looks at a few of the old ones
			tt.announce(fmt.Sprintf("10.0.2.%d:7801", i+1))
		}
		if n := tt.Stats().Peers; n != 120 {
			t.Errorf("%d peers are remembered, want the 120 that speak", n)
		}
	})
	t.Run("answer-has-a-bound", func(t *testing.T) {
		tt := newTestTracker(t, Config{})
		for i := range 1000 {
			tt.announce(fmt.Sprintf("10.0.%d.%d:7801", i/250, i%250+1))
		}
		if got := peersOf(t, tt.announce("10.9.0.1:7801", "numwant", "100000")); len(got) != maxWant {
			t.Errorf("told of %d peers, want %d", len(got), maxWant)
		}
	})
	t.Run("interval-grows-with-the-fleet", func(t *testing.T) {
		tt := newTestTracker(t, Config{Interval: time.Minute, Rate: 1})
		first := tt.announce("10.0.0.1:7801")["interval"].(int)
		for i := range 600 {
			tt.announce(fmt.Sprintf("10.1.%d.%d:7801", i/250, i%250+1))
		}
		last := tt.announce("10.0.0.1:7801")["interval"].(int)
		if first < 60 || first > 66 || last < 600 || last > 662 {
			t.Errorf("interval %d s for one peer and %d s for 601; want one minute, then one announce a second in all", first, last)
		}
	})
}

// Every peer must have the same chance of being told, or part of a fleet is an island.
func TestSampleReachesEveryPeerAndRepeatsNone(t *testing.T) {
	tt := newTestTracker(t, Config{})
	const peers = 300
	for i := range peers {
		tt.announce(fmt.Sprintf("10.0.%d.%d:7801", i/200, i%200+1))
	}
	told := map[string]int{}
	const rounds = 400
	for range rounds {
		got := peersOf(t, tt.announce("10.9.0.1:7801"))
		if len(got) != defaultWant {
			t.Fatalf("told of %d peers, want %d", len(got), defaultWant)
		}
		if unique := slices.Compact(slices.Clone(got)); len(unique) != len(got) {
			t.Fatalf("a peer is twice in %v", got)
		}
		for _, p := range got {
			told[p]++
		}
	}
	// The mean is 67; a fair draw leaves 20..140 about once in 10^9.
	for p, n := range told {
		if n < 20 || n > 140 {
			t.Errorf("%s was told %d times of %d", p, n, rounds)
		}
	}
	if len(told) != peers {
		t.Errorf("%d of %d peers were ever told", len(told), peers)
	}
}

func TestOrigin(t *testing.T) {
	origin := netip.MustParseAddrPort("198.51.100.1:7801")
	var asked netip.Addr
	cfg := Config{Origin: func(local netip.Addr) []netip.AddrPort { asked = local; return []netip.AddrPort{origin} }}
	tt := newTestTracker(t, cfg)
	if got := peersOf(t, tt.announce("10.0.0.1:7801")); len(got) != 0 {
		t.Errorf("told of %v while the origin does not serve this torrent", got)
	}
	tt.Set([]Torrent{{Infohash: registered, Origin: true}})
	answer := tt.announce("10.0.0.1:7801")
	if got := peersOf(t, answer); !slices.Equal(got, []string{origin.String()}) || answer["complete"] != 1 {
		t.Errorf("told of %v with %v complete, want the origin", got, answer["complete"])
	}
	if got := peersOf(t, tt.announce("10.0.0.1:7801", "left", "0")); len(got) != 0 {
		t.Errorf("a seed was sent to the origin: %v", got)
	}
	if asked.IsValid() {
		t.Errorf("a request without a local address gave %v", asked)
	}

	t.Run("is-told-where-it-was-reached", func(t *testing.T) {
		tr := New(Config{Origin: func(local netip.Addr) []netip.AddrPort {
			return []netip.AddrPort{netip.AddrPortFrom(local, 7801)}
		}})
		tr.Set([]Torrent{{Infohash: registered, Origin: true}})
		srv := httptest.NewServer(http.HandlerFunc(tr.ServeAnnounce))
		defer srv.Close()
		resp, err := http.Get(srv.URL + "/announce?" + query(registered, 7001))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := peersOf(t, decodeDict(t, readAll(t, resp.Body))); !slices.Equal(got, []string{"127.0.0.1:7801"}) {
			t.Errorf("told of %v", got)
		}
	})
}

func TestNonCompactAnswer(t *testing.T) {
	tt := newTestTracker(t, Config{})
	tt.announce("10.0.0.1:7801")
	tt.announce("[2001:db8::7]:7802")
	for _, noID := range []bool{false, true} {
		more := []string{"compact", "0"}
		if noID {
			more = append(more, "no_peer_id", "1")
		}
		list, _ := tt.announce("10.0.0.2:7801", more...)["peers"].([]any)
		found := map[string]int{}
		for _, e := range list {
			d := e.(map[string]any)
			found[d["ip"].(string)] = d["port"].(int)
			id, _ := d["peer id"].(string)
			if has := strings.HasPrefix(id, "-XX0000-") && len(id) == 20; has == noID {
				t.Errorf("peer id %q with no_peer_id=%v", id, noID)
			}
		}
		if len(found) != 2 || found["10.0.0.1"] != 7801 || found["2001:db8::7"] != 7802 {
			t.Errorf("peers %v", found)
		}
	}
}

func TestScrape(t *testing.T) {
	tt := newTestTracker(t, Config{})
	tt.Set([]Torrent{{Infohash: registered, Origin: true}, {Infohash: other}})
	tt.announce("10.0.0.1:7801")
	tt.announce("10.0.0.2:7801", "left", "0")
	tt.announce("10.0.0.3:7801", "event", "completed")
	files := func(query string) map[string]any {
		return tt.get(tt.ServeScrape, "10.0.0.9:1", query)["files"].(map[string]any)
	}
	one := files("info_hash=" + url.QueryEscape(string(registered[:])) + "&info_hash=" + url.QueryEscape(string(stranger[:])))
	got, _ := one[string(registered[:])].(map[string]any)
	if len(one) != 1 || got["complete"] != 3 || got["incomplete"] != 1 {
		t.Errorf("scrape of one: %v", one)
	}
	if all := files(""); len(all) != 2 {
		t.Errorf("scrape of all has %d torrents, want 2", len(all))
	}
	many := strings.Repeat("info_hash="+strings.Repeat("a", 20)+"&", maxScraped+1)
	if answer := tt.get(tt.ServeScrape, "10.0.0.9:1", many); answer["failure reason"] == nil {
		t.Errorf("a scrape of %d torrents was answered: %v", maxScraped+1, answer)
	}
}

func TestSetKeepsThePeersOfTorrentsThatStay(t *testing.T) {
	tt := newTestTracker(t, Config{})
	tt.announce("10.0.0.1:7801")
	tt.Set([]Torrent{{Infohash: registered}, {Infohash: other}})
	tt.get(tt.ServeAnnounce, "10.0.0.5:7801", query(other, 7801))
	if got := peersOf(t, tt.announce("10.0.0.2:7801")); !slices.Equal(got, []string{"10.0.0.1:7801"}) {
		t.Errorf("told of %v after another torrent came", got)
	}
	tt.Set([]Torrent{{Infohash: other}})
	if s := tt.Stats(); s.Peers != 1 || s.Torrents != 1 {
		t.Errorf("%+v after a torrent went, want the one peer of the other", s)
	}
	if answer := tt.announce("10.0.0.2:7801"); answer["failure reason"] == nil {
		t.Errorf("a torrent that went is still answered for: %v", answer)
	}
}

// A request as a stock client sends it, over a real socket, read byte by byte.
func TestRawHTTP(t *testing.T) {
	tr := New(Config{})
	tr.Set([]Torrent{{Infohash: registered}})
	srv := httptest.NewServer(http.HandlerFunc(tr.ServeAnnounce))
	defer srv.Close()
	ask := func(port int) map[string]any {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /announce?info_hash=registered%%2Dtorrent%%2d1&peer_id=-TR3000-abcdefghijkl&port=%d"+
			"&uploaded=0&downloaded=0&left=786432&numwant=80&key=5c1f9a2b&compact=1&supportcrypto=1&event=started HTTP/1.0\r\n\r\n", port)
		head, body, _ := strings.Cut(string(readAll(t, conn)), "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.0 200 OK\r\n") {
			t.Fatalf("answered %q", head)
		}
		return decodeDict(t, []byte(body))
	}
	ask(6881)
	if got := peersOf(t, ask(6882)); !slices.Equal(got, []string{"127.0.0.1:6881"}) {
		t.Errorf("told of %v", got)
	}
}
