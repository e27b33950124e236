package manifest_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// begin starts a cycle that must start.
func begin(t *testing.T, trust *manifest.Trust) *manifest.Cycle {
	t.Helper()
	c, err := trust.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// take has a manifest accepted that must be.
func take(t *testing.T, trust *manifest.Trust, ch manifest.Channel, env []byte) *manifest.Verified {
	t.Helper()
	v, _, err := begin(t, trust).Manifest(ch, env)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// refused checks code, and that a person is told what still works.
func refused(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Fatalf("got %s (%v), want %s", got, err, want)
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("%v is no *fault.Error", err)
	}
	if f.Message == "" || len(f.Detail) == 0 || len(f.Next) == 0 {
		t.Errorf("%q says neither what still works nor what to do: %q, %q", f.Message, f.Detail, f.Next)
	}
}

func unchanged(t *testing.T, before manifest.Snapshot, trust *manifest.Trust) {
	t.Helper()
	if after := trust.Snapshot(); !reflect.DeepEqual(before, after) {
		t.Errorf("a refusal changed what is trusted (-before +after):\n%s", cmp.Diff(before, after))
	}
}

const validity = 90 * 24 * time.Hour

func valid(m *manifest.Manifest, d time.Duration) { m.Expires = m.Issued.Add(d) }

// junk is an entry of an envelope that must not count and not spoil the others.
func junk(id string, sig []byte) mt.Edit {
	return mt.Envelope(func(e *manifest.Envelope) {
		e.Signatures = append([]keys.Entry{{KeyID: keys.ID(id), Sig: sig}}, e.Signatures...)
	})
}

// TestManifestAttacks offers each of these to a machine that holds acme/stable 42.
func TestManifestAttacks(t *testing.T) {
	rows := []struct {
		name  string
		offer func(f *mt.Fleet) []byte
		want  fault.Code
	}{
		// Arbitrary software.
		{"signed-by-an-unknown-key", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("mallory-1", "mallory-2"))
		}, fault.Threshold},
		{"signed-by-root-keys", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("root-1", "root-2", "root-3"))
		}, fault.Threshold},
		{"signed-by-the-beacon-key", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("beacon-1", "release-1"))
		}, fault.Threshold},
		{"signed-by-a-stranger-under-a-release-keyid", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("release-1", "mallory-1"), mt.Envelope(func(e *manifest.Envelope) {
				e.Signatures[1].KeyID = f.Key("release-2").Public().ID()
			}))
		}, fault.Threshold},
		{"payload-changed-after-signing", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Envelope(func(e *manifest.Envelope) {
				e.Payload = bytes.Replace(e.Payload, []byte(`"sequence": 43`), []byte(`"sequence": 44`), 1)
			}))
		}, fault.Threshold},
		{"payload-written-anew", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Envelope(func(e *manifest.Envelope) { e.Payload = append(e.Payload, '\n') }))
		}, fault.Threshold},

		// One key counted twice.
		{"same-entry-twice", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("release-1"), mt.Envelope(func(e *manifest.Envelope) {
				e.Signatures = append(e.Signatures, e.Signatures[0])
			}))
		}, fault.Malformed},
		{"same-signature-under-two-keyids", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("release-1"), mt.Envelope(func(e *manifest.Envelope) {
				e.Signatures = append(e.Signatures, keys.Entry{KeyID: f.Key("release-2").Public().ID(), Sig: e.Signatures[0].Sig})
			}))
		}, fault.Threshold},
		{"fewer-keys-than-the-threshold", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("release-1"))
		}, fault.Threshold},

		// Cross-type replay: the namespace of the signatures is the type.
		{"beacon-payload-signed-as-beacon", func(f *mt.Fleet) []byte {
			return retype(f, f.Beacon(f.Manifest(mt.Stable, 43), mt.SignedBy("release-1", "release-2")), manifest.TypeBeacon)
		}, fault.Threshold},
		{"root-payload-signed-as-root", func(f *mt.Fleet) []byte {
			return retype(f, f.NextRoot(mt.SignedBy("release-1", "release-2")), manifest.TypeRoot)
		}, fault.Threshold},
		{"manifest-payload-signed-as-root", func(f *mt.Fleet) []byte {
			good, _ := manifest.ParseEnvelope(f.Manifest(mt.Stable, 43), manifest.TypeManifest)
			return retype(f, f.Sign(manifest.TypeRoot, good.Payload, "release-1", "release-2"), manifest.TypeRoot)
		}, fault.Threshold},
		{"beacon-envelope", func(f *mt.Fleet) []byte { return f.Beacon(f.Manifest(mt.Stable, 43)) }, fault.WrongType},
		{"root-envelope", func(f *mt.Fleet) []byte { return f.Roots[0] }, fault.WrongType},

		// Cross-channel, cross-app, cross-fleet replay.
		{"nightly-as-stable", func(f *mt.Fleet) []byte { return f.Manifest(mt.Nightly, 43) }, fault.Threshold},
		{"nightly-signed-by-stable-keys", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Nightly, 43, mt.SignedBy("release-1", "release-2"))
		}, fault.WrongTarget},
		{"another-app", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("app", "other")) }, fault.WrongTarget},
		{"another-fleet-with-the-same-keys", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("repo", manifest.Sum([]byte("staging")).Prefixed()))
		}, fault.WrongTarget},
		{"wrong-target-before-bad-dates", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("app", "other"), mt.Set("issued", "yesterday"))
		}, fault.WrongTarget},

		// Rollback and equivocation.
		{"older-sequence", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 41) }, fault.Rollback},
		{"rollback-before-expired", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 41, mt.WithManifest(func(m *manifest.Manifest) { valid(m, time.Minute) }))
		}, fault.Rollback},
		{"same-sequence-other-content", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 42, mt.WithManifest(func(m *manifest.Manifest) { m.Release.Notes = "other" }))
		}, fault.Equivocation},
		{"epoch-above-root", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 1, mt.WithManifest(func(m *manifest.Manifest) { m.Epoch = 5 }))
		}, fault.RootBehind},
		{"sequence-zero", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("sequence", 0)) }, fault.Malformed},
		{"epoch-zero", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("epoch", 0)) }, fault.Malformed},
		{"epoch-negative", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("epoch", -1)) }, fault.Malformed},

		// Freeze and time.
		{"expired", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { valid(m, time.Minute) }))
		}, fault.Expired},
		{"expired-to-the-second", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { m.Expires = f.Now }))
		}, fault.Expired},
		{"one-second-over-max-validity", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { valid(m, validity+time.Second) }))
		}, fault.Policy},
		{"valid-for-millennia", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("expires", "9999-12-31T23:59:59Z")) }, fault.Policy},
		{"expires-at-issued", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("issued", "2026-10-12T10:00:00Z"), mt.Set("expires", "2026-10-12T10:00:00Z"))
		}, fault.Malformed},
		{"policy-before-expired", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("issued", "2020-10-12T10:00:00Z"), mt.Set("expires", "2021-10-12T10:00:00Z"))
		}, fault.Policy},
		{"expired-before-agent-too-old", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { valid(m, time.Minute) }), mt.Set("critical", []string{"x"}))
		}, fault.Expired},
		{"expired-before-fields", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { valid(m, time.Minute) }), mt.Drop("artifacts.0.sha256"))
		}, fault.Expired},

		// What this agent cannot do.
		{"critical-unknown", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("critical", []string{"rollout.gate2"}))
		}, fault.AgentTooOld},
		{"critical-empty-name", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("critical", []string{""})) }, fault.AgentTooOld},
		{"critical-in-another-case", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("critical", []string{"Rollout"})) }, fault.AgentTooOld},
		{"critical-below-a-value", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("critical", []string{"sequence.x"})) }, fault.AgentTooOld},
		{"min-agent-newer", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("min_agent", "1.0.1")) }, fault.AgentTooOld},
		{"min-agent-no-version", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("min_agent", "latest")) }, fault.Malformed},
		{"agent-too-old-before-fields", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("min_agent", "1.0.1"), mt.Set("artifacts.0.mode", "4755"))
		}, fault.AgentTooOld},

		// Endless data and junk.
		{"not-json", func(*mt.Fleet) []byte { return []byte("<html>") }, fault.Malformed},
		{"empty-file", func(*mt.Fleet) []byte { return []byte{} }, fault.Malformed},
		{"no-document", func(*mt.Fleet) []byte { return nil }, fault.NotFound},
		{"one-byte-too-large", func(f *mt.Fleet) []byte { return pad(f.Manifest(mt.Stable, 43), manifest.MaxManifest+1) }, fault.TooLarge},
		{"thirty-three-signatures", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Envelope(func(e *manifest.Envelope) {
				for len(e.Signatures) < 33 {
					e.Signatures = append(e.Signatures, keys.Entry{KeyID: keys.ID(strings.Repeat("x", len(e.Signatures))), Sig: []byte("x")})
				}
			}))
		}, fault.Malformed},
		{"signatures-stripped", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Envelope(func(e *manifest.Envelope) { e.Signatures = nil }))
		}, fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
			before := trust.Snapshot()
			v, _, err := begin(t, trust).Manifest(mt.Stable, r.offer(f))
			if v != nil {
				t.Error("returned a manifest with the error")
			}
			refused(t, err, r.want)
			unchanged(t, before, trust)
		})
	}
}

// retype puts a signed payload into a manifest envelope with its signatures.
func retype(_ *mt.Fleet, env []byte, was manifest.Type) []byte {
	e, err := manifest.ParseEnvelope(env, was)
	if err != nil {
		panic(err)
	}
	e.Type = manifest.TypeManifest
	return e.Marshal()
}

func pad(env []byte, size int) []byte {
	return append(env, bytes.Repeat([]byte(" "), size-len(env))...)
}

// TestParserTricks signs each of these to the threshold: reading them at all would be
// the mistake.
func TestParserTricks(t *testing.T) {
	insert := func(s string) mt.Edit { return mt.Replace("{\n", "{\n"+s+",\n") }
	rows := []struct {
		name string
		edit mt.Edit
	}{
		{"duplicate", insert(`"sequence": 99`)},
		{"duplicate-by-case", insert(`"SEQUENCE": 99`)},
		{"duplicate-by-long-s", insert(`"ſequence": 99`)},
		{"duplicate-by-escape", insert(`"\u0073equence": 99`)},
		{"duplicate-unknown-member", insert(`"x": 1, "X": 2`)},
		{"trailing-object", mt.Text(func(b []byte) []byte { return append(b, "{}"...) })},
		{"bad-utf8", mt.Replace("1.0.43", "1.0.\xff")},
		{"depth-ten-thousand", insert(`"x": ` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))},
		{"null", insert(`"notes": null`)},
		{"null-for-a-number", mt.Replace(`"sequence": 43`, `"sequence": null`)},
		{"exponent", mt.Replace(`"sequence": 43`, `"sequence": 1e3`)},
		{"fraction", mt.Replace(`"sequence": 43`, `"sequence": 43.0`)},
		{"beyond-2-53", mt.Replace(`"sequence": 43`, `"sequence": 9007199254740993`)},
		{"number-as-text", mt.Replace(`"sequence": 43`, `"sequence": "43"`)},
		{"text-as-number", mt.Replace(`"version": "1.0.43"`, `"version": 1`)},
		{"object-for-array", mt.Set("artifacts", map[string]any{})},
		{"array-for-object", mt.Set("release", []any{})},
		{"not-an-object", mt.Text(func([]byte) []byte { return []byte(`[]`) })},
		{"empty-payload", mt.Text(func([]byte) []byte { return []byte{} })},
		{"missing-repo", mt.Drop("repo")},
		{"missing-app", mt.Drop("app")},
		{"missing-channel", mt.Drop("channel")},
		{"missing-epoch", mt.Drop("epoch")},
		{"missing-sequence", mt.Drop("sequence")},
		{"missing-issued", mt.Drop("issued")},
		{"missing-expires", mt.Drop("expires")},
		{"missing-release", mt.Drop("release")},
		{"missing-release-version", mt.Drop("release.version")},
		{"missing-artifacts", mt.Drop("artifacts")},
		{"member-in-another-case", mt.Replace(`"sequence"`, `"Sequence"`)},
		{"repo-without-prefix", mt.Replace("sha256:", "")},
		{"repo-in-upper-case", mt.Replace("sha256:", "SHA256:")},
		{"repo-cut-short", mt.Set("repo", "sha256:00")},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
			before := trust.Snapshot()
			_, _, err := begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 43, r.edit))
			refused(t, err, fault.Malformed)
			unchanged(t, before, trust)
		})
	}
}

// TestManifestAccepted are documents that look odd and must be taken.
func TestManifestAccepted(t *testing.T) {
	rsa := []byte("SSHSIG\x00\x00\x00\x01\x00\x00\x00\x07ssh-rsa")
	rows := []struct {
		name  string
		offer func(f *mt.Fleet) []byte
	}{
		{"two-of-three-and-junk", func(f *mt.Fleet) []byte {
			wrongNamespace, _ := manifest.ParseEnvelope(f.Sign(manifest.TypeRoot, []byte("x"), "release-3"), manifest.TypeRoot)
			return f.Manifest(mt.Stable, 43, junk("SHA256:nobody", []byte("junk")), junk("", nil), junk("rsa", rsa),
				junk(string(f.Key("release-3").Public().ID()), wrongNamespace.Signatures[0].Sig))
		}},
		{"all-three", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.SignedBy("release-3", "release-2", "release-1"))
		}},
		{"signature-that-is-not-base64", func(f *mt.Fleet) []byte {
			env := f.Manifest(mt.Stable, 43, mt.SignedBy("release-1", "release-2", "release-3"))
			e, _ := manifest.ParseEnvelope(env, manifest.TypeManifest)
			sig := base64.StdEncoding.EncodeToString(e.Signatures[2].Sig)
			return bytes.Replace(env, []byte(sig), []byte("no base64!"), 1)
		}},
		{"unknown-members-everywhere", func(f *mt.Fleet) []byte {
			env := f.Manifest(mt.Stable, 43, mt.Set("new", 1), mt.Set("release.new", []any{}), mt.Set("artifacts.0.new", "x"),
				mt.Set("artifacts.0.payloads.0.new", true))
			return bytes.Replace(env, []byte(`"keyid"`), []byte(`"note": {"a": 1}, "keyid"`), 1)
		}},
		{"proofs", func(f *mt.Fleet) []byte {
			return bytes.Replace(f.Manifest(mt.Stable, 43), []byte(`"type"`), []byte(`"proofs": [{"log": 1}, 2], "type"`), 1)
		}},
		{"largest", func(f *mt.Fleet) []byte { return pad(f.Manifest(mt.Stable, 43), manifest.MaxManifest) }},
		{"sequence-jump", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 1<<53) }},
		{"critical-known", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.Set("critical", []string{"rollout.waves.gate", "blocked", "artifacts.payloads.codec"}))
		}},
		{"min-agent-met", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("min_agent", "1.0.0")) }},
		{"min-agent-release-candidate", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("min_agent", "1.0.0-rc.1")) }},
		{"payload-of-unknown-kind-first", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) {
				p := m.Artifacts[0].Payloads[0]
				p.Kind, p.Codec, p.Length, p.SHA256 = "delta", "zstd", 77, manifest.Sum(nil)
				p.From = new(manifest.Sum([]byte("old")))
				m.Artifacts[0].Payloads = append([]manifest.Payload{p}, m.Artifacts[0].Payloads...)
			}))
		}},
		{"kind-left-out", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Drop("artifacts.0.kind")) }},
		{"notes-with-newline", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("release.notes", "a\nb – Ü")) }},
		{"severity-unknown", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("release.severity", "spicy")) }},
		{"exactly-max-validity", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { valid(m, validity) }))
		}},
		{"one-second-left", func(f *mt.Fleet) []byte {
			return f.Manifest(mt.Stable, 43, mt.WithManifest(func(m *manifest.Manifest) { m.Expires = f.Now.Add(time.Second) }))
		}},
		{"nothing-for-this-platform", func(f *mt.Fleet) []byte { return f.Manifest(mt.Stable, 43, mt.Set("artifacts.0.os", "plan9")) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
			env := r.offer(f)
			v := take(t, trust, mt.Stable, env)
			if v.Same || v.Manifest.Sequence < 43 {
				t.Errorf("took %+v", v.Manifest.Order())
			}
			if !bytes.Equal(trust.Snapshot().Manifests[mt.Stable], env) {
				t.Error("the envelope is not kept byte for byte")
			}
			if again := take(t, trust, mt.Stable, env); !again.Same {
				t.Error("offered again it is not the same")
			}
		})
	}
}

// TestThresholdNamesTheSigner: one of two signed; the message says who.
func TestThresholdNamesTheSigner(t *testing.T) {
	f := mt.New(t)
	_, _, err := begin(t, f.Trust()).Manifest(mt.Stable, f.Manifest(mt.Stable, 42, mt.SignedBy("release-2", "mallory")))
	refused(t, err, fault.Threshold)
	var e *fault.Error
	errors.As(err, &e)
	text := e.Message + strings.Join(e.Detail, " ")
	for _, want := range []string{"acme/stable", "1 of 2", "release-2", string(f.Key("release-2").Public().ID()), string(f.Key("mallory").Public().ID())} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	if !errors.Is(err, keys.ErrThreshold) || e.Facts["have"] != 1 || e.Facts["want"] != 2 {
		t.Errorf("facts are %v, cause %v", e.Facts, e.Err)
	}
}
