package manifest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

func report(f *mt.Fleet, agent string) *manifest.Report {
	return &manifest.Report{
		Repo: f.Pin(), Agent: f.Key(agent).Public().ID(), Counter: 1791957731, Time: f.Now,
		Host: "pos-0113", Platform: mt.Platform, AgentVersion: "1.0.0", RootVersion: 2, Run: "5f1c",
		Labels: []manifest.Label{{Name: "ring", Value: "canary"}, {Name: "site", Value: "Zürich 2"}},
		Apps: []manifest.AppReport{{
			App: "acme", Channel: "stable", Epoch: 1, Sequence: 43, Version: "2.4.0", SHA256: mt.Content("2.4.0"), Offered: mt.Content("2.4.1"),
			State: manifest.StateReverted, Why: &manifest.Why{Code: fault.HealthFailed, Text: "acme --self-check exited 3", Until: f.Now, Next: "fleet show pos-0113"},
			Freshness: manifest.FreshCurrent, Bytes: manifest.ByteCount{LAN: 49073356, Origin: 1363148, Given: 222298112},
		}, {
			App: "other", Channel: "stable", State: manifest.StateHealthy, Freshness: manifest.FreshNone,
		}},
		Events: []manifest.EventCount{{Code: fault.Rollback, Count: 1, Detail: "manifest acme/stable sequence 40 < 43"}},
	}
}

func TestReportRoundTrip(t *testing.T) {
	f := mt.New(t)
	for _, agent := range []string{"agent-1", "sk-agent"} {
		r := report(f, agent)
		payload, err := manifest.DraftReport(r)
		if err != nil {
			t.Fatal(err)
		}
		back, key, err := manifest.OpenReport(f.Sign(manifest.TypeReport, payload, agent), f.Pin())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, back); d != "" {
			t.Error(d)
		}
		if key.ID() != r.Agent {
			t.Errorf("the key is %s", key.ID())
		}
	}
}

func TestReportAttacks(t *testing.T) {
	f := mt.New(t)
	payload, err := manifest.DraftReport(report(f, "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	good := f.Sign(manifest.TypeReport, payload, "agent-1")
	edit := func(change func(map[string]any)) []byte {
		return f.Sign(manifest.TypeReport, mt.EditPayload(t, good, manifest.TypeReport, change), "agent-1")
	}
	app := func(d map[string]any) map[string]any { return d["apps"].([]any)[0].(map[string]any) }
	envelope := func(change func(e *manifest.Envelope)) []byte {
		e, err := manifest.ParseEnvelope(good, manifest.TypeReport)
		if err != nil {
			t.Fatal(err)
		}
		change(e)
		return e.Marshal()
	}
	rows := []struct {
		name string
		env  []byte
		want fault.Code
	}{
		{"signed-by-another-agent", f.Sign(manifest.TypeReport, payload, "agent-2"), fault.Threshold},
		{"another-agents-key-under-its-name", envelope(func(e *manifest.Envelope) {
			other, _ := manifest.ParseEnvelope(f.Sign(manifest.TypeReport, payload, "agent-2"), manifest.TypeReport)
			e.Signatures[0].Sig = other.Signatures[0].Sig
		}), fault.Threshold},
		{"another-name-over-its-key", envelope(func(e *manifest.Envelope) { e.Signatures[0].KeyID = f.Key("agent-2").Public().ID() }), fault.Threshold},
		{"signed-as-a-beacon", envelope(func(e *manifest.Envelope) {
			other, _ := manifest.ParseEnvelope(f.Sign(manifest.TypeBeacon, payload, "agent-1"), manifest.TypeBeacon)
			e.Signatures = other.Signatures
		}), fault.Threshold},
		{"payload-changed", envelope(func(e *manifest.Envelope) { e.Payload = append(e.Payload, ' ') }), fault.Threshold},
		{"signature-junk", envelope(func(e *manifest.Envelope) { e.Signatures[0].Sig = []byte("x") }), fault.Threshold},
		{"two-signatures", f.Sign(manifest.TypeReport, payload, "agent-1", "agent-2"), fault.Malformed},
		{"another-fleet", edit(func(d map[string]any) { d["repo"] = manifest.Sum(nil).Prefixed() }), fault.WrongTarget},
		{"manifest-in-its-place", f.Manifest(mt.Stable, 1), fault.TooLarge},
		{"too-large", pad(good, manifest.MaxReport+1), fault.TooLarge},
		{"counter-zero", edit(func(d map[string]any) { d["counter"] = 0 }), fault.Malformed},
		{"no-time", edit(func(d map[string]any) { delete(d, "time") }), fault.Malformed},
		{"no-apps", edit(func(d map[string]any) { delete(d, "apps") }), fault.Malformed},
		{"host-too-long", edit(func(d map[string]any) { d["host"] = strings.Repeat("x", 254) }), fault.Malformed},
		{"host-with-escape", edit(func(d map[string]any) { d["host"] = "\x1b[2J" }), fault.Malformed},
		{"labels-over-32", edit(func(d map[string]any) {
			var list []any
			for i := range 33 {
				list = append(list, map[string]any{"name": fmt.Sprintf("l%d", i), "value": "x"})
			}
			d["labels"] = list
		}), fault.Malformed},
		{"one-app-twice", edit(func(d map[string]any) { d["apps"] = append(d["apps"].([]any), d["apps"].([]any)[0]) }), fault.Malformed},
		{"state-of-the-collector", edit(func(d map[string]any) { app(d)["state"] = "not-seen" }), fault.Malformed},
		{"no-why", edit(func(d map[string]any) { delete(app(d), "why") }), fault.Malformed},
		{"why-code-with-spaces", edit(func(d map[string]any) { app(d)["why"].(map[string]any)["code"] = "it broke" }), fault.Malformed},
		{"bytes-negative", edit(func(d map[string]any) { app(d)["bytes"].(map[string]any)["lan"] = -1 }), fault.Malformed},
		{"freshness-unknown", edit(func(d map[string]any) { app(d)["freshness"] = "crisp" }), fault.Malformed},
		{"platform-bad", edit(func(d map[string]any) { d["platform"] = "linux" }), fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			rep, _, err := manifest.OpenReport(r.env, f.Pin())
			if r.name == "manifest-in-its-place" && len(r.env) <= manifest.MaxReport {
				r.want = fault.WrongType
			}
			if got := fault.CodeOf(err); got != r.want || rep != nil {
				t.Errorf("got %v and %v, want %s", rep, err, r.want)
			}
		})
	}
}

// TestReportTextIsCleaned: what a program prints must not keep a machine from reporting.
func TestReportTextIsCleaned(t *testing.T) {
	f := mt.New(t)
	r := report(f, "agent-1")
	r.Apps[0].Why.Text = "\x1b[31mpanic:\nbad \xff " + strings.Repeat("é", 300)
	r.Events[0].Detail = "\u202ejpg.exe"
	payload, err := manifest.DraftReport(r)
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := manifest.OpenReport(f.Sign(manifest.TypeReport, payload, "agent-1"), f.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if got := back.Apps[0].Why.Text; !strings.HasPrefix(got, " [31mpanic: bad ? é") || len(got) > 256 {
		t.Errorf("the text is %q", got)
	}
}

func TestNextCounter(t *testing.T) {
	now := time.Unix(1791957731, 0)
	for last, want := range map[int64]int64{0: 1791957731, 1791957730: 1791957731, 1791957731: 1791957732, 2000000000: 2000000001} {
		if got := manifest.NextCounter(last, now); got != want {
			t.Errorf("after %d comes %d, want %d", last, got, want)
		}
	}
	if got := manifest.NextCounter(0, time.Unix(-5, 0)); got != 1 {
		t.Errorf("before 1970 the first is %d", got)
	}
}
