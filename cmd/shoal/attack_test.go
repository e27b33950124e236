package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

const day = 24 * time.Hour

// attack is something that must be refused, with what is trusted as it was.
type attack struct {
	name string
	do   func(v *victim)
	want fault.Code

	root  int64              // the version trusted after it; 0 means 1
	fresh manifest.Freshness // empty means current
	says  string             // is told to the person
	late  bool               // nothing is wrong before the artifact is written
}

// TestAttacks does each of these to a machine that holds acme/stable 42. Each row is
// named after its number in the threat model.
func TestAttacks(t *testing.T) {
	for _, rows := range [][]attack{signatureAttacks, orderAttacks, rootAttacks, formAttacks, contentAttacks} {
		for _, a := range rows {
			t.Run(a.name, func(t *testing.T) { a.run(t) })
		}
	}
}

func (a attack) run(t *testing.T) {
	v := newVictim(t)
	before := files(t, v.dir)
	a.do(v)
	want := expected{code: a.want, root: max(a.root, 1), order: "1.42", hash: v.hash, fresh: manifest.FreshCurrent, changed: a.root > 1}
	if a.fresh != "" {
		want.fresh = a.fresh
	}
	if a.late {
		first := want
		first.code = fault.Same
		v.check().want(t, first)
	} else {
		got := v.check()
		got.want(t, want)
		if !strings.Contains(got.said(), a.says) {
			t.Errorf("nobody is told of %q:\n%s", a.says, got.said())
		}
		if len(got.Next) == 0 || got.Message == "" {
			t.Errorf("the refusal does not say what to do: %q", got.said())
		}
	}
	unchanged(t, maps.Clone(before), files(t, v.dir), a.root)

	want.changed = false
	v.update().want(t, want)
	v.wantOut("")
	v.putOut(asItWas)
	v.update().want(t, want)
	v.wantOut(asItWas)
	unchanged(t, maps.Clone(before), files(t, v.dir), a.root)
}

// release puts 43 of acme/stable into the tree.
func release(edits ...mt.Edit) func(*victim) {
	return func(v *victim) { v.Release(mt.Stable, 43, program, edits...) }
}

// offer puts what make returns where the manifest is.
func offer(make func(v *victim) []byte) func(*victim) {
	return func(v *victim) { v.Put(tree.Manifest(mt.Stable), make(v)) }
}

// retype puts a document with its signatures into a manifest's envelope.
func retype(v *victim, env []byte, from manifest.Type) []byte {
	v.t.Helper()
	e, err := manifest.ParseEnvelope(env, from)
	if err != nil {
		v.t.Fatal(err)
	}
	e.Type = manifest.TypeManifest
	return e.Marshal()
}

var signatureAttacks = []attack{
	{name: "T01-unknown-keys", do: release(mt.SignedBy("stranger-1", "stranger-2")), want: fault.Threshold},
	{name: "T01-keys-of-another-role", do: release(mt.SignedBy("root-1", "root-2", "beacon-1", "ci-1")), want: fault.Threshold},
	{name: "T01-payload-changed", want: fault.Threshold, do: release(mt.Envelope(func(e *manifest.Envelope) {
		e.Payload = bytes.Replace(e.Payload, []byte("1.0.43"), []byte("1.0.44"), 1)
	}))},

	{name: "T02-same-entry-twice", want: fault.Malformed, do: release(mt.SignedBy("release-1"), mt.Envelope(func(e *manifest.Envelope) {
		e.Signatures = append(e.Signatures, e.Signatures[0])
	}))},
	{name: "T02-one-key-under-two-names", want: fault.Threshold, do: release(mt.SignedBy("release-1"), mt.Envelope(func(e *manifest.Envelope) {
		other := e.Signatures[0]
		other.KeyID += "="
		e.Signatures = append(e.Signatures, other)
	}))},

	{name: "T04-beacon-as-manifest", want: fault.Threshold, do: offer(func(v *victim) []byte {
		return retype(v, v.Beacon(v.held, mt.SignedBy("release-1", "release-2")), manifest.TypeBeacon)
	})},
	{name: "T04-root-as-manifest", want: fault.Threshold, do: offer(func(v *victim) []byte {
		return retype(v, v.NextRoot(mt.SignedBy("release-1", "release-2")), manifest.TypeRoot)
	})},
	{name: "T04-manifest-signed-as-a-beacon", want: fault.Threshold, do: offer(func(v *victim) []byte {
		e, err := manifest.ParseEnvelope(v.Draft(mt.Stable, 43, program), manifest.TypeManifest)
		if err != nil {
			v.t.Fatal(err)
		}
		return retype(v, v.Sign(manifest.TypeBeacon, e.Payload, "release-1", "release-2"), manifest.TypeBeacon)
	})},
	{name: "T04-beacon-itself", want: fault.WrongType, do: offer(func(v *victim) []byte { return v.Beacon(v.held) })},

	{name: "T05-another-channel", want: fault.Threshold, do: offer(func(v *victim) []byte { return v.Draft(mt.Nightly, 43, program) })},
	{name: "T05-another-channel-same-keys", want: fault.WrongTarget, do: offer(func(v *victim) []byte {
		return v.Draft(mt.Nightly, 43, program, mt.SignedBy("release-1", "release-2"))
	})},
	{name: "T05-another-app-same-keys", want: fault.WrongTarget, do: release(mt.Set("app", "other"))},
	{name: "T05-another-fleet-same-keys", want: fault.WrongTarget, do: offer(func(v *victim) []byte {
		staging := agenttest.New(v.t)
		root := mt.EditPayload(v.t, staging.Roots[0], manifest.TypeRoot, func(m map[string]any) { m["fleet"] = "staging" })
		staging.Roots = nil
		staging.Publish(staging.Sign(manifest.TypeRoot, root, "root-1", "root-2"))
		return staging.Draft(mt.Stable, 43, program)
	})},

	{name: "T16-one-of-two", want: fault.Threshold, do: release(mt.SignedBy("release-1")), says: "release-1"},

	{name: "T20-stripped-of-signatures", want: fault.Malformed, do: release(mt.Envelope(func(e *manifest.Envelope) { e.Signatures = nil }))},
	{name: "T20-thirty-three-entries", want: fault.Malformed, do: release(mt.Envelope(func(e *manifest.Envelope) {
		for i := len(e.Signatures); i < 33; i++ {
			e.Signatures = append(e.Signatures, keys.Entry{KeyID: keys.ID(fmt.Sprint("junk-", i)), Sig: []byte("junk")})
		}
	}))},
}

var orderAttacks = []attack{
	{name: "T06-rollback", want: fault.Rollback, do: offer(func(v *victim) []byte { return v.old }), says: "1.42"},
	{name: "T07-equivocation", want: fault.Equivocation, do: func(v *victim) {
		v.Release(mt.Stable, 42, oldProgram)
	}, says: "Trusted is payload"},
	{name: "T09-epoch-made-up", want: fault.RootBehind, do: release(mt.Set("epoch", 5))},
	{name: "T10-expired-when-offered", want: fault.Expired, fresh: manifest.FreshStale, do: func(v *victim) {
		v.Release(mt.Stable, 43, program)
		v.Now = v.Now.Add(91 * day)
	}},
	{name: "T10-expired-while-held", want: fault.Expired, fresh: manifest.FreshStale, do: func(v *victim) { v.Now = v.Now.Add(91 * day) }},
	{name: "T10-root-expired", want: fault.RootExpired, fresh: manifest.FreshStale, do: func(v *victim) {
		v.Release(mt.Stable, 43, program)
		v.Now = v.Now.AddDate(2, 0, 0)
	}},
	{name: "T11-a-second-too-long", want: fault.Policy, do: func(v *victim) {
		issued := v.Now.Add(-time.Hour)
		v.Release(mt.Stable, 43, program, mt.Set("expires", issued.Add(90*day+time.Second).UTC().Format(time.RFC3339)))
	}},
	{name: "T12-expired-at-the-floor", want: fault.Expired, do: func(v *victim) {
		v.Release(mt.Stable, 43, program, mt.WithManifest(func(m *manifest.Manifest) {
			m.Issued, m.Expires = mt.Start.Add(-2*day), mt.Start.Add(-day)
		}))
		v.Now = time.Unix(0, 0)
	}},
}

// badRoot puts a root 2 into the tree, and a good 43 that must not be looked at.
func badRoot(edits ...mt.Edit) func(*victim) {
	return func(v *victim) {
		v.Put(tree.Root(2), v.NextRoot(edits...))
		v.Release(mt.Stable, 43, program)
	}
}

// addKey files a line under an id in root 2, and in the release role of acme/stable.
func addKey(id, line string) func(*victim) {
	return badRoot(mt.Raw(func(doc map[string]any) {
		doc["keys"].(map[string]any)[id] = line
		role := doc["channels"].([]any)[0].(map[string]any)["release"].(map[string]any)
		role["keyids"] = append(role["keyids"].([]any), id)
	}))
}

// identity is the key line of the neutral point, under which anything verifies.
func identity() (id, line string) {
	var wire []byte
	for _, part := range []string{"ssh-ed25519", "\x01" + strings.Repeat("\x00", 31)} {
		wire = binary.BigEndian.AppendUint32(wire, uint32(len(part)))
		wire = append(wire, part...)
	}
	sum := manifest.Sum(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), "ssh-ed25519 " + base64.StdEncoding.EncodeToString(wire) + " identity"
}

// otherRootKeys puts the root role into other hands.
func otherRootKeys(v *victim) mt.Edit {
	return mt.WithRoot(func(r *manifest.Root) {
		maps.DeleteFunc(r.Keys, func(id keys.ID, _ string) bool { return slices.Contains(r.Root.KeyIDs, id) })
		r.Root = v.Role(r, 2, "root-4", "root-5", "root-6")
	})
}

var rootAttacks = []attack{
	{name: "T02-plain-and-token-of-one-point", want: fault.BadKey, do: func(v *victim) {
		token := keystest.NewSK(v.t, "release-1").Public()
		addKey(string(token.ID()), token.String())(v)
	}},
	{name: "T02-keyid-twice-in-a-role", want: fault.BadKey, do: badRoot(mt.Raw(func(doc map[string]any) {
		role := doc["root"].(map[string]any)
		role["keyids"] = append(role["keyids"].([]any), role["keyids"].([]any)[0])
	}))},
	{name: "T03-identity-point", want: fault.BadKey, do: func(v *victim) { addKey(identity())(v) }},
	{name: "T14-third-in-the-place-of-the-second", want: fault.RootChain, do: badRoot(mt.Set("version", 3))},
	{name: "T14-by-the-new-keys-only", want: fault.Threshold, do: func(v *victim) {
		badRoot(otherRootKeys(v), mt.SignedBy("root-4", "root-5"))(v)
	}},
	{name: "T14-by-the-old-keys-only", want: fault.Threshold, do: func(v *victim) {
		badRoot(otherRootKeys(v), mt.SignedBy("root-1", "root-2"))(v)
	}},
	{name: "T14-by-a-minority", want: fault.Threshold, do: badRoot(mt.SignedBy("root-1"))},
	{name: "T14-another-past", want: fault.RootChain, do: badRoot(mt.Set("prev", manifest.Sum(nil).Prefixed()))},
	{name: "T14-another-fleet", want: fault.RootChain, do: badRoot(mt.Set("id", manifest.Sum(nil).Prefixed()))},
	{name: "T14-epoch-that-falls", want: fault.RootChain, root: 2, do: func(v *victim) {
		v.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[1].Epoch = 2 }))
		v.Rotate(mt.Set("channels.1.epoch", 1))
		v.PutRoots()
		v.Release(mt.Stable, 43, program)
	}},
	{name: "T14-good-second-bad-third", want: fault.Threshold, root: 2, do: func(v *victim) {
		v.Rotate()
		v.Rotate(mt.SignedBy("root-1"))
		v.PutRoots()
		v.Release(mt.Stable, 43, program)
	}},
	{name: "T14-good-root-bad-manifest", want: fault.Threshold, root: 2, do: func(v *victim) {
		v.Rotate()
		v.PutRoots()
		v.Release(mt.Stable, 43, program, mt.SignedBy("release-1"))
	}},
	{name: "T18-a-gigabyte-of-root", want: fault.TooLarge, do: func(v *victim) { v.inflate(tree.Root(2)) }},
}

// inflate makes a file of the tree a gigabyte long, and its reader's memory the test's
// business.
func (v *victim) inflate(name string) {
	v.t.Helper()
	v.Put(name, []byte("{"))
	if err := os.Truncate(filepath.Join(v.Dir, filepath.FromSlash(name)), 1<<30); err != nil {
		v.t.Fatal(err)
	}
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	v.t.Cleanup(func() {
		var after runtime.MemStats
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
			v.t.Errorf("%d bytes were allocated for a document of at most 1 MiB", n)
		}
	})
}

// insert puts members before those of a payload.
func insert(members string) func(*victim) { return release(mt.Replace("{\n", "{\n"+members+",\n")) }

// sequence writes the sequence in another way.
func sequence(literal string) func(*victim) {
	return release(mt.Replace(`"sequence": 43`, `"sequence": `+literal))
}

// named gives the artifact another name.
func named(name string) func(*victim) { return release(mt.Set("artifacts.0.name", name)) }

var formAttacks = []attack{
	{name: "T18-a-gigabyte-of-manifest", want: fault.TooLarge, do: func(v *victim) { v.inflate(tree.Manifest(mt.Stable)) }},

	{name: "T19-duplicate-member", want: fault.Malformed, do: insert(`"sequence": 99`)},
	{name: "T19-duplicate-by-case", want: fault.Malformed, do: insert(`"SEQUENCE": 99`)},
	{name: "T19-duplicate-by-long-s", want: fault.Malformed, do: insert(`"ſequence": 99`)},
	{name: "T19-duplicate-by-escape", want: fault.Malformed, do: insert(`"\u0073equence": 99`)},
	{name: "T19-trailing-object", want: fault.Malformed, do: release(mt.Text(func(b []byte) []byte { return append(b, "{}"...) }))},
	{name: "T19-bad-utf8", want: fault.Malformed, do: release(mt.Replace("1.0.43", "1.0.\xff"))},
	{name: "T19-arrays-seventeen-deep", want: fault.Malformed, do: insert(`"x": ` + strings.Repeat("[", 16) + strings.Repeat("]", 16))},
	{name: "T19-objects-seventeen-deep", want: fault.Malformed, do: insert(`"x": ` + strings.Repeat(`{"x": `, 16) + "1" + strings.Repeat("}", 16))},
	{name: "T19-depth-ten-thousand", want: fault.Malformed, do: insert(`"x": ` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))},
	{name: "T19-null", want: fault.Malformed, do: insert(`"min_agent": null`)},
	{name: "T19-exponent", want: fault.Malformed, do: sequence("1e3")},
	{name: "T19-fraction", want: fault.Malformed, do: sequence("43.0")},
	{name: "T19-beyond-2-53", want: fault.Malformed, do: sequence("9007199254740993")},
	{name: "T19-not-an-object", want: fault.Malformed, do: release(mt.Text(func([]byte) []byte { return []byte("[]") }))},
	{name: "T19-not-json", want: fault.Malformed, do: offer(func(*victim) []byte { return []byte("-----BEGIN") })},
	{name: "T19-critical-member", want: fault.AgentTooOld, do: release(mt.Set("critical", []string{"rollout.gate2"}))},

	{name: "T29-name-that-climbs", want: fault.UnsafePath, do: named("../x")},
	{name: "T29-absolute-name", want: fault.UnsafePath, do: named("/etc/x")},
	{name: "T29-name-of-two-parts", want: fault.UnsafePath, do: named("a/b")},
	{name: "T29-name-with-a-drive", want: fault.UnsafePath, do: named(`C:\x`)},
	{name: "T29-device-name", want: fault.UnsafePath, do: named("CON")},
	{name: "T29-device-name-in-lower-case", want: fault.UnsafePath, do: named("nul.txt")},
	{name: "T29-dot", want: fault.UnsafePath, do: named(".")},
	{name: "T29-empty-name", want: fault.UnsafePath, do: named("")},

	{name: "T37-setuid", want: fault.Policy, do: release(mt.Set("artifacts.0.mode", "4755"))},
}

// data changes the bytes of 42 in the tree.
func data(change func(b []byte) []byte) func(*victim) {
	return func(v *victim) { v.Put(tree.Data(manifest.Sum(program)), change(bytes.Clone(program))) }
}

var contentAttacks = []attack{
	{name: "T17-bytes-of-the-release-before", late: true, want: fault.ContentMismatch, do: data(func([]byte) []byte { return oldProgram })},
	{name: "T22-one-block-swapped", late: true, want: fault.ContentMismatch, do: data(func(b []byte) []byte {
		copy(b[16<<10:], bytes.Repeat([]byte("!"), 16<<10))
		return b
	})},
	{name: "T22-one-bit-changed", late: true, want: fault.ContentMismatch, do: data(func(b []byte) []byte {
		b[len(b)-1] ^= 1
		return b
	})},
	{name: "T17-cut-short", late: true, want: fault.ContentMismatch, do: data(func(b []byte) []byte { return b[:len(b)-1] })},
	{name: "T18-one-byte-more", late: true, want: fault.LengthExceeded, do: data(func(b []byte) []byte { return append(b, 0) })},
	{name: "T18-endless-data", late: true, want: fault.LengthExceeded, do: func(v *victim) { v.inflate(tree.Data(manifest.Sum(program))) }},
	{name: "T17-no-data", late: true, want: fault.NotFound, do: func(v *victim) { v.Remove(tree.Data(manifest.Sum(program))) }},
	{name: "T22-info-dict-of-another-file", late: true, want: fault.BadInfo, do: func(v *victim) {
		other := v.Artifact("acme", oldProgram).Payloads[0].InfoSHA256
		b, err := os.ReadFile(filepath.Join(v.Dir, filepath.FromSlash(tree.Info(other))))
		if err != nil {
			v.t.Fatal(err)
		}
		v.Put(tree.Info(v.Artifact("acme", program).Payloads[0].InfoSHA256), b)
	}},
}
