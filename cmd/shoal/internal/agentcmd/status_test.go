package agentcmd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"shoal/agent"
	"shoal/manifest"
)

// What a site without news cannot notice is said, and only there.
func TestStatusSaysWhatCannotBeNoticed(t *testing.T) {
	now := time.Date(2026, 10, 14, 0, 0, 0, 0, time.UTC)
	rows := []struct {
		name      string
		clock     bool
		freshness manifest.Freshness
		valid     time.Duration
		want      string
	}{
		{"usual", true, manifest.FreshNone, 90 * 24 * time.Hour, ""},
		{"long-with-a-beacon", true, manifest.FreshCurrent, 2 * 365 * 24 * time.Hour, ""},
		{"long-without", true, manifest.FreshNone, 2 * 365 * 24 * time.Hour, "until 2028-10-13 nobody here notices"},
		{"no-clock", false, manifest.FreshNone, 90 * 24 * time.Hour, "freeze detection: off"},
	}
	for _, r := range rows {
		var b bytes.Buffer
		app := agent.AppStatus{App: "acme", Channel: "stable", State: manifest.StateHealthy, Sequence: 3, Expires: now.Add(r.valid), Freshness: r.freshness}
		writeStatus(&b, &agent.Status{Running: true, FreezeCheck: r.clock, Apps: []agent.AppStatus{app}}, now)
		if said := strings.Contains(b.String(), "notices"); said != (r.want != "") || !strings.Contains(b.String(), r.want) {
			t.Errorf("%s: %s", r.name, b.String())
		}
	}
}
