package diff_test

import (
	"strings"
	"testing"
	"time"

	"shoal/manifest"
	"shoal/publisher/ceremony/diff"
)

func sampleManifest() *manifest.Manifest {
	day := time.Date(2026, 10, 12, 10, 0, 0, 0, time.UTC)
	one, two := manifest.Sum([]byte("one")), manifest.Sum([]byte("two"))
	payload := func(d manifest.Digest) []manifest.Payload {
		return []manifest.Payload{{Kind: manifest.PayloadFull, Codec: manifest.CodecNone, Length: 2048, SHA256: d, InfoSHA256: d}}
	}
	return &manifest.Manifest{
		Repo: manifest.Sum([]byte("fleet")), App: "acme", Channel: "stable", Epoch: 1, Sequence: 42,
		Issued: day, Expires: day.Add(90 * 24 * time.Hour),
		Release:  manifest.Release{Version: "1.8.3"},
		MinAgent: "0.3.0",
		Blocked:  []manifest.Blocked{{SHA256: manifest.Sum([]byte("bad")), Reason: "1.8.2 yanked: data loss"}},
		Rollout: &manifest.Rollout{Salt: "b1946ac9", Start: day, Waves: []manifest.Wave{
			{Name: "canary", Rings: []string{"canary"}}, {Name: "everyone", Percent: 100, After: time.Hour, Gate: manifest.GateBeacon},
		}},
		Attachments: []manifest.Attachment{{Name: "sbom.json", Length: 10, SHA256: one}},
		Artifacts: []manifest.Artifact{
			{Name: "acme", Kind: manifest.KindBinary, OS: "linux", Arch: "amd64", Length: 2048, SHA256: one, Mode: "0755", Payloads: payload(one)},
			{Name: "acme", Kind: manifest.KindBinary, OS: "windows", Arch: "amd64", Length: 2048, SHA256: two, Mode: "0755", Payloads: payload(two)},
		},
	}
}

func TestManifestsSaysWhatChanges(t *testing.T) {
	fresh := manifest.Sum([]byte("fresh"))
	rows := []struct {
		name  string
		edit  func(next *manifest.Manifest)
		want  string
		alarm bool
	}{
		{"next-number", nil, "number 1.42 → 1.43", false},
		{"number-jumps", func(m *manifest.Manifest) { m.Sequence = 99 }, "the number JUMPS: 1.42 → 1.99", true},
		{"number-goes-back", func(m *manifest.Manifest) { m.Sequence = 41 }, "the number GOES BACK: 1.42 → 1.41", true},
		{"new-epoch", func(m *manifest.Manifest) { m.Epoch, m.Sequence = 2, 1 }, "number 1.42 → 2.1: a new epoch", false},
		{"another-fleet", func(m *manifest.Manifest) { m.Repo[0] ^= 1 }, "for ANOTHER FLEET", true},
		{"another-channel", func(m *manifest.Manifest) { m.Channel = "beta" }, "for ANOTHER CHANNEL: acme/beta instead of acme/stable", true},
		{"version", func(m *manifest.Manifest) { m.Release.Version = "1.9.0" }, "version 1.8.3 → 1.9.0", false},
		{"version-goes-back", func(m *manifest.Manifest) { m.Release.Version = "1.8.1" }, "machines GO BACK: version 1.8.3 → 1.8.1", true},
		{"expiry", func(m *manifest.Manifest) { m.Expires = m.Issued.Add(48 * time.Hour) }, "believed until 2026-10-14 10:00 UTC, for 2 days (before: until 2027-01-10 10:00 UTC)", false},
		{"dated-before", func(m *manifest.Manifest) { m.Issued = m.Issued.Add(-time.Hour) }, "BEFORE the release it follows", true},
		{"severity", func(m *manifest.Manifest) { m.Release.Severity = "critical" }, "severity normal → critical", false},
		{"immediate", func(m *manifest.Manifest) { m.Release.Immediate = true }, "do not wait for their maintenance window", false},
		{"notes", func(m *manifest.Manifest) { m.Release.Notes = "First line.\nSecond." }, "notes: First line. ...", false},
		{"artifact-changed", func(m *manifest.Manifest) { m.Artifacts[0].SHA256, m.Artifacts[0].Length = fresh, 4096 },
			"linux/amd64: 2.0 KiB → 4.0 KiB, sha256 " + manifest.Sum([]byte("one")).String() + " → " + fresh.String(), false},
		{"artifact-the-same", nil, "windows/amd64: the same file", false},
		{"artifact-new", func(m *manifest.Manifest) { m.Artifacts[1].Arch = "arm64" }, "windows/arm64: new, 2.0 KiB, binary acme", false},
		{"artifact-left-out", func(m *manifest.Manifest) { m.Artifacts = m.Artifacts[:1] }, "windows/amd64: LEFT OUT", true},
		{"artifact-kind", func(m *manifest.Manifest) { m.Artifacts[0].Kind = manifest.KindInstaller }, "ANOTHER KIND OF FILE: binary acme → installer acme", true},
		{"artifact-mode", func(m *manifest.Manifest) { m.Artifacts[0].Mode = "0555" }, "mode 0755 → 0555", false},
		{"artifact-other-download", func(m *manifest.Manifest) {
			p := m.Artifacts[0].Payloads[0]
			p.InfoSHA256 = fresh
			m.Artifacts[0].Payloads = []manifest.Payload{p}
		}, "linux/amd64: offered as other downloads than before", false},
		{"artifact-that-was-blocked", func(m *manifest.Manifest) { m.Artifacts[0].SHA256 = manifest.Sum([]byte("bad")) }, "this content IS BLOCKED by the release before: 1.8.2 yanked", true},
		{"block-vanishes", func(m *manifest.Manifest) { m.Blocked = nil }, "NO LONGER BLOCKED: " + manifest.Sum([]byte("bad")).String(), true},
		{"block-added", func(m *manifest.Manifest) {
			m.Blocked = append(m.Blocked, manifest.Blocked{SHA256: manifest.Sum([]byte("two")), Reason: "crashes"})
		}, "which is 1.8.3 for windows/amd64: crashes", false},
		{"waves-gone", func(m *manifest.Manifest) { m.Rollout = nil }, "NO WAVES ANY MORE", true},
		{"waves-changed", func(m *manifest.Manifest) { m.Rollout.Waves = m.Rollout.Waves[1:] }, "1 waves from 2026-10-12 10:00 UTC: everyone 100 % after 1h0m0s when beacon opens it", false},
		{"salt", func(m *manifest.Manifest) { m.Rollout.Salt = "ffff" }, "drawn anew", false},
		{"paused", func(m *manifest.Manifest) { m.Rollout.Paused = true }, "paused: false → true", false},
		{"retry", func(m *manifest.Manifest) { m.Rollout.Retry = 1 }, "try again (retry 0 → 1)", false},
		{"stop", func(m *manifest.Manifest) { m.Rollout.Stop = &manifest.Stop{FailedPercent: 5, MinReports: 3} }, "stops by itself: never → at 5 % failed of at least 3 reports", false},
		{"min-agent", func(m *manifest.Manifest) { m.MinAgent = "0.4.0" }, "agents older than 0.4.0 refuse it (before: 0.3.0)", false},
		{"critical-member", func(m *manifest.Manifest) { m.Critical = []string{"rollout.salt"} }, "agents must understand rollout.salt", false},
		{"attachment-added", func(m *manifest.Manifest) {
			m.Attachments = append(m.Attachments, manifest.Attachment{Name: "b.json", Length: 5, SHA256: fresh})
		}, "attached b.json, 5 B, sha256 " + fresh.String(), false},
		{"attachment-changed", func(m *manifest.Manifest) { m.Attachments[0].SHA256 = fresh }, "attachment sbom.json: 10 B → 10 B", false},
		{"attachment-gone", func(m *manifest.Manifest) { m.Attachments = nil }, "no longer attached: sbom.json", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			prev, next := sampleManifest(), sampleManifest()
			next.Sequence++
			if row.edit != nil {
				row.edit(next)
			}
			wantChange(t, diff.Manifests(prev, next), row.want, row.alarm)
		})
	}
	t.Run("first-release", func(t *testing.T) {
		changes := diff.Manifests(nil, sampleManifest())
		wantChange(t, changes, "the first release of acme/stable, number 1.42", false)
		wantChange(t, changes, "linux/amd64: new", false)
	})
	t.Run("the-same-again", func(t *testing.T) {
		for _, c := range diff.Manifests(sampleManifest(), sampleManifest()) {
			if c.Alarm {
				t.Errorf("an alarm about nothing: %q", c.Text)
			}
		}
	})
}

func wantChange(t *testing.T, changes []diff.Change, want string, alarm bool) {
	t.Helper()
	var all []string
	for _, c := range changes {
		all = append(all, c.Text)
		if strings.Contains(c.Text, want) {
			if c.Alarm != alarm {
				t.Errorf("%q: alarm is %t, want %t", c.Text, c.Alarm, alarm)
			}
			return
		}
	}
	t.Errorf("nothing says %q:\n%s", want, strings.Join(all, "\n"))
}
