package manifest_test

import (
	"bytes"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

func FuzzParseEnvelope(f *testing.F) {
	v := newVectors(f)
	for _, env := range v.good {
		f.Add(env)
	}
	f.Add([]byte(wrap(`"shoal.manifest.v1"`, `"e30="`, "["+sig+"]")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, typ := range []manifest.Type{manifest.TypeRoot, manifest.TypeManifest, manifest.TypeBeacon, manifest.TypeReport} {
			e, err := manifest.ParseEnvelope(b, typ)
			if err != nil {
				continue
			}
			again, err := manifest.ParseEnvelope(e.Marshal(), typ)
			if err != nil && fault.CodeOf(err) != fault.TooLarge {
				t.Fatalf("%q was read, written again it is not: %v", b, err)
			}
			if err == nil && (again.PayloadHash() != e.PayloadHash() || len(again.Signatures) != len(e.Signatures)) {
				t.Fatalf("%q changes on the way", b)
			}
		}
	})
}

// FuzzOffer offers any bytes as a manifest: what comes back was signed.
func FuzzOffer(f *testing.F) {
	v := newVectors(f)
	signed := map[manifest.Digest]bool{}
	for _, env := range v.good {
		f.Add(env)
		if e, err := manifest.ParseEnvelope(env, manifest.TypeManifest); err == nil {
			signed[e.PayloadHash()] = true
		}
	}
	stored, o := v.f.Trust().Snapshot(), v.f.Options()
	f.Fuzz(func(t *testing.T, b []byte) {
		trust, _, err := manifest.Load(stored, o)
		if err != nil {
			t.Fatal(err)
		}
		c, err := trust.Begin()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := c.Manifest(mt.Stable, b)
		if err == nil && !signed[got.Hash] {
			t.Fatalf("returned what nobody signed: %q", b)
		}
		c.Beacon(mt.Stable, b)
	})
}

func FuzzReadManifestDraft(f *testing.F) {
	fleet := mt.New(f)
	payload, err := manifest.Draft(full(fleet), fleet.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := manifest.ReadManifestDraft(b)
		if (m == nil) != (err != nil) {
			t.Fatalf("neither or both of %v and %v", m, err)
		}
		if err != nil {
			return
		}
		// Whatever is drafted of it reads as the same.
		out, err := manifest.Draft(m, m.Issued)
		if err != nil {
			return
		}
		back, err := manifest.ReadManifestDraft(out)
		if err != nil {
			t.Fatalf("drafted %q, which is not read: %v", out, err)
		}
		if again, err := manifest.Draft(back, m.Issued); err != nil || !bytes.Equal(out, again) {
			t.Fatalf("drafts differ:\n%s\n%s", out, again)
		}
	})
}

func FuzzReadRootDraft(f *testing.F) {
	fleet := mt.New(f)
	payload, err := manifest.DraftRoot(fleet.Root)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := manifest.ReadRootDraft(b)
		if (r == nil) != (err != nil) {
			t.Fatalf("neither or both of %v and %v", r, err)
		}
		if err != nil {
			return
		}
		if _, err := r.Role(r.Root); err != nil {
			t.Fatalf("a root that was read has no root role: %v", err)
		}
		if out, err := manifest.DraftRoot(r); err == nil {
			if _, err := manifest.ReadRootDraft(out); err != nil {
				t.Fatalf("drafted %q, which is not read: %v", out, err)
			}
		}
	})
}

// FuzzLoad loads what a disk may hold. It must not panic, hold only what was signed, and
// never let a floor fall.
func FuzzLoad(f *testing.F) {
	v := newVectors(f)
	f.Add(v.good["root-2.json"], v.good["manifest-42.json"], v.good["beacon.json"], int64(2), int64(1), int64(42), int64(0))
	f.Add([]byte{}, []byte("{}"), []byte("x"), int64(-1), int64(-5), int64(1)<<60, int64(7))
	signed := map[manifest.Digest]bool{}
	for _, env := range v.good {
		if e, err := manifest.ParseEnvelope(env, manifest.TypeManifest); err == nil {
			signed[e.PayloadHash()] = true
		}
	}
	pin, o := v.f.Pin(), v.f.Options()
	f.Fuzz(func(t *testing.T, root2, m, b []byte, rootVersion, epoch, sequence, lastEpoch int64) {
		s := manifest.Snapshot{
			Roots:     [][]byte{v.good["root-1.json"], root2},
			Manifests: map[manifest.Channel][]byte{mt.Stable: m, mt.Nightly: m},
			Beacons:   map[manifest.Channel][]byte{mt.Stable: b, mt.Nightly: b},
			State: manifest.State{V: 1, Repo: manifest.FleetID(pin), RootVersion: rootVersion,
				Channels:   map[manifest.Channel]manifest.ChannelState{mt.Stable: {Epoch: epoch, Sequence: sequence}},
				LastEpochs: map[manifest.Channel]int64{mt.Nightly: lastEpoch}},
		}
		trust, _, err := manifest.Load(s, o)
		if err != nil {
			t.Fatal(err)
		}
		if held, ok := trust.Held(mt.Stable); ok && !signed[held.Hash] {
			t.Fatal("holds what nobody signed")
		}
		after := trust.Snapshot().State
		if after.Channels[mt.Stable].Order().Compare(manifest.Order{Epoch: epoch, Sequence: sequence}) < 0 || after.RootVersion < rootVersion {
			t.Fatalf("a floor fell: %+v", after)
		}
		if _, _, err := manifest.Load(trust.Snapshot(), o); err != nil {
			t.Fatal(err)
		}
		if c, err := trust.Begin(); err == nil {
			c.Manifest(mt.Stable, m)
			c.Beacon(mt.Stable, b)
			c.Authorize(mt.Stable, mt.Content("1.8.3"))
		}
	})
}

func FuzzOpenReport(f *testing.F) {
	v := newVectors(f)
	f.Add(v.good["report.json"])
	pin := v.f.Pin()
	want := v.f.Key("agent-1").Public().ID()
	f.Fuzz(func(t *testing.T, b []byte) {
		r, key, err := manifest.OpenReport(b, pin)
		if err == nil && (r.Agent != want || key.ID() != want) {
			t.Fatalf("a report by %s, who never made one", r.Agent)
		}
	})
}
