package agent

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
)

// Every source, tracker and peer is looked at for itself, and what is wrong says what
// mends it.
func TestExamineNetwork(t *testing.T) {
	serve := func(h http.HandlerFunc) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return srv.URL
	}
	portal := serve(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>log in") })
	ill := serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	huge := serve(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	tracker := serve(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "d14:failure reason2:noe") })

	b := newBench(t)
	good := b.cfg.Sources.Publisher
	content := agenttest.Large("2", 0)
	b.Release(stable, 2, content)
	peer := b.Seed(content)
	b.cfg.Sources.Mirrors = []string{portal, ill, huge, "http://127.0.0.1:1"}
	b.cfg.Trackers = []string{tracker, portal, "http://127.0.0.1:1/announce", "udp://127.0.0.1:1"}
	b.cfg.Peers = []string{peer, "127.0.0.1:1"}
	want := []struct {
		check string
		code  fault.Code
		text  string
	}{
		{"source", fault.OK, good}, {"source", fault.Malformed, portal}, {"source", fault.Unreachable, ill},
		{"source", fault.TooLarge, huge}, {"source", fault.Unreachable, "127.0.0.1:1"},
		{"tracker", fault.OK, tracker}, {"tracker", fault.Unreachable, "is no tracker"}, {"tracker", fault.Unreachable, "does not answer"},
		{"tracker", fault.OK, "not looked at"},
		{"peer", fault.OK, peer}, {"peer", fault.Unreachable, "cannot be reached"},
		{"multicast", fault.OK, "not looked for"},
	}
	examine := func() *NetworkExamined {
		t.Helper()
		x, err := ExamineNetwork(t.Context(), b.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	check := func(x *NetworkExamined) {
		t.Helper()
		for _, w := range want {
			i := slices.IndexFunc(x.Findings, func(f Finding) bool {
				return f.Check == w.check && f.Code == w.code && strings.Contains(f.Text, w.text)
			})
			if i < 0 {
				t.Errorf("no %s that is %s and says %q in %+v", w.check, w.code, w.text, x.Findings)
			} else if w.code != fault.OK && len(x.Findings[i].Fix) == 0 {
				t.Errorf("nothing mends %+v", x.Findings[i])
			}
		}
	}
	x := examine()
	check(x)
	if !x.Reached || x.Inside {
		t.Errorf("%+v: it was reached, from outside", x)
	}

	stop := b.run()
	b.serving()
	x = examine()
	check(x)
	if !x.Inside || !slices.ContainsFunc(x.Findings, func(f Finding) bool { return f.Check == "listening" }) {
		t.Errorf("the running agent did not look: %+v", x)
	}
	if n, err := Unban(t.Context(), b.cfg); n != 0 || err != nil {
		t.Errorf("lifted %d, %v", n, err)
	}
	stop()
	if _, err := Unban(t.Context(), b.cfg); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("%v: nobody is there to lift a ban", err)
	}

	b.cfg.Sources = Sources{Publisher: portal}
	b.cfg.Peers, b.cfg.Trackers = nil, []string{tracker}
	if x = examine(); x.Reached {
		t.Errorf("%+v: a portal and a tracker are nothing to get releases from", x.Findings)
	}
}
