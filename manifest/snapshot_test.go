package manifest_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// lived returns a fleet and a machine that has seen two roots, 42 with a beacon that
// holds it, and a channel that was dropped.
func lived(t *testing.T) (*mt.Fleet, *manifest.Trust) {
	t.Helper()
	f := mt.New(t)
	trust := f.Trust()
	take(t, trust, mt.Nightly, f.Manifest(mt.Nightly, 7))
	root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels = r.Channels[:1] })))
	m := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, m)
	begin(t, trust).Beacon(mt.Stable, f.Beacon(m, mt.Set("hold", true)))
	return f, trust
}

func TestLoadGivesBackEverything(t *testing.T) {
	f, trust := lived(t)
	s := trust.Snapshot()
	again, events, err := manifest.Load(s, f.Options())
	if err != nil || len(events) > 0 {
		t.Fatalf("%v, events %v", err, events)
	}
	if d := cmp.Diff(s, again.Snapshot()); d != "" {
		t.Error(d)
	}
	v, ok := again.Held(mt.Stable)
	if !ok || !v.Same || v.Manifest.Sequence != 42 || len(v.SignedBy) != 2 {
		t.Errorf("held is %+v", v)
	}
	if again.Repo() != f.Pin() || again.RootVersion() != 2 {
		t.Errorf("repo %s, root %d", again.Repo(), again.RootVersion())
	}
	if b := begin(t, again).Brake(mt.Stable); b.Freshness != manifest.FreshCurrent || !b.Hold {
		t.Errorf("the beacon says %s", b)
	}
}

// TestStateForm is the trust part of state.json, which a later version must still read.
func TestStateForm(t *testing.T) {
	f, trust := lived(t)
	o := f.Options()
	o.TOFU = true
	again, _, err := manifest.Load(trust.Snapshot(), o)
	if err != nil {
		t.Fatal(err)
	}
	st := again.Snapshot().State
	got, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	m42 := st.Channels[mt.Stable].ManifestSHA256.String()
	m7 := st.Channels[mt.Nightly].ManifestSHA256.String()
	want := `{
 "v": 1,
 "repo": "` + f.Pin().Prefixed() + `",
 "tofu": true,
 "root_version": 2,
 "root_sha256": "` + st.RootSHA256.String() + `",
 "channels": {
  "acme/nightly": {
   "epoch": 1,
   "sequence": 7,
   "manifest_sha256": "` + m7 + `"
  },
  "acme/stable": {
   "epoch": 1,
   "sequence": 42,
   "manifest_sha256": "` + m42 + `",
   "last_beacon": "2026-10-12T16:00:00Z",
   "held": [
    "` + mt.Content("1.0.42").String() + `"
   ]
  }
 },
 "last_epochs": {
  "acme/nightly": 1
 }
}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	var read manifest.State
	if err := json.Unmarshal(got, &read); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(st, read); d != "" {
		t.Error(d)
	}
	// The agent puts its own members beside these.
	whole, err := json.Marshal(struct {
		manifest.State
		Counters map[string]int64 `json:"counters"`
	}{st, map[string]int64{"report": 1873}})
	if err != nil || !bytes.Contains(whole, []byte(`"counters":{"report":1873}`)) || !bytes.Contains(whole, []byte(`"last_epochs"`)) {
		t.Errorf("embedded: %s, %v", whole, err)
	}
}

// TestLoadOfDamage changes what is stored. Whatever is damaged is dropped; no order
// falls, and nothing unverified is held.
func TestLoadOfDamage(t *testing.T) {
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		i := bytes.Index(b, []byte(`"payload": "`)) + 200
		b[i] ^= 1
		return b
	}
	rows := []struct {
		name   string
		damage func(f *mt.Fleet, s *manifest.Snapshot)
		want   []fault.Code // of the events
		held   bool
		begin  fault.Code
	}{
		{"manifest-byte-flipped", func(f *mt.Fleet, s *manifest.Snapshot) { s.Manifests[mt.Stable] = flip(s.Manifests[mt.Stable]) },
			[]fault.Code{fault.Threshold}, false, fault.OK},
		{"manifest-cut-short", func(f *mt.Fleet, s *manifest.Snapshot) { s.Manifests[mt.Stable] = s.Manifests[mt.Stable][:999] },
			[]fault.Code{fault.Malformed}, false, fault.OK},
		{"manifest-empty", func(f *mt.Fleet, s *manifest.Snapshot) { s.Manifests[mt.Stable] = []byte{} },
			[]fault.Code{fault.Malformed}, false, fault.OK},
		{"manifest-gone", func(f *mt.Fleet, s *manifest.Snapshot) { s.Manifests = nil }, nil, false, fault.OK},
		{"older-manifest-put-back", func(f *mt.Fleet, s *manifest.Snapshot) { s.Manifests[mt.Stable] = f.Manifest(mt.Stable, 41) },
			[]fault.Code{fault.Rollback}, false, fault.OK},
		{"forked-manifest-put-there", func(f *mt.Fleet, s *manifest.Snapshot) {
			s.Manifests[mt.Stable] = f.Manifest(mt.Stable, 42, mt.Set("release.notes", "x"))
		}, []fault.Code{fault.Equivocation}, false, fault.OK},
		{"manifest-of-another-channel", func(f *mt.Fleet, s *manifest.Snapshot) {
			s.Manifests = map[manifest.Channel][]byte{mt.Nightly: s.Manifests[mt.Stable]}
		}, []fault.Code{fault.ChannelGone}, false, fault.OK},
		{"beacon-byte-flipped", func(f *mt.Fleet, s *manifest.Snapshot) { s.Beacons[mt.Stable] = flip(s.Beacons[mt.Stable]) },
			[]fault.Code{fault.Threshold}, true, fault.OK},
		{"older-beacon-put-back", func(f *mt.Fleet, s *manifest.Snapshot) {
			s.Beacons[mt.Stable] = f.Beacon(s.Manifests[mt.Stable], mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = b.Issued.Add(-time.Minute) }))
		}, []fault.Code{fault.Rollback}, true, fault.OK},
		{"root-byte-flipped", func(f *mt.Fleet, s *manifest.Snapshot) { s.Roots[1] = flip(s.Roots[1]) },
			[]fault.Code{fault.Threshold}, true, fault.RootBehind},
		{"root-gone", func(f *mt.Fleet, s *manifest.Snapshot) { s.Roots = s.Roots[:1] }, nil, true, fault.RootBehind},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f, trust := lived(t)
			s := trust.Snapshot()
			before := s.State
			r.damage(f, &s)
			again, events, err := manifest.Load(s, f.Options())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(r.want, codes(events)); d != "" {
				t.Errorf("events %v: %s", events, d)
			}
			if _, ok := again.Held(mt.Stable); ok != r.held {
				t.Errorf("held: %t", ok)
			}
			if !again.OnHold(mt.Stable, mt.Content("1.0.42")) {
				t.Error("the hold is lost")
			}
			if d := cmp.Diff(before, again.Snapshot().State); d != "" {
				t.Errorf("the state fell: %s", d)
			}
			c, err := again.Begin()
			if got := fault.CodeOf(err); got != r.begin {
				t.Fatalf("Begin gives %v, want %s", err, r.begin)
			}
			if err != nil { // the roots are fetched again, and all is well
				root(t, again, f.Roots[1])
				c = begin(t, again)
			}
			_, _, err = c.Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
			refused(t, err, fault.Rollback)
			if v := take(t, again, mt.Stable, trust.Snapshot().Manifests[mt.Stable]); !v.Same {
				t.Error("42 again is not the same")
			}
			if d := cmp.Diff(before, again.Snapshot().State); d != "" {
				t.Errorf("not as it was before the damage: %s", d)
			}
		})
	}
}

// TestLoadWithoutRoot: nothing can be trusted until root 1 is here again.
func TestLoadWithoutRoot(t *testing.T) {
	f, trust := lived(t)
	for name, roots := range map[string][][]byte{
		"no-roots":         nil,
		"spoilt":           {[]byte("x"), f.Roots[1]},
		"of-another-fleet": {f.Sign(manifest.TypeRoot, mt.EditPayload(t, f.Roots[0], manifest.TypeRoot, func(d map[string]any) { d["fleet"] = "x" }), "root-1", "root-2")},
		"second-as-first":  {f.Roots[1]},
	} {
		t.Run(name, func(t *testing.T) {
			s := trust.Snapshot()
			s.Roots = roots
			_, _, err := manifest.Load(s, f.Options())
			refused(t, err, fault.RootBehind)
		})
	}
	t.Run("newer-schema", func(t *testing.T) {
		s := trust.Snapshot()
		s.State.V = 2
		_, _, err := manifest.Load(s, f.Options())
		refused(t, err, fault.AgentTooOld)
	})
}

// TestLoadAfterACrash: documents are stored before the state that names them.
func TestLoadAfterACrash(t *testing.T) {
	f, trust := lived(t)
	before := trust.Snapshot()
	m43 := f.Manifest(mt.Stable, 43)
	take(t, trust, mt.Stable, m43)
	root(t, trust, f.Rotate(mt.Set("reason", "renewed")))
	crashed := trust.Snapshot()
	crashed.State = before.State
	again, events, err := manifest.Load(crashed, f.Options())
	if err != nil || len(events) > 0 {
		t.Fatalf("%v, events %v", err, events)
	}
	if d := cmp.Diff(trust.Snapshot().State, again.Snapshot().State); d != "" {
		t.Error(d)
	}
}

// TestAnotherRootOfAKnownVersion: the root keys fork the chain while it is fetched again.
func TestAnotherRootOfAKnownVersion(t *testing.T) {
	f, trust := lived(t)
	s := trust.Snapshot()
	s.Roots = s.Roots[:1]
	again := load(t, f, s)
	f.Roots = f.Roots[:1]
	_, err := again.UpdateRoot(f.NextRoot(mt.Set("reason", "forked")))
	refused(t, err, fault.RootChain)
}

// TestCatchingUpIsNoNews: roots on the way back to a known one have no second effect.
func TestCatchingUpIsNoNews(t *testing.T) {
	f := mt.New(t)
	trust := f.Trust()
	root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Beacon = nil })))
	root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) {
		b := f.Role(r, 1, "beacon-1")
		r.Channels[0].Beacon = &b
	})))
	m := f.Manifest(mt.Stable, 42)
	take(t, trust, mt.Stable, m)
	begin(t, trust).Beacon(mt.Stable, f.Beacon(m, mt.Set("hold", true)))
	s := trust.Snapshot()
	want := s.State
	s.Roots = s.Roots[:1]
	again := load(t, f, s)
	for _, env := range f.Roots[1:] {
		if d := cmp.Diff(want, again.Snapshot().State); d != "" {
			t.Errorf("at root %d: %s", again.RootVersion(), d)
		}
		if events := root(t, again, env); len(events) > 0 && again.RootVersion() == 3 {
			t.Errorf("events %v", events)
		}
	}
	if !again.OnHold(mt.Stable, mt.Content("1.0.42")) {
		t.Error("a root without a beacon, on the way, took back a later hold")
	}
	// An epoch the state remembers binds the roots that come after.
	s.State.LastEpochs = map[manifest.Channel]int64{mt.Nightly: 5}
	again = load(t, f, s)
	if _, err := again.UpdateRoot(f.Roots[1]); err != nil {
		t.Error(err) // below the known version: not held against it
	}
	_, err := again.UpdateRoot(f.Roots[2])
	refused(t, err, fault.RootChain)
}

func TestAnchor(t *testing.T) {
	f, trust := lived(t)
	st := trust.Snapshot().State
	anchor := st.Anchor()
	text, err := json.Marshal(anchor)
	if err != nil || strings.Contains(string(text), "held") || strings.Contains(string(text), "last_beacon") || strings.Contains(string(text), "root_sha256") {
		t.Errorf("the anchor is %s, %v", text, err)
	}

	t.Run("nothing-to-raise", func(t *testing.T) {
		got, events, err := st.Raise(anchor)
		if err != nil || len(events) > 0 {
			t.Errorf("%v, events %v", err, events)
		}
		if d := cmp.Diff(st, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("state-lost", func(t *testing.T) {
		got, events, err := (manifest.State{V: 1, Repo: st.Repo}).Raise(anchor)
		if err != nil || len(events) != 4 || slices.ContainsFunc(events, func(e manifest.Event) bool { return e.Code != fault.StateRepaired }) {
			t.Fatalf("%v, events %v", err, events)
		}
		s := trust.Snapshot()
		s.State = got
		again, _, err := manifest.Load(s, f.Options())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = begin(t, again).Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
		refused(t, err, fault.Rollback)
		if _, ok := again.Held(mt.Stable); !ok {
			t.Error("the stored manifest is the one the anchor knows, and is not held")
		}
	})
	t.Run("state-put-back", func(t *testing.T) {
		old := trust.Snapshot()
		take(t, trust, mt.Stable, f.Manifest(mt.Stable, 43))
		got, events, err := old.State.Raise(trust.Snapshot().State.Anchor())
		if err != nil || !slices.Equal(codes(events), []fault.Code{fault.StateRepaired}) {
			t.Fatalf("%v, events %v", err, events)
		}
		if c := got.Channels[mt.Stable]; c.Sequence != 43 || len(c.Held) != 1 {
			t.Errorf("raised to %+v", c)
		}
		if old.State.Channels[mt.Stable].Sequence != 42 {
			t.Error("Raise changed the state it was called on")
		}
		old.State = got
		again, events, err := manifest.Load(old, f.Options())
		if _, ok := again.Held(mt.Stable); ok || err != nil || !slices.Equal(codes(events), []fault.Code{fault.Rollback}) {
			t.Errorf("42 is held below the anchor: %v, events %v", err, events)
		}
	})
	t.Run("another-fleet", func(t *testing.T) {
		_, _, err := (manifest.State{Repo: manifest.FleetID(manifest.Sum(nil))}).Raise(anchor)
		refused(t, err, fault.PinMismatch)
	})
}

// TestFloorsTold: an agent that has lost its state tells what it knows from elsewhere,
// without a hash.
func TestFloorsTold(t *testing.T) {
	f := mt.New(t)
	s := manifest.Snapshot{Roots: f.Roots, State: manifest.State{V: 1, Repo: manifest.FleetID(f.Pin()),
		Channels: map[manifest.Channel]manifest.ChannelState{mt.Stable: {Epoch: 1, Sequence: 42}}}}
	trust := load(t, f, s)
	_, _, err := begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 41))
	refused(t, err, fault.Rollback)
	if v := take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42)); v.Same {
		t.Error("the same as what?")
	}
	_, _, err = begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 42, mt.Set("release.notes", "x")))
	refused(t, err, fault.Equivocation)
}
