package manifest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// full is a manifest with every member.
func full(f *mt.Fleet) *manifest.Manifest {
	issued := f.Now.Truncate(time.Second)
	a := mt.Artifact("acme", mt.Platform, 786432, mt.Content("1.8.3"))
	b := mt.Artifact("acme", manifest.Platform{OS: "linux", Arch: "arm", Variant: "v7"}, 5, mt.Content("tree"))
	b.Kind, b.Mode = manifest.KindTree, "0644"
	return &manifest.Manifest{
		Repo: f.Pin(), App: "acme", Channel: "stable", Epoch: 1, Sequence: 42,
		Issued: issued, Expires: issued.Add(90 * 24 * time.Hour),
		Release: manifest.Release{Version: "1.8.3", Severity: "critical", Immediate: true, Notes: "Fixes data loss on <ext4> & more.\nReally."},
		Rollout: &manifest.Rollout{
			Salt: "b1946ac9", Start: issued.Add(12 * time.Hour), Retry: 1, Paused: true,
			Waves: []manifest.Wave{
				{Name: "canary", Rings: []string{"canary"}},
				{Name: "pilot", Percent: 10, After: 4 * time.Hour, Gate: manifest.GateBeacon, Soak: 30 * time.Minute},
				{Name: "everyone", Percent: 100, After: 24 * time.Hour, Gate: manifest.GateBeacon, Soak: 2 * time.Hour},
			},
			Stop: &manifest.Stop{FailedPercent: 5, MinReports: 3},
		},
		MinAgent: "0.3.0", Critical: []string{"rollout.stop"},
		Blocked:     []manifest.Blocked{{SHA256: mt.Content("1.8.2"), Reason: "1.8.2 yanked: data loss on ext4"}},
		Attachments: []manifest.Attachment{{Name: "sbom.cdx.json", MediaType: "application/vnd.cyclonedx+json", Length: 48211, SHA256: mt.Content("sbom")}},
		Artifacts:   []manifest.Artifact{a, b},
	}
}

func TestDraftRoundTrip(t *testing.T) {
	f := mt.New(t)
	m := full(f)
	payload, err := manifest.Draft(m, f.Now)
	if err != nil {
		t.Fatal(err)
	}
	back, err := manifest.ReadManifestDraft(payload)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, back); d != "" {
		t.Error(d)
	}
	again, err := manifest.Draft(back, f.Now)
	if err != nil || !bytes.Equal(payload, again) {
		t.Errorf("a draft that was read is drafted otherwise: %v\n%s", err, cmp.Diff(string(payload), string(again)))
	}
	text := string(payload)
	if !strings.HasPrefix(text, "{\n  \"repo\": \"sha256:") || !strings.HasSuffix(text, "\n}\n") || strings.Contains(text, "\r") {
		t.Errorf("not the form people review:\n%s", text)
	}
	if !strings.Contains(text, `<ext4> & more.\nReally.`) {
		t.Error("the notes are not readable")
	}
	if v := take(t, f.Trust(), mt.Stable, f.Sign(manifest.TypeManifest, payload, "release-1", "release-2")); cmp.Diff(m, v.Manifest) != "" {
		t.Error(cmp.Diff(m, v.Manifest))
	}
}

// TestDraftRefuses: what only a mistake would sign.
func TestDraftRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(f *mt.Fleet, m *manifest.Manifest)
		want   fault.Code
	}{
		{"dated-in-the-future", func(f *mt.Fleet, m *manifest.Manifest) { m.Issued = f.Now.Add(10*time.Minute + time.Second) }, fault.Policy},
		{"expires-before-issued", func(f *mt.Fleet, m *manifest.Manifest) { m.Expires = m.Issued }, fault.Malformed},
		{"out-of-date-already", func(f *mt.Fleet, m *manifest.Manifest) {
			m.Issued, m.Expires = f.Now.Add(-time.Hour), f.Now
		}, fault.Expired},
		{"no-fleet", func(f *mt.Fleet, m *manifest.Manifest) { m.Repo = manifest.Digest{} }, fault.WrongTarget},
		{"no-epoch", func(f *mt.Fleet, m *manifest.Manifest) { m.Epoch = 0 }, fault.Malformed},
		{"no-sequence", func(f *mt.Fleet, m *manifest.Manifest) { m.Sequence = 0 }, fault.Malformed},
		{"sequence-beyond-2-53", func(f *mt.Fleet, m *manifest.Manifest) { m.Sequence = 1<<53 + 1 }, fault.Malformed},
		{"no-version", func(f *mt.Fleet, m *manifest.Manifest) { m.Release.Version = "" }, fault.Malformed},
		{"no-artifacts", func(f *mt.Fleet, m *manifest.Manifest) { m.Artifacts = nil }, fault.Malformed},
		{"no-digest", func(f *mt.Fleet, m *manifest.Manifest) {
			m.Artifacts[0].SHA256, m.Artifacts[0].Payloads[0].SHA256 = manifest.Digest{}, manifest.Digest{}
		}, fault.Malformed},
		{"app-that-is-no-name", func(f *mt.Fleet, m *manifest.Manifest) { m.App = "Acme" }, fault.Malformed},
		{"artifact-that-leads-elsewhere", func(f *mt.Fleet, m *manifest.Manifest) { m.Artifacts[0].Name = "../acme" }, fault.UnsafePath},
		{"setuid", func(f *mt.Fleet, m *manifest.Manifest) { m.Artifacts[0].Mode = "4755" }, fault.Policy},
		{"two-artifacts-for-a-platform", func(f *mt.Fleet, m *manifest.Manifest) { m.Artifacts = append(m.Artifacts, m.Artifacts[0]) }, fault.AmbiguousArtifact},
		{"payload-nobody-understands", func(f *mt.Fleet, m *manifest.Manifest) { m.Artifacts[0].Payloads[0].Codec = "zstd" }, fault.NoArtifact},
		{"offers-what-it-blocks", func(f *mt.Fleet, m *manifest.Manifest) {
			m.Blocked = append(m.Blocked, manifest.Blocked{SHA256: m.Artifacts[1].SHA256})
		}, fault.Blocked},
		{"attachments-with-one-name", func(f *mt.Fleet, m *manifest.Manifest) { m.Attachments = append(m.Attachments, m.Attachments[0]) }, fault.Malformed},
		{"critical-that-is-unknown", func(f *mt.Fleet, m *manifest.Manifest) { m.Critical = []string{"rollout.gate2"} }, fault.AgentTooOld},
		{"min-agent-that-is-no-version", func(f *mt.Fleet, m *manifest.Manifest) { m.MinAgent = "1" }, fault.Malformed},
		{"notes-with-an-escape-sequence", func(f *mt.Fleet, m *manifest.Manifest) { m.Release.Notes = "\x1b]0;x" }, fault.Malformed},
		{"notes-with-bad-utf8", func(f *mt.Fleet, m *manifest.Manifest) { m.Release.Notes = strings.Repeat("\xff", 2000) }, fault.Malformed},
		{"wave-with-fractional-seconds", func(f *mt.Fleet, m *manifest.Manifest) { m.Rollout.Waves[2].After += time.Millisecond }, fault.Malformed},
		{"no-room-for-signatures", func(f *mt.Fleet, m *manifest.Manifest) {
			for range 256 {
				a := m.Artifacts[0]
				for range 15 {
					a.Payloads = append(a.Payloads, a.Payloads[0])
				}
				m.Artifacts = append(m.Artifacts, a)
			}
			m.Artifacts = m.Artifacts[:256]
		}, fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			m := full(f)
			r.change(f, m)
			payload, err := manifest.Draft(m, f.Now)
			if got := fault.CodeOf(err); got != r.want || payload != nil {
				t.Errorf("got %v and %d bytes, want %s", err, len(payload), r.want)
			}
		})
	}
}

// TestReview is what a signer's machine refuses, whoever asks it to sign.
func TestReview(t *testing.T) {
	rows := []struct {
		name   string
		change func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest)
		want   fault.Code
	}{
		{"good", func(*mt.Fleet, *manifest.Review, *manifest.Manifest) {}, fault.OK},
		{"first-release", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Prev, m.Sequence = nil, 1 }, fault.OK},
		{"first-release-with-a-jump", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Prev = nil }, fault.Policy},
		{"sequence-jump", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Sequence++ }, fault.Policy},
		{"sequence-jump-that-is-meant", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Sequence += 9; r.AllowJump = true }, fault.OK},
		{"same-sequence", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Sequence = 42 }, fault.Equivocation},
		{"lower-sequence", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Sequence, r.AllowJump = 41, true }, fault.Rollback},
		{"epoch-of-root-risen", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Root.Channels[0].Epoch = 2 }, fault.Rollback},
		{"epoch-root-does-not-have", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Epoch = 2 }, fault.RootBehind},
		{"first-of-a-new-epoch", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) {
			r.Root.Channels[0].Epoch, m.Epoch, m.Sequence = 2, 2, 1
		}, fault.OK},
		{"another-fleet", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Repo = manifest.Sum(nil) }, fault.WrongTarget},
		{"channel-root-does-not-have", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Channel = "beta" }, fault.ChannelGone},
		{"another-channel-than-the-one-before", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Prev.Channel = "nightly" }, fault.WrongTarget},
		{"expired-root", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Root.Expires = f.Now }, fault.RootExpired},
		{"valid-for-longer-than-root-allows", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Expires = m.Expires.Add(time.Second) }, fault.Policy},
		{"dated-in-the-future", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Now = m.Issued.Add(-11 * time.Minute) }, fault.Policy},
		{"out-of-date", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { r.Now = m.Expires }, fault.Expired},
		{"dated-before-the-one-before", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) {
			m.Issued = r.Prev.Issued.Add(-time.Second)
		}, fault.Policy},
		{"blocked-by-itself", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) {
			m.Blocked = append(m.Blocked, manifest.Blocked{SHA256: m.Artifacts[0].SHA256})
		}, fault.Blocked},
		{"blocked-before-and-let-slip", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) {
			r.Prev.Blocked = append(r.Prev.Blocked, manifest.Blocked{SHA256: m.Artifacts[0].SHA256})
			m.Blocked = nil
		}, fault.Blocked},
		{"version-regress", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Release.Version = "1.8.2" }, fault.Policy},
		{"version-regress-that-is-meant", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) {
			m.Release.Version, r.AllowRegress = "1.8.2", true
		}, fault.OK},
		{"versions-that-cannot-be-compared", func(f *mt.Fleet, r *manifest.Review, m *manifest.Manifest) { m.Release.Version = "nightly-a" }, fault.OK},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			prev, next := full(f), full(f)
			next.Sequence, next.Issued, next.Expires = 43, next.Issued.Add(time.Hour), next.Expires.Add(time.Hour)
			next.Release.Version = "1.8.4"
			f.Now = f.Now.Add(time.Hour)
			review := &manifest.Review{Root: f.Root, Repo: f.Pin(), Prev: prev, Now: f.Now}
			r.change(f, review, next)
			err := review.Manifest(next, f.Key("release-2").Public().ID())
			if got := fault.CodeOf(err); got != r.want {
				t.Errorf("got %v, want %s", err, r.want)
			}
		})
	}
	f := mt.New(t)
	m := full(f)
	m.Sequence = 1
	for name, want := range map[string]fault.Code{"ci-1": fault.Policy, "root-1": fault.Policy, "release-3": fault.OK} {
		err := manifest.Review{Root: f.Root, Repo: f.Pin(), Now: f.Now}.Manifest(m, f.Key(name).Public().ID())
		if got := fault.CodeOf(err); got != want {
			t.Errorf("%s as signer: %v, want %s", name, err, want)
		}
	}
}

func TestDraftRoot(t *testing.T) {
	f := mt.New(t)
	payload, err := manifest.DraftRoot(f.Root)
	if err != nil {
		t.Fatal(err)
	}
	back, err := manifest.ReadRootDraft(payload)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f.Root, back); d != "" {
		t.Error(d)
	}
	if manifest.Sum(payload) != f.Pin() {
		t.Error("one root is drafted in two ways")
	}
	rows := []struct {
		name   string
		change func(r *manifest.Root)
		want   fault.Code
	}{
		{"root-key-signs-releases", func(r *manifest.Root) { r.Channels[0].Release.KeyIDs[0] = r.Root.KeyIDs[0] }, fault.Policy},
		{"root-key-signs-beacons", func(r *manifest.Root) { r.Channels[0].Beacon.KeyIDs[0] = r.Root.KeyIDs[0] }, fault.Policy},
		{"beacon-key-signs-releases", func(r *manifest.Root) { r.Channels[0].Beacon.KeyIDs[0] = r.Channels[0].Release.KeyIDs[0] }, fault.Policy},
		{"expires-before-issued", func(r *manifest.Root) { r.Expires = r.Issued }, fault.Malformed},
		{"first-root-with-a-past", func(r *manifest.Root) { r.Prev = new(manifest.Sum(nil)) }, fault.RootChain},
		{"second-root-without", func(r *manifest.Root) { r.Version = 2 }, fault.Malformed},
		{"version-zero", func(r *manifest.Root) {
			r.Version, r.ID, r.Prev = 0, new(manifest.Sum(nil)), new(manifest.Sum(nil))
		}, fault.RootChain},
		{"no-validity", func(r *manifest.Root) { r.Channels[0].MaxValidity = 0 }, fault.Policy},
		{"beacon-without-stale-after", func(r *manifest.Root) { r.Channels[0].StaleAfter = 0 }, fault.Policy},
		{"threshold-nobody-meets", func(r *manifest.Root) { r.Root.Threshold = 4 }, fault.RootChain},
		{"key-not-filed", func(r *manifest.Root) { delete(r.Keys, r.Root.KeyIDs[0]) }, fault.BadKey},
		{"channel-twice", func(r *manifest.Root) { r.Channels = append(r.Channels, r.Channels[0]) }, fault.RootChain},
		{"fleet-that-is-no-name", func(r *manifest.Root) { r.Fleet = "Acme Inc." }, fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			r.change(f.Root)
			_, err := manifest.DraftRoot(f.Root)
			if got := fault.CodeOf(err); got != r.want {
				t.Errorf("got %v, want %s", err, r.want)
			}
		})
	}
}

func TestRootWarnings(t *testing.T) {
	f := mt.New(t)
	if w, err := manifest.CheckRoot(f.Root); err != nil || len(w) > 0 {
		t.Errorf("%v, warnings %q", err, w)
	}
	shared := f.Root.Channels[0].Release.KeyIDs[0]
	delete(f.Root.Keys, f.Root.Channels[1].Release.KeyIDs[0])
	f.Root.Channels[1].Release = manifest.RoleSpec{Threshold: 1, KeyIDs: []keys.ID{shared}}
	f.Role(f.Root, 1, "spare", "alice@laptop", "alice@token")
	w, err := manifest.CheckRoot(f.Root)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(w, "\n")
	for _, want := range []string{"acme/stable release and acme/nightly release", "in no role", "one person"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning says %q:\n%s", want, all)
		}
	}
}

func TestDraftBeacon(t *testing.T) {
	f := mt.New(t)
	b := manifest.Beacon{
		Repo: f.Pin(), App: "acme", Channel: "stable", Epoch: 1, Sequence: 42, Manifest: manifest.Sum(nil), Wave: 1, Hold: true,
		Reason: "crashes", Issued: f.Now, Expires: f.Now.Add(time.Hour),
	}
	if _, err := manifest.DraftBeacon(&b); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*manifest.Beacon){
		"wave-negative":     func(b *manifest.Beacon) { b.Wave = -1 },
		"expires-at-issued": func(b *manifest.Beacon) { b.Expires = b.Issued },
		"no-sequence":       func(b *manifest.Beacon) { b.Sequence = 0 },
		"no-name":           func(b *manifest.Beacon) { b.App = "" },
		"reason-too-long":   func(b *manifest.Beacon) { b.Reason = strings.Repeat("x", 257) },
	} {
		bad := b
		change(&bad)
		if out, err := manifest.DraftBeacon(&bad); fault.CodeOf(err) != fault.Malformed || out != nil {
			t.Errorf("%s: %v and %d bytes", name, err, len(out))
		}
	}
}
