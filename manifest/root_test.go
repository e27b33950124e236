package manifest_test

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// identityKey is the line of the neutral point, under which one signature fits all, and
// the fingerprint it would have.
func identityKey() (id, line string) {
	var wire []byte
	for _, part := range []string{"ssh-ed25519", "\x01" + strings.Repeat("\x00", 31)} {
		wire = binary.BigEndian.AppendUint32(wire, uint32(len(part)))
		wire = append(wire, part...)
	}
	sum := manifest.Sum(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), "ssh-ed25519 " + base64.StdEncoding.EncodeToString(wire) + " identity"
}

// addKey files a line under an id, and in the root role too.
func addKey(id, line string) mt.Edit {
	return mt.Raw(func(doc map[string]any) {
		doc["keys"].(map[string]any)[id] = line
		root := doc["root"].(map[string]any)
		root["keyids"] = append(root["keyids"].([]any), id)
	})
}

// newRootKeys puts the root role into other hands.
func newRootKeys(f *mt.Fleet) mt.Edit {
	return mt.WithRoot(func(r *manifest.Root) {
		maps.DeleteFunc(r.Keys, func(id keys.ID, _ string) bool { return slices.Contains(r.Root.KeyIDs, id) })
		r.Root = f.Role(r, 2, "root-4", "root-5", "root-6")
	})
}

// TestRootAttacks offers each of these to a machine that trusts root 1.
func TestRootAttacks(t *testing.T) {
	rows := []struct {
		name  string
		offer func(f *mt.Fleet) []byte
		want  fault.Code
	}{
		{"signed-by-strangers", func(f *mt.Fleet) []byte { return f.NextRoot(mt.SignedBy("mallory-1", "mallory-2")) }, fault.Threshold},
		{"signed-by-release-keys", func(f *mt.Fleet) []byte { return f.NextRoot(mt.SignedBy("release-1", "release-2")) }, fault.Threshold},
		{"fewer-than-the-threshold", func(f *mt.Fleet) []byte { return f.NextRoot(mt.SignedBy("root-3")) }, fault.Threshold},
		{"new-keys-only", func(f *mt.Fleet) []byte { return f.NextRoot(newRootKeys(f), mt.SignedBy("root-4", "root-5", "root-6")) }, fault.Threshold},
		{"old-keys-only", func(f *mt.Fleet) []byte { return f.NextRoot(newRootKeys(f), mt.SignedBy("root-1", "root-2", "root-3")) }, fault.Threshold},
		{"one-old-one-new", func(f *mt.Fleet) []byte { return f.NextRoot(newRootKeys(f), mt.SignedBy("root-1", "root-4")) }, fault.Threshold},
		{"new-threshold-not-met", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.WithRoot(func(r *manifest.Root) { r.Root.Threshold = 3 }), mt.SignedBy("root-1", "root-2"))
		}, fault.Threshold},
		{"manifest-in-its-place", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 42) }, fault.WrongType},
		{"too-large", func(f *mt.Fleet) []byte { return pad(f.NextRoot(), manifest.MaxRoot+1) }, fault.TooLarge},
		{"empty", func(*mt.Fleet) []byte { return nil }, fault.Malformed},

		{"same-root-again", func(f *mt.Fleet) []byte { return f.Roots[0] }, fault.RootChain},
		{"skips-one", func(f *mt.Fleet) []byte { f.Rotate(); return f.NextRoot() }, fault.RootChain},
		{"wrong-prev", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("prev", manifest.Sum(nil).Prefixed())) }, fault.RootChain},
		{"wrong-id", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("id", manifest.Sum(nil).Prefixed())) }, fault.RootChain},
		{"version-zero", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("version", 0)) }, fault.RootChain},
		{"version-negative", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("version", -2)) }, fault.RootChain},
		{"without-id", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("id")) }, fault.Malformed},
		{"without-prev", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("prev")) }, fault.Malformed},
		{"id-without-prefix", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("id", f.Pin().String())) }, fault.Malformed},

		{"identity-point", func(f *mt.Fleet) []byte { return f.NextRoot(addKey(identityKey())) }, fault.BadKey},
		{"one-point-plain-and-sk", func(f *mt.Fleet) []byte {
			// The token has the curve point that keystest gives the name, as the plain key has.
			pub := keystest.NewSK(t, "root-3").Public()
			return f.NextRoot(addKey(string(pub.ID()), pub.String()))
		}, fault.BadKey},
		{"keyid-twice-in-a-role", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.Raw(func(doc map[string]any) {
				root := doc["root"].(map[string]any)
				root["keyids"] = append(root["keyids"].([]any), root["keyids"].([]any)[0])
			}))
		}, fault.BadKey},
		{"keyid-twice-in-a-release-role", func(f *mt.Fleet) []byte {
			id := f.Key("release-1").Public().ID()
			return f.NextRoot(mt.Set("channels.0.release.keyids", []keys.ID{id, id}))
		}, fault.BadKey},
		{"key-under-another-name", func(f *mt.Fleet) []byte { return f.NextRoot(addKey("SHA256:x", f.Key("root-9").Public().String())) }, fault.BadKey},
		{"key-undecodable", func(f *mt.Fleet) []byte { return f.NextRoot(addKey("SHA256:x", "ssh-ed25519 AAAA")) }, fault.BadKey},
		{"key-rsa", func(f *mt.Fleet) []byte { return f.NextRoot(addKey("SHA256:x", "ssh-rsa AAAAB3NzaC1yc2E=")) }, fault.BadKey},
		{"key-with-options", func(f *mt.Fleet) []byte {
			k := f.Key("root-9").Public()
			return f.NextRoot(addKey(string(k.ID()), "cert-authority "+k.String()))
		}, fault.BadKey},
		{"role-key-not-filed", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("root.keyids.0", "SHA256:x")) }, fault.BadKey},
		{"bad-key-before-bad-threshold", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.Set("root.threshold", 0), addKey("SHA256:x", "ssh-ed25519 AAAA"))
		}, fault.BadKey},

		{"threshold-zero", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("root.threshold", 0)) }, fault.RootChain},
		{"threshold-negative", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("root.threshold", -1)) }, fault.RootChain},
		{"threshold-above-keys", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("root.threshold", 4)) }, fault.RootChain},
		{"threshold-that-wraps", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.1.release.threshold", int64(1)<<32+1)) }, fault.RootChain},
		{"threshold-that-wraps-below", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.1.release.threshold", -(int64(1)<<32)+1)) }, fault.RootChain},
		{"release-role-without-keys", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.1.release.keyids", []string{})) }, fault.RootChain},
		{"channel-twice", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.1.channel", "stable")) }, fault.RootChain},
		{"epoch-zero", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.0.epoch", 0)) }, fault.RootChain},
		{"epoch-falls", func(f *mt.Fleet) []byte {
			f.Rotate(epoch(3))
			return f.NextRoot(epoch(2))
		}, fault.RootChain},
		{"epoch-of-a-dropped-channel-falls", func(f *mt.Fleet) []byte {
			f.Rotate(epoch(3))
			f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels = r.Channels[1:] }))
			return f.NextRoot(mt.WithRoot(func(r *manifest.Root) {
				r.Channels = append(r.Channels, manifest.ChannelSpec{App: "acme", Channel: "stable", Epoch: 2,
					Release: f.Role(r, 1, "release-1"), MaxValidity: time.Hour})
			}))
		}, fault.RootChain},
		{"structure-before-own-role", func(f *mt.Fleet) []byte {
			return f.NextRoot(newRootKeys(f), mt.Set("channels.0.epoch", 0), mt.SignedBy("root-1", "root-2"))
		}, fault.RootChain},
		{"own-role-before-chain", func(f *mt.Fleet) []byte {
			return f.NextRoot(newRootKeys(f), mt.Set("prev", manifest.Sum(nil).Prefixed()), mt.SignedBy("root-1", "root-2"))
		}, fault.Threshold},
		{"beacon-without-stale-after", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels.0.stale_after")) }, fault.Policy},

		{"missing-version", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("version")) }, fault.Malformed},
		{"missing-fleet", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("fleet")) }, fault.Malformed},
		{"missing-issued", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("issued")) }, fault.Malformed},
		{"missing-expires", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("expires")) }, fault.Malformed},
		{"missing-root", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("root")) }, fault.Malformed},
		{"missing-channels", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels")) }, fault.Malformed},
		{"missing-keys", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("keys")) }, fault.Malformed},
		{"missing-threshold", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("root.threshold")) }, fault.Malformed},
		{"missing-keyids", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels.0.release.keyids")) }, fault.Malformed},
		{"missing-epoch", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels.0.epoch")) }, fault.Malformed},
		{"missing-release", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels.0.release")) }, fault.Malformed},
		{"missing-max-validity", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Drop("channels.0.max_validity")) }, fault.Malformed},
		{"validity-in-days", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.0.max_validity", "90d")) }, fault.Malformed},
		{"channel-that-is-no-name", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("channels.0.channel", "../stable")) }, fault.Malformed},
		{"fleet-that-is-no-name", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("fleet", "Acme Inc.")) }, fault.Malformed},
		{"reason-too-long", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("reason", strings.Repeat("x", 257))) }, fault.Malformed},
		{"reason-with-newline", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Set("reason", "a\nb")) }, fault.Malformed},
		{"too-many-channels", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.Raw(func(doc map[string]any) {
				list := doc["channels"].([]any)
				for len(list) < 65 {
					list = append(list, list[1])
				}
				doc["channels"] = list
			}))
		}, fault.Malformed},
		{"too-many-keys-in-a-role", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.Set("root.keyids", slices.Repeat([]string{"SHA256:x"}, 65)))
		}, fault.Malformed},
		{"duplicate-member", func(f *mt.Fleet) []byte { return f.NextRoot(mt.Replace("{\n", "{\n\"Version\": 9,\n")) }, fault.Malformed},
		{"malformed-before-own-role", func(f *mt.Fleet) []byte {
			return f.NextRoot(newRootKeys(f), mt.Set("reason", "a\nb"), mt.SignedBy("root-1", "root-2"))
		}, fault.Malformed},
		{"trusted-role-before-malformed", func(f *mt.Fleet) []byte {
			return f.NextRoot(mt.Set("reason", "a\nb"), mt.SignedBy("root-1"))
		}, fault.Threshold},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			env := r.offer(f)
			trust := f.Trust() // with what offer has published on the way
			if r.name == "skips-one" {
				trust, _, _ = manifest.Pin(f.Roots[0], f.Pin(), f.Options())
			}
			take(t, trust, mt.Nightly, f.Manifest(mt.Nightly, 42))
			before := trust.Snapshot()
			events, err := trust.UpdateRoot(env)
			refused(t, err, r.want)
			unchanged(t, before, trust)
			if len(events) > 0 {
				t.Errorf("a refused root has effects: %v", events)
			}
		})
	}
}

func epoch(n int64) mt.Edit {
	return mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Epoch = n })
}

func TestPinAttacks(t *testing.T) {
	f := mt.New(t)
	payload := func(edit func(map[string]any)) []byte { return mt.EditPayload(t, f.Roots[0], manifest.TypeRoot, edit) }
	rows := []struct {
		name string
		env  []byte
		want fault.Code
	}{
		{"another-fleet", f.Sign(manifest.TypeRoot, payload(func(d map[string]any) { d["fleet"] = "other" }), "root-1", "root-2"), fault.PinMismatch},
		{"not-json", []byte("x"), fault.Malformed},
		{"manifest", f.Manifest(mt.Stable, 1), fault.WrongType},
		{"too-large", pad(f.NextRoot(), manifest.MaxRoot+1), fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			trust, _, err := manifest.Pin(r.env, f.Pin(), f.Options())
			if trust != nil {
				t.Error("trusts it all the same")
			}
			refused(t, err, r.want)
		})
	}

	// The pin is of these very bytes: what is pinned must be a first root all the same.
	pinned := []struct {
		name    string
		payload []byte
		signers []string
		want    fault.Code
	}{
		{"signed-by-one", payload(func(map[string]any) {}), []string{"root-1"}, fault.Threshold},
		{"signed-by-strangers", payload(func(map[string]any) {}), []string{"mallory-1", "mallory-2"}, fault.Threshold},
		{"with-an-id", payload(func(d map[string]any) { d["id"] = f.Pin().Prefixed() }), []string{"root-1", "root-2"}, fault.RootChain},
		{"with-a-prev", payload(func(d map[string]any) { d["prev"] = f.Pin().Prefixed() }), []string{"root-1", "root-2"}, fault.RootChain},
		{"second-version", payload(func(d map[string]any) {
			d["version"], d["id"], d["prev"] = 2, f.Pin().Prefixed(), f.Pin().Prefixed()
		}), []string{"root-1", "root-2"}, fault.RootChain},
		{"second-version-without-id", payload(func(d map[string]any) { d["version"] = 2 }), []string{"root-1", "root-2"}, fault.Malformed},
		{"role-threshold-zero", payload(func(d map[string]any) { d["root"].(map[string]any)["threshold"] = 0 }), []string{"root-1", "root-2"}, fault.RootChain},
	}
	for _, r := range pinned {
		t.Run("pinned-"+r.name, func(t *testing.T) {
			_, _, err := manifest.Pin(f.Sign(manifest.TypeRoot, r.payload, r.signers...), manifest.Sum(r.payload), f.Options())
			refused(t, err, r.want)
		})
	}
}

// TestRootsAccepted: what looks odd in a root and must be taken.
func TestRootsAccepted(t *testing.T) {
	rows := []struct {
		name string
		edit func(f *mt.Fleet) mt.Edit
	}{
		{"same-keys", func(*mt.Fleet) mt.Edit { return mt.Set("reason", "renewed") }},
		{"all-keys-replaced-at-once", newRootKeys},
		{"token-among-the-root-keys", func(f *mt.Fleet) mt.Edit {
			return mt.WithRoot(func(r *manifest.Root) {
				delete(r.Keys, r.Root.KeyIDs[2])
				r.Root = f.Role(r, 2, "sk-alice", "root-1", "root-2")
			})
		}},
		{"expired-in-the-middle-of-the-chain", func(*mt.Fleet) mt.Edit {
			return mt.WithRoot(func(r *manifest.Root) { r.Issued, r.Expires = mt.Start, mt.Start.Add(time.Minute) })
		}},
		{"overlapping-roles", func(f *mt.Fleet) mt.Edit {
			return mt.Set("channels.1.release.keyids.0", string(f.Key("root-1").Public().ID()))
		}},
		{"no-channels", func(*mt.Fleet) mt.Edit { return mt.WithRoot(func(r *manifest.Root) { r.Channels = nil }) }},
		{"unknown-members", func(*mt.Fleet) mt.Edit { return mt.Set("root.note", "x") }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			env := f.NextRoot(r.edit(f))
			if _, err := trust.UpdateRoot(env); err != nil {
				t.Fatal(err)
			}
			if trust.RootVersion() != 2 || trust.Root().Version != 2 {
				t.Errorf("trusts root %d", trust.RootVersion())
			}
			s := trust.Snapshot()
			if d := cmp.Diff([][]byte{f.Roots[0], env}, s.Roots); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestRootGates: what Begin says of a root, which UpdateRoot does not ask.
func TestRootGates(t *testing.T) {
	f := mt.New(t)
	t.Run("below-min-root", func(t *testing.T) {
		o := f.Options()
		o.MinRoot = 2
		trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trust.Begin()
		refused(t, err, fault.RootBehind)
		if _, err := trust.UpdateRoot(f.NextRoot()); err != nil {
			t.Fatal(err)
		}
		begin(t, trust)
	})
	t.Run("expired", func(t *testing.T) {
		trust := f.Trust()
		f := *f
		f.Now = trust.Root().Expires
		late, _, _ := manifest.Load(trust.Snapshot(), f.Options())
		_, err := late.Begin()
		refused(t, err, fault.RootExpired)
		if _, err := late.UpdateRoot(f.NextRoot(mt.WithRoot(func(r *manifest.Root) { r.Expires = r.Expires.AddDate(1, 0, 0) }))); err != nil {
			t.Fatal(err)
		}
		begin(t, late)
	})
	t.Run("expired-by-the-build-time", func(t *testing.T) {
		o := f.Options()
		o.Build = mt.Start.AddDate(3, 0, 0)
		trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trust.Begin()
		refused(t, err, fault.RootExpired)
	})
	t.Run("root-replaced-within-a-cycle", func(t *testing.T) {
		trust := f.Trust()
		c := begin(t, trust)
		env := f.Manifest(mt.Stable, 42)
		old := mt.WithRoot(func(r *manifest.Root) { r.Expires = f.Now.Add(-time.Minute) })
		if _, err := trust.UpdateRoot(f.NextRoot(old)); err != nil {
			t.Fatal(err)
		}
		_, _, err := c.Manifest(mt.Stable, env)
		refused(t, err, fault.RootExpired)
		refused(t, c.Authorize(mt.Stable, mt.Content("1.0.42")), fault.RootExpired)
	})
}

// TestFromRoot: a root that a person vouches for opens documents and follows its chain,
// and cannot become a machine's state.
func TestFromRoot(t *testing.T) {
	f := mt.New(t)
	f.Rotate(newRootKeys(f))
	m := f.Manifest(mt.Stable, 42)
	trust, err := manifest.FromRoot(f.Roots[1], f.Options())
	if err != nil {
		t.Fatal(err)
	}
	if trust.Repo() != f.Pin() || trust.RootVersion() != 2 {
		t.Errorf("repo %s, root %d", trust.Repo(), trust.RootVersion())
	}
	take(t, trust, mt.Stable, m)
	if _, _, err := manifest.Load(trust.Snapshot(), f.Options()); fault.CodeOf(err) != fault.RootBehind {
		t.Errorf("its snapshot loads: %v", err)
	}
	root(t, trust, f.Rotate())
	_, err = trust.UpdateRoot(f.Roots[1])
	refused(t, err, fault.RootChain)

	if first, err := manifest.FromRoot(f.Roots[0], f.Options()); err != nil || first.Repo() != f.Pin() {
		t.Errorf("root 1: %v", err)
	}
	for name, env := range map[string][]byte{
		"signed-by-one":     f.NextRoot(mt.SignedBy("root-4")),
		"signed-by-the-old": f.NextRoot(mt.SignedBy("root-1", "root-2")),
	} {
		if _, err := manifest.FromRoot(env, f.Options()); fault.CodeOf(err) != fault.Threshold {
			t.Errorf("%s: %v", name, err)
		}
	}
}
