package publisher

import (
	"strings"
	"testing"
	"time"

	"shoal/publisher/fleet"
)

// People are told at 30, 14, 7 and 1 days and when it is over, once each, of the root as
// of manifests, over restarts.
func TestExpiryIsToldInTime(t *testing.T) {
	f := newFleet(t, 1, "release-1")
	f.publish("2.4.1", "two")
	p := f.open()
	expires := f.now.Add(DefaultMaxValidity)
	told := 0
	for _, step := range []struct {
		left time.Duration
		want string // in what is told of the manifest; empty for nothing
	}{
		{31 * day, ""},
		{30*day - time.Hour, "in 29 d"},
		{29 * day, ""},
		{13 * day, "in 13 d"},
		{7 * day, "in 7 d"},
		{7*day - time.Hour, ""},
		{time.Hour, "in 0 d"},
		{-time.Hour, "ran out of date"},
		{-2 * day, ""},
	} {
		f.now = expires.Add(-step.left)
		reports, err := p.openReports() // anew each time
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.noteExpiry(t.Context(), reports); err != nil {
				t.Fatal(err)
			}
		}
		page, err := reports.Events(t.Context(), fleet.EventQuery{})
		if err != nil {
			t.Fatal(err)
		}
		news := page.Events[told:]
		told = len(page.Events)
		var texts []string
		for _, e := range news {
			if e.Kind == fleet.KindExpirySoon && e.App == "acme" && e.Version == "2.4.1" {
				texts = append(texts, e.Text)
			}
		}
		if got := strings.Join(texts, "\n"); (got == "") != (step.want == "") || len(texts) > 1 || !strings.Contains(got, step.want) {
			t.Errorf("%s before the end: %q, want %q", step.left, got, step.want)
		}
		if err := reports.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f.now = f.root.Expires.Add(-6 * day)
	reports, err := p.openReports()
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Close()
	if err := p.noteExpiry(t.Context(), reports); err != nil {
		t.Fatal(err)
	}
	page, err := reports.Events(t.Context(), fleet.EventQuery{Last: true, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range page.Events {
		found = found || strings.HasPrefix(e.Text, "root 1 runs out of date in 6 d")
	}
	if !found {
		t.Errorf("of the root: %+v", page.Events)
	}
}
