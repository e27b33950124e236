package announce

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	for _, test := range []struct {
		raw, want string // "" is refused
	}{
		{"http://tracker.example/announce", "http://tracker.example/announce"},
		{"https://tracker.example:7800/announce?key=a%20b", "https://tracker.example:7800/announce?key=a%20b"},
		{"udp://tracker.example:1337", "udp://tracker.example:1337"},
		{"http://[2001:db8::1]:7800/announce", "http://[2001:db8::1]:7800/announce"},
		{"HTTP://tracker.example/a b", "http://tracker.example/a%20b"},
		{"http://tracker.example/announce#top", "http://tracker.example/announce"},
		{"http://user:secret@tracker.example/announce", ""},
		{"udp://tracker.example", ""},
		{"ws://tracker.example/announce", ""},
		{"file:///etc/passwd", ""},
		{"http:///announce", ""},
		{"http:tracker.example", ""},
		{"tracker.example:80", ""},
		{"http://tracker.example/%zz", ""},
		{"", ""},
		{"*http://tracker.example", ""},
	} {
		got, err := CheckURL(test.raw)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: got %q, %v, want %q", test.raw, got, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", test.raw, err)
		}
	}
}

func TestParseReply(t *testing.T) {
	for _, test := range []struct {
		name, reply string
		want        []string // peers; nil with "!" first is an error
	}{
		{"compact", "d8:intervali60e5:peers12:\x0a\x00\x00\x01\x00\x50\x0a\x00\x00\x02\x00\x51e", []string{"10.0.0.1:80", "10.0.0.2:81"}},
		{"compact-cut-short", "d5:peers7:\x0a\x00\x00\x01\x00\x50\x0ae", []string{"10.0.0.1:80"}},
		{"ipv6", "d6:peers618:\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50e", []string{"[2001:db8::1]:80"}},
		{"listed", "d5:peersld2:ip8:10.0.0.14:porti80eeee", []string{"10.0.0.1:80"}},
		{"listed-with-names-and-nonsense", "d5:peersld2:ip9:localhost4:porti80eed2:ip8:10.0.0.14:porti70000eed2:ip8:10.0.0.24:porti80eeee", []string{"10.0.0.2:80"}},
		{"peers-of-another-type", "d5:peersi5ee", []string{"!"}},
		{"what-follows-is-passed-over", "d5:peers6:\x0a\x00\x00\x01\x00\x50ejunk", []string{"10.0.0.1:80"}},
		{"refused", "d14:failure reason2:noe", []string{"!"}},
		{"nothing", "", []string{"!"}},
		{"page", "<html>", []string{"!"}},
		{"deep", strings.Repeat("l", 60000), []string{"!"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := parseReply([]byte(test.reply))
			got := []string{}
			for _, p := range r.peers {
				got = append(got, p.String())
			}
			if failed := len(test.want) > 0 && test.want[0] == "!"; failed != (err != nil) || !failed && !slices.Equal(got, test.want) {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte("d8:intervali60e12:min intervali5e5:peers12:\x0a\x00\x00\x01\x00\x50\x0a\x00\x00\x02\x00\x51e"))
	f.Add([]byte("d5:peersld2:ip8:10.0.0.14:porti80eeee"))
	f.Add([]byte("d6:peers618:\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50e"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReply(b[:min(len(b), maxReply)])
		if err != nil {
			return
		}
		for _, wanting := range []bool{false, true} {
			if w := r.wait(wanting); w < minInterval || w > maxInterval*11/10 {
				t.Errorf("the next announce is in %v", w)
			}
		}
		for _, p := range usable(r.peers, false) {
			if p.Port() == 0 || p.Addr().IsLoopback() || p.Addr().IsUnspecified() {
				t.Errorf("peer %v is passed on", p)
			}
		}
	})
}

func TestOverHTTP(t *testing.T) {
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	peers := "d8:intervali60e5:peers12:\x0a\x00\x00\x01\x00\x50\x7f\x00\x00\x01\x00\x51e"
	good := func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(peers)) }
	status := Status{Infohash: [20]byte{0: 0xff, 1: ' ', 2: '+', 3: '&'}, PeerID: [20]byte([]byte("-SH0100-abcdefghijkl")), Port: 7801, Left: 5, Uploaded: 6, Downloaded: 7}
	for _, test := range []struct {
		name, url, fails string
	}{
		{"asked", serve(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if q.Get("info_hash") != string(status.Infohash[:]) || q.Get("peer_id") != string(status.PeerID[:]) || q.Get("port") != "7801" ||
				q.Get("left") != "5" || q.Get("uploaded") != "6" || q.Get("downloaded") != "7" || q.Get("event") != "started" || q.Get("compact") != "1" ||
				q.Get("key") != "of the tracker" || strings.Contains(r.URL.RawQuery, "+") || r.UserAgent() != "shoal" {
				t.Errorf("the tracker was asked %s by %s", r.URL, r.UserAgent())
			}
			good(w, r)
		}) + "/announce?key=of%20the%20tracker", ""},
		{"redirected", serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, serve(good), http.StatusFound) }), ""},
		{"redirected-for-ever", serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }), "redirects"},
		{"an-error", serve(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "come later", http.StatusServiceUnavailable)
		}), "503"},
		{"an-error-with-a-reason", serve(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte("d14:failure reason14:not registerede"))
		}), "not registered"},
		{"too-long", serve(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2*maxReply)) }), "longer than"},
		{"nobody-there", "http://127.0.0.1:1/announce", "refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := New(Config{UserAgent: "shoal"})
			defer c.Close(0)
			r, err := c.send(t.Context(), test.url, status, eventStarted)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || strings.Contains(err.Error(), "info_hash") {
					t.Errorf("got %v, want it to say %q", err, test.fails)
				}
				return
			}
			// The tracker is here, so it may name this machine.
			want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:81")}
			if err != nil || !slices.Equal(r.peers, want) {
				t.Errorf("got %v, %v", r.peers, err)
			}
		})
	}
}

func TestNoWayBackFromTLS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("the plain server was asked") }))
	defer plain.Close()
	s := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL, http.StatusFound))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail here
	s.StartTLS()
	defer s.Close()
	c := New(Config{Transport: s.Client().Transport})
	defer c.Close(0)
	if _, err := c.send(t.Context(), s.URL, Status{}, eventStarted); err == nil || !strings.Contains(err.Error(), "from https") {
		t.Errorf("got %v", err)
	}
	// Nor is a certificate that nobody vouches for good enough.
	c = New(Config{})
	defer c.Close(0)
	if _, err := c.send(t.Context(), s.URL, Status{}, eventStarted); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}
