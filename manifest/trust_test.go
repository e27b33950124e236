package manifest_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// TestExpiredWhetherNewOrHeld: a frozen source cannot keep what it serves alive.
func TestExpiredWhetherNewOrHeld(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	env := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, env)
	f.Now = f.Now.Add(validity)
	before := trust.Snapshot()

	_, _, err := begin(t, trust).Manifest(mt.Stable, env)
	refused(t, err, fault.Expired)
	refused(t, begin(t, trust).Authorize(mt.Stable, mt.Content("1.0.42")), fault.Expired)
	if v, ok := trust.Held(mt.Stable); !ok || v.Manifest.Sequence != 42 {
		t.Error("what is held is not held any more")
	}
	unchanged(t, before, trust)

	o := f.Options()
	o.AllowExpired = true
	once, _, err := manifest.Load(before, o)
	if err != nil {
		t.Fatal(err)
	}
	if v := take(t, once, mt.Stable, env); !v.Same {
		t.Error("not the same")
	}
	if err := begin(t, once).Authorize(mt.Stable, mt.Content("1.0.42")); err != nil {
		t.Error(err)
	}
	_, _, err = begin(t, once).Manifest(mt.Stable, f.Manifest(mt.Stable, 43, mt.SignedBy("release-1")))
	refused(t, err, fault.Threshold) // allowing expired allows nothing else
	f.Now = f.Now.AddDate(5, 0, 0)
	_, err = once.Begin()
	refused(t, err, fault.RootExpired)
}

// TestRecoveryFromFastForward: a stolen CI key signs the largest sequence there is.
func TestRecoveryFromFastForward(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	last := f.Manifest(mt.Nightly, 9007199254740991)
	take(t, trust, mt.Nightly, last)
	_, _, err := begin(t, trust).Manifest(mt.Nightly, f.Manifest(mt.Nightly, 42))
	refused(t, err, fault.Rollback)

	events := root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) {
		delete(r.Keys, r.Channels[1].Release.KeyIDs[0])
		r.Channels[1].Release, r.Channels[1].Epoch = f.Role(r, 1, "ci-2"), 2
	})))
	if !slices.Equal(codes(events), []fault.Code{fault.Threshold}) {
		t.Errorf("events %v", events)
	}
	if _, ok := trust.Held(mt.Nightly); ok {
		t.Error("the thief's manifest is still held")
	}
	refused(t, begin(t, trust).Authorize(mt.Nightly, mt.Content("1.0.9007199254740991")), fault.Threshold)
	if v := take(t, trust, mt.Nightly, f.Manifest(mt.Nightly, 1)); v.Manifest.Order() != (manifest.Order{Epoch: 2, Sequence: 1}) {
		t.Errorf("took %s", v.Manifest.Order())
	}
	_, _, err = begin(t, trust).Manifest(mt.Nightly, last)
	refused(t, err, fault.Threshold)
	_, _, err = begin(t, trust).Manifest(mt.Nightly, f.Manifest(mt.Nightly, 2, mt.Set("epoch", 1)))
	refused(t, err, fault.Rollback)
}

// TestEpochRisesWithTheSameKeys: what the same keys signed before is void all the same.
func TestEpochRisesWithTheSameKeys(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	old := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, old)
	begin(t, trust).Beacon(mt.Stable, f.Beacon(old))
	events := root(t, trust, f.Rotate(epoch(2)))
	if !slices.Equal(codes(events), []fault.Code{fault.Rollback}) { // the beacon goes without a word
		t.Errorf("events %v", events)
	}
	s := trust.Snapshot()
	if len(s.Manifests)+len(s.Beacons) > 0 || !s.State.Channels[mt.Stable].LastBeacon.IsZero() {
		t.Errorf("documents of the old epoch are kept: %v", s.State.Channels)
	}
	if got := s.State.Channels[mt.Stable].Order(); got != (manifest.Order{Epoch: 1, Sequence: 42}) {
		t.Errorf("the floor is %s", got)
	}
	_, _, err := begin(t, trust).Manifest(mt.Stable, old)
	refused(t, err, fault.Rollback)
	refused(t, begin(t, trust).Authorize(mt.Stable, mt.Content("1.0.42")), fault.Rollback)
	take(t, trust, mt.Stable, f.Manifest(mt.Stable, 1))
}

// TestReleaseKeysReplaced: without a new epoch the order stays, and fresh signatures
// over the same payload bring the manifest back.
func TestReleaseKeysReplaced(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	env := f.Manifest(mt.Stable, 42)
	v := take(t, trust, mt.Stable, env)
	events := root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) {
		for _, id := range r.Channels[0].Release.KeyIDs {
			delete(r.Keys, id)
		}
		r.Channels[0].Release = f.Role(r, 2, "release-4", "release-5")
	})))
	if !slices.Equal(codes(events), []fault.Code{fault.Threshold}) {
		t.Errorf("events %v", events)
	}
	check := func(trust *manifest.Trust) {
		t.Helper()
		if _, ok := trust.Held(mt.Stable); ok {
			t.Error("held although nobody who counts has signed it")
		}
		st := trust.Snapshot().State.Channels[mt.Stable]
		if st.Order() != (manifest.Order{Epoch: 1, Sequence: 42}) || st.ManifestSHA256 != v.Hash {
			t.Errorf("the floor is %+v", st)
		}
		_, _, err := begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
		refused(t, err, fault.Rollback)
		_, _, err = begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 42, mt.Set("release.notes", "other")))
		refused(t, err, fault.Equivocation)
		_, _, err = begin(t, trust).Manifest(mt.Stable, env)
		refused(t, err, fault.Threshold)
	}
	check(trust)
	check(load(t, f, trust.Snapshot()))

	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	fresh := f.Sign(manifest.TypeManifest, e.Payload, "release-4", "release-5")
	if again := take(t, trust, mt.Stable, fresh); !again.Same || again.Hash != v.Hash {
		t.Errorf("got %+v", again)
	}
	if !bytes.Equal(trust.Snapshot().Manifests[mt.Stable], fresh) {
		t.Error("the envelope that verifies did not take the place of the one that does not")
	}
	// Other signatures over the same payload do not replace what verifies.
	take(t, trust, mt.Stable, f.Sign(manifest.TypeManifest, e.Payload, "release-5", "release-4", "release-1"))
	if !bytes.Equal(trust.Snapshot().Manifests[mt.Stable], fresh) {
		t.Error("an envelope that verifies was replaced")
	}
}

// TestOneReleaseKeyRevoked: who is named as signer still counts.
func TestOneReleaseKeyRevoked(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42, mt.SignedBy("release-1", "release-2", "release-3")))
	events := root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) {
		delete(r.Keys, r.Channels[0].Release.KeyIDs[0])
		r.Channels[0].Release = f.Role(r, 2, "release-2", "release-3")
	})))
	v, ok := trust.Held(mt.Stable)
	if !ok || len(events) > 0 {
		t.Fatalf("held %t, events %v", ok, events)
	}
	if want := f.Root.Channels[0].Release.KeyIDs; !slices.Equal(v.SignedBy, want) {
		t.Errorf("signed by %v, want %v", v.SignedBy, want)
	}
}

func TestChannelGone(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	env := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, env)
	spec := f.Root.Channels[0]
	events := root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels = r.Channels[1:] })))
	if !slices.Equal(codes(events), []fault.Code{fault.ChannelGone}) {
		t.Errorf("events %v", events)
	}
	_, _, err := begin(t, trust).Manifest(mt.Stable, env)
	refused(t, err, fault.ChannelGone)
	_, _, err = begin(t, trust).Manifest(mt.Stable, nil)
	refused(t, err, fault.ChannelGone)
	refused(t, begin(t, trust).Authorize(mt.Stable, mt.Content("1.0.42")), fault.ChannelGone)
	st := trust.Snapshot().State
	if st.LastEpochs[mt.Stable] != 1 || st.Channels[mt.Stable].Sequence != 42 {
		t.Errorf("a dropped channel is forgotten: %+v", st)
	}

	root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels = append(r.Channels, spec) })))
	_, _, err = begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
	refused(t, err, fault.Rollback)
	if v := take(t, trust, mt.Stable, env); !v.Same {
		t.Error("the channel came back in the same epoch without its floor")
	}
	if len(trust.Snapshot().State.LastEpochs) > 0 {
		t.Error("a channel that is back counts as dropped")
	}
}

// TestPolicyTightened: a root that allows less ends what lasts longer.
func TestPolicyTightened(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
	events := root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].MaxValidity = time.Hour })))
	if !slices.Equal(codes(events), []fault.Code{fault.Policy}) {
		t.Errorf("events %v", events)
	}
	refused(t, begin(t, trust).Authorize(mt.Stable, mt.Content("1.0.42")), fault.Policy)
}

// TestNewcomer is given a past before a compromise.
func TestNewcomer(t *testing.T) {
	f := mt.New(t)
	o := f.Options()
	o.MinSequence = map[manifest.Channel]manifest.Order{mt.Stable: {Epoch: 1, Sequence: 42}, mt.Nightly: {Epoch: 2, Sequence: 1}}
	trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
	refused(t, err, fault.Rollback)
	_, _, err = begin(t, trust).Manifest(mt.Nightly, f.Manifest(mt.Nightly, 41))
	refused(t, err, fault.RootBehind)
	if v := take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42)); v.Same {
		t.Error("the floor has no hash to be the same as")
	}
	// The floor holds against what is stored as well.
	low := f.Trust()
	take(t, low, mt.Stable, f.Manifest(mt.Stable, 41))
	raised, events, err := manifest.Load(low.Snapshot(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := raised.Held(mt.Stable); ok || !slices.Equal(codes(events), []fault.Code{fault.Rollback}) {
		t.Errorf("41 is held below the floor: %v", events)
	}
}

// TestAuthorize: what changed between the download and the rename.
func TestAuthorize(t *testing.T) {
	bytes43 := mt.Content("1.0.43")
	rows := []struct {
		name string
		then func(f *mt.Fleet, trust *manifest.Trust)
		ask  manifest.Digest
		want fault.Code
	}{
		{"nothing-changed", func(*mt.Fleet, *manifest.Trust) {}, bytes43, fault.OK},
		{"promoted-with-the-same-bytes", func(f *mt.Fleet, trust *manifest.Trust) {
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 44, mt.WithManifest(func(m *manifest.Manifest) {
				m.Artifacts[0] = mt.Artifact("acme", mt.Platform, 1<<20, bytes43)
			})))
		}, bytes43, fault.OK},
		{"blocked-by-the-next", func(f *mt.Fleet, trust *manifest.Trust) {
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 44, mt.WithManifest(func(m *manifest.Manifest) {
				m.Blocked = []manifest.Blocked{{SHA256: bytes43, Reason: "data loss"}}
			})))
		}, bytes43, fault.Blocked},
		{"replaced-by-the-next", func(f *mt.Fleet, trust *manifest.Trust) {
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 44))
		}, bytes43, fault.NoArtifact},
		{"another-hash", func(*mt.Fleet, *manifest.Trust) {}, mt.Content("planted"), fault.NoArtifact},
		{"zero-hash", func(*mt.Fleet, *manifest.Trust) {}, manifest.Digest{}, fault.NoArtifact},
		{"expired-meanwhile", func(f *mt.Fleet, _ *manifest.Trust) { f.Now = f.Now.Add(validity) }, bytes43, fault.Expired},
		{"epoch-risen", func(f *mt.Fleet, trust *manifest.Trust) { root(t, trust, f.Rotate(epoch(2))) }, bytes43, fault.Rollback},
		{"key-revoked", func(f *mt.Fleet, trust *manifest.Trust) {
			root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Release = f.Role(r, 2, "release-2", "release-3") })))
		}, bytes43, fault.Threshold},
		{"channel-dropped", func(f *mt.Fleet, trust *manifest.Trust) {
			root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels = nil })))
		}, bytes43, fault.ChannelGone},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 43))
			r.then(f, trust)
			for _, trust := range []*manifest.Trust{trust, load(t, f, trust.Snapshot())} { // from disk as well
				err := begin(t, trust).Authorize(mt.Stable, r.ask)
				if r.want == fault.OK {
					if err != nil {
						t.Error(err)
					}
					continue
				}
				if got := fault.CodeOf(err); got != r.want && !(got == fault.NotFound && trust.Snapshot().Manifests[mt.Stable] == nil) {
					t.Errorf("got %v, want %s", err, r.want)
				}
			}
		})
	}
	t.Run("nothing-trusted-yet", func(t *testing.T) {
		refused(t, begin(t, mt.New(t).Trust()).Authorize(mt.Stable, bytes43), fault.NotFound)
	})
}

func TestSelect(t *testing.T) {
	f := mt.New(t)
	v := take(t, f.Trust(), mt.Stable, f.Manifest(mt.Stable, 42, mt.WithManifest(func(m *manifest.Manifest) {
		add := func(os, arch, variant string, digest manifest.Digest) {
			m.Artifacts = append(m.Artifacts, mt.Artifact("acme", manifest.Platform{OS: os, Arch: arch, Variant: variant}, 1, digest))
		}
		add("linux", "amd64", "musl", mt.Content("musl"))
		add("linux", "arm64", "", mt.Content("arm"))
		add("windows", "amd64", "", mt.Content("bad"))
		add("darwin", "arm64", "", mt.Content("x"))
	}), mt.Set("artifacts.4.os", "linux"), mt.Set("blocked", []any{map[string]any{"sha256": mt.Content("bad").String()}})))
	rows := []struct {
		name, platform string
		want           fault.Code
	}{
		{"exact", "linux/amd64", fault.OK},
		{"variant", "linux/amd64/musl", fault.OK},
		{"unknown-variant", "linux/amd64/glibc", fault.NoArtifact},
		{"unknown-platform", "plan9/mips", fault.NoArtifact},
		{"two-builds", "linux/arm64", fault.AmbiguousArtifact},
		{"blocked", "windows/amd64", fault.Blocked},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, err := manifest.ParsePlatform(r.platform)
			if err != nil {
				t.Fatal(err)
			}
			a, err := v.Select(p)
			if r.want != fault.OK {
				refused(t, err, r.want)
				return
			}
			if err != nil || a.Platform() != p {
				t.Fatalf("got %v, %v", a, err)
			}
			if pay, ok := a.Usable(); !ok || pay.SHA256 != a.SHA256 {
				t.Error("its payload is not usable")
			}
		})
	}
}

// TestUnstampedBuild passes min_agent, and says so.
func TestUnstampedBuild(t *testing.T) {
	for version, want := range map[string][]fault.Code{
		"": {fault.AgentTooOld}, "0.0.0-dev": {fault.AgentTooOld}, "v0.0.0-dev": {fault.AgentTooOld}, "(devel)": {fault.AgentTooOld},
		"2.0.0": nil, "v2.0.0": nil, "2.1.0+dirty": nil,
	} {
		f := mt.New(t)
		o := f.Options()
		o.AgentVersion = version
		trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
		if err != nil {
			t.Fatal(err)
		}
		_, events, err := begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 42, mt.Set("min_agent", "2.0.0")))
		if d := cmp.Diff(want, codes(events)); err != nil || d != "" {
			t.Errorf("version %q: %v, %s", version, err, d)
		}
	}
}

// TestCopies: whoever changes what a Trust returned changes nothing it trusts.
func TestCopies(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	env := f.Manifest(mt.Stable, 42)
	mine := bytes.Clone(env)
	v := take(t, trust, mt.Stable, mine)
	clear(mine)
	v.Manifest.Artifacts[0].SHA256 = mt.Content("planted")
	v.Manifest.Expires = v.Manifest.Expires.AddDate(9, 0, 0)
	trust.Root().Channels[0].MaxValidity = 1 << 60
	trust.Root().Root.Threshold = 0
	clear(trust.Snapshot().Manifests[mt.Stable])
	clear(trust.Snapshot().Roots[0])

	if err := begin(t, trust).Authorize(mt.Stable, mt.Content("1.0.42")); err != nil {
		t.Error(err)
	}
	refused(t, begin(t, trust).Authorize(mt.Stable, mt.Content("planted")), fault.NoArtifact)
	if s := trust.Snapshot(); !bytes.Equal(s.Manifests[mt.Stable], env) || !bytes.Equal(s.Roots[0], f.Roots[0]) {
		t.Error("what is stored was changed from outside")
	}
}
