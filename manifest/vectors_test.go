package manifest_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

var update = flag.Bool("update", false, "write the vectors in testdata anew; what is published must be readable for ever, so mind the diff")

// vectors is the fleet whose documents are in testdata: keys do not change, so neither
// do signatures.
type vectors struct {
	f    *mt.Fleet
	good map[string][]byte // by file name
	bad  map[string][]byte // by type/code.attack.json
}

func newVectors(t testing.TB) *vectors {
	f := mt.New(t)
	v := &vectors{f: f, good: map[string][]byte{}, bad: map[string][]byte{}}
	v.good["root-1.json"] = f.Roots[0]
	second := mt.WithRoot(func(r *manifest.Root) {
		r.Reason = "a token replaces root-3; a leaked CI key is void"
		delete(r.Keys, r.Root.KeyIDs[2])
		r.Root = f.Role(r, 2, "root-1", "root-2", "sk-root-4")
		r.Channels[1].Epoch = 2
		r.Issued = mt.Start.Add(time.Hour)
	})
	rootID, rootLine := identityKey()
	for name, edits := range map[string][]mt.Edit{
		"threshold.old-keys-only":    {mt.WithRoot(func(r *manifest.Root) { r.Root = f.Role(r, 2, "root-7", "root-8") })},
		"root_chain.wrong-prev":      {mt.Set("prev", manifest.Sum(nil).Prefixed())},
		"root_chain.threshold-zero":  {mt.Set("root.threshold", 0)},
		"bad_key.identity-point":     {addKey(rootID, rootLine)},
		"policy.no-stale-after":      {mt.Drop("channels.0.stale_after")},
		"malformed.days":             {mt.Set("channels.0.max_validity", "90d")},
		"malformed.duplicate-folded": {mt.Replace("{\n", "{\n  \"ſtale\": 1, \"STALE\": 2,\n")},
	} {
		if name == "threshold.old-keys-only" {
			edits = append(edits, mt.SignedBy("root-1", "root-2", "root-3"))
		}
		v.bad["root/"+name+".json"] = f.NextRoot(edits...)
	}
	v.good["root-2.json"] = f.Rotate(second, mt.SignedBy("root-1", "root-2", "sk-root-4"))

	m := full(f)
	payload, err := manifest.Draft(m, f.Now)
	if err != nil {
		t.Fatal(err)
	}
	v.good["manifest-42.json"] = f.Sign(manifest.TypeManifest, payload, "release-1", "release-2", "release-3")
	next := func(edits ...mt.Edit) []byte { return f.Manifest(mt.Stable, 43, edits...) }
	for name, env := range map[string][]byte{
		"threshold.one-of-two":           next(mt.SignedBy("release-1")),
		"threshold.signed-by-root":       next(mt.SignedBy("root-1", "root-2")),
		"threshold.beacon-signatures":    retype(f, f.Beacon(v.good["manifest-42.json"], mt.SignedBy("release-1", "release-2")), manifest.TypeBeacon),
		"wrong_type.beacon":              f.Beacon(v.good["manifest-42.json"]),
		"wrong_target.nightly":           f.Manifest(mt.Nightly, 43, mt.SignedBy("release-1", "release-2")),
		"rollback.41":                    f.Manifest(mt.Stable, 41),
		"equivocation.second-42":         f.Manifest(mt.Stable, 42),
		"root_behind.epoch-5":            next(mt.Set("epoch", 5)),
		"expired.a-minute":               next(mt.WithManifest(func(m *manifest.Manifest) { valid(m, time.Minute) })),
		"policy.a-second-over":           next(mt.WithManifest(func(m *manifest.Manifest) { valid(m, validity+time.Second) })),
		"policy.setuid":                  next(mt.Set("artifacts.0.mode", "4755")),
		"agent_too_old.critical":         next(mt.Set("critical", []string{"rollout.gate2"})),
		"unsafe_path.up":                 next(mt.Set("artifacts.0.name", "../acme")),
		"malformed.duplicate-by-case":    next(mt.Replace("{\n", "{\n  \"SEQUENCE\": 99,\n")),
		"malformed.duplicate-by-long-s":  next(mt.Replace("{\n", "{\n  \"\u017fequence\": 99,\n")),
		"malformed.null":                 next(mt.Replace("{\n", "{\n  \"min_agent\": null,\n")),
		"malformed.exponent":             next(mt.Replace(`"sequence": 43`, `"sequence": 43e0`)),
		"malformed.beyond-2-53":          next(mt.Replace(`"sequence": 43`, `"sequence": 9007199254740993`)),
		"malformed.trailing-object":      next(mt.Text(func(b []byte) []byte { return append(b, "{}"...) })),
		"malformed.repo-without-prefix":  next(mt.Replace("sha256:", "")),
		"malformed.same-keyid-twice":     next(mt.Envelope(func(e *manifest.Envelope) { e.Signatures[1] = e.Signatures[0] })),
		"malformed.payload-of-two-sizes": next(mt.Set("artifacts.0.payloads.0.length", 5)),
	} {
		v.bad["manifest/"+name+".json"] = env
	}

	v.good["beacon.json"] = f.Beacon(v.good["manifest-42.json"], mt.WithBeacon(func(b *manifest.Beacon) { b.Wave, b.Reason = 2, "" }))
	later := mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = b.Issued.Add(time.Minute) })
	for name, edits := range map[string][]mt.Edit{
		"threshold.release-keys":  {later, mt.SignedBy("release-1", "release-2")},
		"policy.wave-4-of-3":      {later, mt.Set("wave", 4)},
		"malformed.no-wave":       {later, mt.Drop("wave")},
		"equivocation.other-hash": {later, mt.Set("manifest", manifest.Sum(nil).Prefixed())},
		"rollback.older":          {mt.WithBeacon(func(b *manifest.Beacon) { b.Issued = b.Issued.Add(-time.Minute) })},
	} {
		v.bad["beacon/"+name+".json"] = f.Beacon(v.good["manifest-42.json"], edits...)
	}

	r, err := manifest.DraftReport(report(f, "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	v.good["report.json"] = f.Sign(manifest.TypeReport, r, "agent-1")
	v.bad["report/threshold.another-agent.json"] = f.Sign(manifest.TypeReport, r, "agent-2")
	v.bad["report/malformed.two-signatures.json"] = f.Sign(manifest.TypeReport, r, "agent-1", "agent-2")
	return v
}

// TestVectors reads the documents in testdata, byte for byte as an earlier build wrote
// them. It holds the formats still: a build that no longer reads them, or gives another
// code, breaks fleets.
func TestVectors(t *testing.T) {
	v := newVectors(t)
	if *update {
		v.write(t)
	}
	read := func(path ...string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, env := range v.good {
		if !bytes.Equal(read("good", name), env) {
			t.Errorf("%s is written otherwise today", name)
		}
	}

	newTrust := func(t *testing.T, roots ...string) *manifest.Trust {
		t.Helper()
		trust, _, err := manifest.Pin(read("good", "root-1.json"), v.f.Pin(), v.f.Options())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range roots {
			root(t, trust, read("good", name))
		}
		return trust
	}
	held := newTrust(t, "root-2.json")
	take(t, held, mt.Stable, read("good", "manifest-42.json"))
	if fresh, events := begin(t, held).Beacon(mt.Stable, read("good", "beacon.json")); fresh != manifest.FreshCurrent {
		t.Errorf("beacon.json: %s, %v", fresh, events)
	}
	// The second is as it was before reports said which run of the agent made them.
	for _, name := range []string{"report.json", "report-without-run.json"} {
		if _, _, err := manifest.OpenReport(read("good", name), v.f.Pin()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	offer := map[string]func(*testing.T, []byte) fault.Code{
		"root": func(t *testing.T, env []byte) fault.Code {
			_, err := newTrust(t).UpdateRoot(env)
			return fault.CodeOf(err)
		},
		"manifest": func(t *testing.T, env []byte) fault.Code {
			_, _, err := begin(t, held).Manifest(mt.Stable, env)
			return fault.CodeOf(err)
		},
		"beacon": func(t *testing.T, env []byte) fault.Code {
			_, events := begin(t, held).Beacon(mt.Stable, env)
			if len(events) != 1 {
				t.Fatalf("events %v", events)
			}
			return events[0].Code
		},
		"report": func(t *testing.T, env []byte) fault.Code {
			_, _, err := manifest.OpenReport(env, v.f.Pin())
			return fault.CodeOf(err)
		},
	}
	seen := 0
	for kind, offer := range offer {
		files, err := os.ReadDir(filepath.Join("testdata", "bad", kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			seen++
			t.Run(kind+"/"+file.Name(), func(t *testing.T) {
				want, _, _ := strings.Cut(file.Name(), ".")
				if got := offer(t, read("bad", kind, file.Name())); got != fault.Code(want) {
					t.Errorf("got %s", got)
				}
			})
		}
	}
	if seen < len(v.bad) {
		t.Errorf("testdata/bad has %d files, %d are made", seen, len(v.bad))
	}
}

func (v *vectors) write(t *testing.T) {
	t.Helper()
	for dir, files := range map[string]map[string][]byte{"good": v.good, "bad": v.bad} {
		for name, env := range files {
			path := filepath.Join("testdata", dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, env, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
