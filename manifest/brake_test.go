package manifest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// gated is a plan of two waves, the second behind a gate.
func gated(m *manifest.Manifest) {
	m.Rollout = &manifest.Rollout{Salt: "b1946ac9", Start: m.Issued, Waves: []manifest.Wave{
		{Name: "canary", Rings: []string{"canary"}},
		{Name: "everyone", Percent: 100, Gate: manifest.GateBeacon},
	}}
}

func codes(events []manifest.Event) []fault.Code {
	var list []fault.Code
	for _, e := range events {
		list = append(list, e.Code)
	}
	return list
}

// TestBeaconAttacks offers each of these to a machine that holds acme/stable 42, with
// the codes of the events it must give. None changes anything.
func TestBeaconAttacks(t *testing.T) {
	rows := []struct {
		name  string
		offer func(f *mt.Fleet, m42 []byte) []byte
		want  fault.Code
	}{
		{"signed-by-a-stranger", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.SignedBy("mallory-1")) }, fault.Threshold},
		{"signed-by-release-keys", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.SignedBy("release-1", "release-2")) }, fault.Threshold},
		{"manifest-in-its-place", func(f *mt.Fleet, m []byte) []byte { return m }, fault.WrongType},
		{"too-large", func(f *mt.Fleet, m []byte) []byte { return pad(f.Beacon(m), manifest.MaxBeacon+1) }, fault.TooLarge},
		{"empty", func(f *mt.Fleet, m []byte) []byte { return []byte{} }, fault.Malformed},
		{"another-fleet", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("repo", manifest.Sum(nil).Prefixed())) }, fault.WrongTarget},
		{"another-channel", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("channel", "nightly")) }, fault.WrongTarget},
		{"older-epoch", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("epoch", 0)) }, fault.Malformed},
		{"epoch-above-root", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("epoch", 2)) }, fault.RootBehind},
		{"without-wave", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Drop("wave")) }, fault.Malformed},
		{"without-hold", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Drop("hold")) }, fault.Malformed},
		{"without-manifest", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Drop("manifest")) }, fault.Malformed},
		{"manifest-without-prefix", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("manifest", manifest.Sum(nil).String())) }, fault.Malformed},
		{"issued-after-expires", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.Set("issued", "2026-10-14T06:00:00Z"), mt.Set("expires", "2026-10-14T06:00:00Z"))
		}, fault.Malformed},
		{"valid-for-too-long", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) { b.Expires = b.Issued.Add(48*time.Hour + time.Second) }))
		}, fault.Policy},
		{"dated-over-a-day-ahead", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) {
				b.Issued = f.Now.Add(24*time.Hour + time.Second)
				b.Expires = b.Issued.Add(time.Hour)
			}))
		}, fault.ClockSkew},
		{"expired", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) { b.Issued, b.Expires = f.Now.Add(-time.Minute), f.Now }))
		}, fault.Expired},
		{"older-than-the-last", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = f.Now.Add(-time.Hour - time.Second) }))
		}, fault.Rollback},
		{"as-old-as-the-last-and-other", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) { b.Issued, b.Reason = f.Now.Add(-time.Hour), "other" }))
		}, fault.Rollback},
		{"names-an-older-manifest", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(f.Manifest(mt.Stable, 41)) }, fault.Rollback},
		{"names-another-manifest-of-that-number", func(f *mt.Fleet, m []byte) []byte {
			return f.Beacon(m, mt.Set("manifest", manifest.Sum(nil).Prefixed()))
		}, fault.Equivocation},
		{"wave-beyond-the-plan", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("wave", 3)) }, fault.Policy},
		{"wave-negative", func(f *mt.Fleet, m []byte) []byte { return f.Beacon(m, mt.Set("wave", -1)) }, fault.Policy},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			m42 := f.Manifest(mt.Stable, 42, mt.WithManifest(gated))
			take(t, trust, mt.Stable, m42)
			good := f.Beacon(m42, mt.WithBeacon(func(b *manifest.Beacon) { b.Issued, b.Wave = f.Now.Add(-time.Hour), 2 }))
			c := begin(t, trust)
			if fresh, events := c.Beacon(mt.Stable, good); fresh != manifest.FreshCurrent || len(events) > 0 {
				t.Fatalf("the good beacon gives %s and %v", fresh, events)
			}
			before := trust.Snapshot()
			c = begin(t, trust)
			fresh, events := c.Beacon(mt.Stable, r.offer(f, m42))
			if d := cmp.Diff([]fault.Code{r.want}, codes(events)); d != "" {
				t.Errorf("events %v: %s", events, d)
			}
			if fresh != manifest.FreshCurrent || c.Brake(mt.Stable).Gate() != 2 {
				t.Errorf("the stored beacon speaks no longer: %s", fresh)
			}
			unchanged(t, before, trust)
		})
	}
}

func TestFreshness(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	m42, m43 := f.Manifest(mt.Stable, 42), f.Manifest(mt.Stable, 43)
	expect := func(want manifest.Freshness, events int) func(manifest.Freshness, []manifest.Event) {
		return func(got manifest.Freshness, list []manifest.Event) {
			t.Helper()
			if got != want || len(list) != events {
				t.Fatalf("freshness %s with events %v, want %s and %d", got, list, want, events)
			}
		}
	}
	expect(manifest.FreshNone, 0)(begin(t, trust).Beacon(mt.Nightly, nil))
	expect(manifest.FreshNone, 0)(begin(t, trust).Beacon(manifest.Channel{App: "x", Name: "y"}, nil))
	expect(manifest.FreshStale, 0)(begin(t, trust).Beacon(mt.Stable, nil))
	expect(manifest.FreshBehind, 0)(begin(t, trust).Beacon(mt.Stable, f.Beacon(m42))) // nothing held yet
	take(t, trust, mt.Stable, m42)
	expect(manifest.FreshCurrent, 0)(begin(t, trust).Beacon(mt.Stable, nil)) // the stored one names it
	expect(manifest.FreshCurrent, 0)(begin(t, trust).Beacon(mt.Stable, f.Beacon(m42)))

	f.Now = f.Now.Add(time.Hour)
	b43 := f.Beacon(m43)
	expect(manifest.FreshBehind, 0)(begin(t, trust).Beacon(mt.Stable, b43))
	take(t, trust, mt.Stable, m43)
	expect(manifest.FreshCurrent, 0)(begin(t, trust).Beacon(mt.Stable, nil))
	expect(manifest.FreshCurrent, 1)(begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, mt.WithBeacon(func(b *manifest.Beacon) { b.Reason = "replayed" }))))

	f.Now = f.Now.Add(48 * time.Hour)
	expect(manifest.FreshStale, 0)(begin(t, trust).Beacon(mt.Stable, nil))
	if b, ok := trust.LastBeacon(mt.Stable); !ok || b.Sequence != 43 {
		t.Errorf("the last beacon is %+v", b)
	}
	if _, ok := trust.LastBeacon(mt.Nightly); ok {
		t.Error("a channel without a beacon has a last one")
	}
	expect(manifest.FreshStale, 0)(begin(t, trust).Beacon(mt.Stable, b43)) // again, and expired: no failure
	expect(manifest.FreshCurrent, 0)(begin(t, trust).Beacon(mt.Stable, f.Beacon(m43)))
}

// TestBeaconForAForkedManifest: a beacon came first, then another manifest of its number.
func TestBeaconForAForkedManifest(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	other := f.Manifest(mt.Stable, 42, mt.Set("release.notes", "other"))
	begin(t, trust).Beacon(mt.Stable, f.Beacon(other, mt.Set("wave", 0)))
	take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
	fresh, events := begin(t, trust).Beacon(mt.Stable, nil)
	if fresh != manifest.FreshStale || !slices.Equal(codes(events), []fault.Code{fault.Equivocation}) {
		t.Errorf("got %s and %v", fresh, events)
	}
}

// TestBeaconDoesNotMoveTime: the online key must not make documents expire.
func TestBeaconDoesNotMoveTime(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	m := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, m)
	before, _ := begin(t, trust).Now(mt.Stable)
	begin(t, trust).Beacon(mt.Stable, f.Beacon(m, mt.WithBeacon(func(b *manifest.Beacon) {
		b.Issued = f.Now.Add(23 * time.Hour)
		b.Expires = b.Issued.Add(time.Hour)
	})))
	if now, _ := begin(t, trust).Now(mt.Stable); !now.Equal(before) {
		t.Errorf("a beacon moved the time from %s to %s", before, now)
	}
}

// TestHolds follows a hold through what must and must not end it.
func TestHolds(t *testing.T) {
	const held, free = true, false
	bytes42, bytes44 := mt.Content("1.0.42"), mt.Content("1.0.44")
	hold := func(on bool) mt.Edit {
		return mt.WithBeacon(func(b *manifest.Beacon) { b.Hold, b.Reason = on, "crashes" })
	}
	sameBytes := mt.WithManifest(func(m *manifest.Manifest) {
		m.Artifacts = []manifest.Artifact{mt.Artifact("acme", mt.Platform, 1<<20, bytes42)}
	})
	// Each step works on a machine that holds 42 and has just seen a hold for it.
	rows := []struct {
		name  string
		steps func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust
		want  bool
	}{
		{"as-it-is", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust { return trust }, held},
		{"beacon-expired", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			f.Now = f.Now.Add(72 * time.Hour)
			begin(t, trust).Beacon(mt.Stable, nil)
			return trust
		}, held},
		{"restart", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			return load(t, f, trust.Snapshot())
		}, held},
		{"restart-without-the-beacon", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			s := trust.Snapshot()
			s.Beacons = nil
			return load(t, f, s)
		}, held},
		{"promote-with-the-same-bytes", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 43, sameBytes))
			return trust
		}, held},
		{"promote-and-silent-beacon-for-the-old", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 43, sameBytes))
			f.Now = f.Now.Add(time.Minute)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, hold(false)))
			return trust
		}, held},
		{"promote-and-resume", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			m43 := f.Manifest(mt.Stable, 43, sameBytes)
			take(t, trust, mt.Stable, m43)
			f.Now = f.Now.Add(time.Minute)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m43, hold(false)))
			return trust
		}, free},
		{"other-release-in-between", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			m43 := f.Manifest(mt.Stable, 43)
			take(t, trust, mt.Stable, m43)
			f.Now = f.Now.Add(time.Minute)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m43, hold(false)))
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 44, sameBytes))
			return trust
		}, held},
		{"resume", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			f.Now = f.Now.Add(time.Minute)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, hold(false)))
			return trust
		}, free},
		{"resume-by-an-expired-beacon", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			b := f.Beacon(m42, hold(false), mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = f.Now.Add(time.Minute) }))
			f.Now = f.Now.Add(72 * time.Hour)
			begin(t, trust).Beacon(mt.Stable, b)
			return trust
		}, held},
		{"resume-by-an-older-beacon", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, hold(false), mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = f.Now.Add(-time.Minute) })))
			return trust
		}, held},
		{"resume-with-a-wave-beyond-the-plan", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			f.Now = f.Now.Add(time.Minute)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, hold(false), mt.Set("wave", 9)))
			return trust
		}, held},
		{"beacon-key-replaced", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) {
				b := f.Role(r, 1, "beacon-2")
				r.Channels[0].Beacon = &b
			})))
			return trust
		}, held},
		{"epoch-risen", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			root(t, trust, f.Rotate(epoch(2)))
			return trust
		}, held},
		{"beacon-role-removed", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Beacon = nil })))
			return trust
		}, free},
		{"beacon-role-removed-while-the-state-was-behind", func(f *mt.Fleet, trust *manifest.Trust, m42 []byte) *manifest.Trust {
			s := trust.Snapshot()
			s.Roots = append(s.Roots, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Beacon = nil })))
			return load(t, f, s)
		}, free},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			m42 := f.Manifest(mt.Stable, 42)
			take(t, trust, mt.Stable, m42)
			begin(t, trust).Beacon(mt.Stable, f.Beacon(m42, hold(true)))
			if b := begin(t, trust).Brake(mt.Stable); !b.Hold || b.Gate() != 0 {
				t.Fatalf("the hold is not seen: %s", b)
			}
			trust = r.steps(f, trust, m42)
			if got := trust.OnHold(mt.Stable, bytes42); got != r.want {
				t.Errorf("on hold: %t, want %t", got, r.want)
			}
			if trust.OnHold(mt.Stable, bytes44) || trust.OnHold(mt.Nightly, bytes42) {
				t.Error("the hold covers other content or another channel")
			}
			again := load(t, f, trust.Snapshot())
			if got := again.OnHold(mt.Stable, bytes42); got != r.want {
				t.Errorf("on hold after a restart: %t, want %t", got, r.want)
			}
		})
	}
}

// TestHoldSeenBeforeItsManifest: the beacon for 43 came while 42 was held, and has
// expired when 43 comes.
func TestHoldSeenBeforeItsManifest(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	m43 := f.Manifest(mt.Stable, 43)
	take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
	begin(t, trust).Beacon(mt.Stable, f.Beacon(m43, mt.Set("hold", true)))
	f.Now = f.Now.Add(72 * time.Hour)
	take(t, trust, mt.Stable, m43)
	if !trust.OnHold(mt.Stable, mt.Content("1.0.43")) {
		t.Error("43 is free to be installed")
	}
}

func root(t *testing.T, trust *manifest.Trust, env []byte) []manifest.Event {
	t.Helper()
	events, err := trust.UpdateRoot(env)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func load(t *testing.T, f *mt.Fleet, s manifest.Snapshot) *manifest.Trust {
	t.Helper()
	trust, _, err := manifest.Load(s, f.Options())
	if err != nil {
		t.Fatal(err)
	}
	return trust
}
