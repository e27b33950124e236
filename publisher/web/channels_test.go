package web

import (
	"fmt"
	"html"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/publisher/access"
	"shoal/publisher/fleet"
	"shoal/publisher/repo"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
)

const (
	manyChannels = 64 // which is all that a root can have
	manyWaves    = 64 // of a plan, as many
	failing      = 39 // the channel where machines failed
)

func channelName(i int) manifest.Channel {
	return manifest.Channel{App: strings.Repeat("a", 64), Name: fmt.Sprintf("c%02d-%s", i, strings.Repeat("x", 60))}
}

// crowded is the fleet page of a repository in which everything is as much as can be.
func crowded(t *testing.T) *Web {
	t.Helper()
	f := mt.New(t)
	clock := func() time.Time { return f.Now }
	tree := &repo.State{Trust: f.Trust()}
	plan := []rollout.WaveStatus{}
	for i := range manyWaves {
		w := rollout.WaveStatus{Name: strings.Repeat("w", 64), Opens: f.Now, Gated: true, Open: i < 9, Opened: f.Now, Count: &rollout.Count{Target: 50_000, Healthy: 9_999, Working: 9_999, Failed: 9_999, NotSeen: 9_999}}
		for j := range 16 {
			w.Rings = append(w.Rings, fmt.Sprintf("%02d-%s", j, strings.Repeat("r", 60)))
		}
		plan = append(plan, w)
	}
	for i := range manyChannels {
		ch := channelName(i)
		m := &manifest.Manifest{App: ch.App, Channel: ch.Name, Release: manifest.Release{Version: "1.0.0"}, Expires: f.Now.Add(time.Hour)}
		tree.Channels = append(tree.Channels, repo.Channel{Name: ch, Held: &manifest.Verified{Manifest: m}, Latest: m})
	}
	reports, err := fleet.Open(fleet.Config{Dir: t.TempDir(), Repo: manifest.FleetID(f.Pin()), Approve: fleet.ApproveMembers, Clock: clock, CommitEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reports.Close() })
	const evil = `<"'&>`
	for i := range 30 * manyChannels / 8 { // thirty versions in every channel
		name := fmt.Sprintf("pos-%d", i)
		r := &manifest.Report{
			Repo: f.Pin(), Agent: f.Key(name).Public().ID(), Counter: 1, Time: f.Now,
			Host: strings.Repeat(evil, 50), Platform: mt.Platform, AgentVersion: "1.0.0", RootVersion: 1,
		}
		for j := range 8 {
			ch := channelName((8*i + j) % manyChannels)
			a := manifest.AppReport{App: ch.App, Channel: ch.Name, Version: fmt.Sprintf("1.0.%d-%s", i, strings.Repeat("v", 50)), State: manifest.StateHealthy, Freshness: manifest.FreshCurrent}
			if (8*i+j)%manyChannels == failing {
				a.State, a.Why = manifest.StateFailed, &manifest.Why{Code: fault.HealthFailed, Text: strings.Repeat(evil, 50), Next: strings.Repeat(evil, 50)}
			}
			r.Apps = append(r.Apps, a)
		}
		payload, err := manifest.DraftReport(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reports.Take(t.Context(), f.Sign(manifest.TypeReport, payload, name), fleet.Via{Member: true}); err != nil {
			t.Fatal(err)
		}
	}
	v := view.New(view.Source{
		Fleet: reports, ID: manifest.FleetID(f.Pin()), Clock: clock, Started: f.Now,
		Stamp: func() (string, error) { return "1", nil }, Tree: func() (*repo.State, error) { return tree, nil },
		Releases: func() ([]view.Release, error) { return nil, nil },
		Torrents: func() []view.Torrent { return nil }, Given: func() view.Given { return view.Given{} },
		Rollout: func(ch manifest.Channel) (*rollout.Status, error) {
			st := &rollout.Status{Channel: ch, Version: "1.0.0", Phase: rollout.PhaseRunning, Reason: strings.Repeat(evil, 50), Waves: plan, NextGate: 9, Counted: true, Gated: true, Controlled: true}
			if ch == channelName(failing) {
				st.Total.Failed = 1
			}
			return st, nil
		},
	})
	guard, err := access.New(access.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{View: v, Guard: guard, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// However many channels a repository has, with as many waves and versions as there can be,
// the first page stays small; where something fails is on it, and every other channel can
// be reached from it.
func TestFirstPageOfManyChannels(t *testing.T) {
	s := crowded(t)
	get := func(path string) string {
		t.Helper()
		r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
		p, err := s.rollout(r)
		if err != nil {
			t.Fatal(err)
		}
		s.render(w, r, access.Visitor{Role: access.Operator, Cookie: true}, http.StatusOK, p)
		if size := w.Body.Len(); w.Code != http.StatusOK || size > 300<<10 {
			t.Errorf("%s: %d, %d bytes", path, w.Code, size)
		}
		return w.Body.String()
	}
	body := get("/")
	if ch := channelName(failing).String(); !strings.Contains(body, `data-of="`+ch+`"`) {
		t.Error("the channel where machines failed is not on the page")
	}
	links := map[string]bool{}
	for _, m := range regexp.MustCompile(`href="(/\?channel=[^"]+)"`).FindAllStringSubmatch(body, -1) {
		links[html.UnescapeString(m[1])] = true
	}
	shown := strings.Count(body, `id="f-channel-`)
	if shown == 0 || shown+len(links) != manyChannels {
		t.Errorf("%d channels shown and %d linked, of %d", shown, len(links), manyChannels)
	}
	for _, link := range slices.Sorted(maps.Keys(links))[:3] {
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		body := get(link)
		if name := u.Query().Get("channel"); strings.Count(body, `id="f-channel-`) != 1 || !strings.Contains(body, `data-of="`+name+`"`) {
			t.Errorf("%s is not about that channel alone", link)
		}
		if !strings.Contains(body, `name="alone"`) {
			t.Errorf("what is done on %s leads elsewhere", link)
		}
	}
	if _, err := s.rollout(httptest.NewRequest(http.MethodGet, "/?channel=acme/none", nil)); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a channel that is none: %v", err)
	}
}
