package ceremony_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/ceremony"
	"shoal/publisher/ceremony/schema"
)

// Documents that the code accepts fit their schema, and every member a schema names is
// one the code writes: neither can drift from the other.
func TestSchemasFitDocuments(t *testing.T) {
	f := newFleet(t)
	f.publish(stable, "1.0.0", "one", "ann", "ben")
	full := sampleManifest()
	full.Release = manifest.Release{Version: "1.8.3", Severity: "critical", Immediate: true, Notes: "x"}
	full.Critical = []string{"rollout.salt"}
	full.Rollout.Paused, full.Rollout.Retry = true, 1
	full.Rollout.Stop = &manifest.Stop{FailedPercent: 5, MinReports: 3}
	full.Rollout.Waves[1].Soak = time.Minute
	full.Attachments[0].MediaType = "application/json"
	full.Artifacts[0].Variant = "musl"
	from := manifest.Sum([]byte("from"))
	full.Artifacts[0].Payloads = append(full.Artifacts[0].Payloads,
		manifest.Payload{Kind: "delta", Codec: "zstd", Length: 1, SHA256: from, InfoSHA256: from, From: &from})
	draft, err := manifest.Draft(full, full.Issued)
	if err != nil {
		t.Fatal(err)
	}
	fl := f.open()
	root, err := ceremony.DraftRoot(fl, ceremony.RootDraft{Reason: "yearly", Channels: []ceremony.ChannelDraft{
		{Channel: stable, Beacon: f.role(1, "beacon"), StaleAfter: time.Hour},
	}}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	beacon, err := manifest.DraftBeacon(&manifest.Beacon{
		Repo: full.Repo, App: "acme", Channel: "stable", Epoch: 1, Sequence: 42, Manifest: from, Wave: 1, Hold: true, Reason: "x",
		Issued: full.Issued, Expires: full.Issued.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(f.cfg.Store, "tree", filepath.FromSlash(tree.Manifest(stable))))
	if err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string][]byte{"manifest": draft, "root": root.Payload, "beacon": beacon, "envelope": env} {
		t.Run(name, func(t *testing.T) {
			s := readRules(t, name)
			for _, wrong := range s.check(s.root, decode(t, doc), name) {
				t.Error(wrong)
			}
			written := s.seen
			for member := range s.members(s.root, name) {
				if !written[member] && member != "envelope.proofs" {
					t.Errorf("the schema has %s, which no document here has", member)
				}
			}
		})
	}
	if n := len(schema.Names()); n != 4 {
		t.Errorf("%d schemas, and 4 are tested", n)
	}
}

// What the code refuses for its shape the schema refuses too.
func TestSchemasRefuse(t *testing.T) {
	s := readRules(t, "manifest")
	good, err := manifest.Draft(sampleManifest(), sampleManifest().Issued)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(map[string]any){
		"no-repo":            func(m map[string]any) { delete(m, "repo") },
		"repo-bare":          func(m map[string]any) { m["repo"] = strings.Repeat("0", 64) },
		"sequence-zero":      func(m map[string]any) { m["sequence"] = json.Number("0") },
		"sequence-too-large": func(m map[string]any) { m["sequence"] = json.Number("9007199254740993") },
		"sequence-fraction":  func(m map[string]any) { m["sequence"] = json.Number("1.5") },
		"app-upper-case":     func(m map[string]any) { m["app"] = "Acme" },
		"time-with-zone":     func(m map[string]any) { m["issued"] = "2026-10-12T10:00:00+02:00" },
		"no-artifacts":       func(m map[string]any) { m["artifacts"] = []any{} },
		"mode-setuid":        func(m map[string]any) { m["artifacts"].([]any)[0].(map[string]any)["mode"] = "4755" },
		"no-version":         func(m map[string]any) { m["release"] = map[string]any{} },
		"wave-of-101": func(m map[string]any) {
			m["rollout"].(map[string]any)["waves"].([]any)[1].(map[string]any)["percent"] = json.Number("101")
		},
	} {
		doc := decode(t, good).(map[string]any)
		edit(doc)
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.ReadManifestDraft(b); err == nil {
			t.Errorf("%s: the code takes it", name)
		}
		if wrong := s.check(s.root, doc, "manifest"); len(wrong) == 0 {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

func decode(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// rules understands the words of JSON Schema that the documents' schemas use, and
// complains about any other.
type rules struct {
	root map[string]any
	seen map[string]bool // members met in documents, as dotted paths
}

func readRules(t *testing.T, name string) *rules {
	t.Helper()
	b, err := schema.Document(name)
	if err != nil {
		t.Fatal(err)
	}
	return &rules{root: decode(t, b).(map[string]any), seen: map[string]bool{}}
}

func (s *rules) resolve(rule map[string]any) map[string]any {
	ref, ok := rule["$ref"].(string)
	if !ok {
		return rule
	}
	return s.root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
}

func (s *rules) check(rule map[string]any, v any, at string) (wrong []string) {
	rule = s.resolve(rule)
	fail := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	integer := func(word string) (int64, bool) {
		n, ok := rule[word].(json.Number)
		if !ok {
			return 0, false
		}
		i, err := n.Int64()
		return i, err == nil
	}
	for word := range rule {
		if !slices.Contains([]string{"$schema", "$defs", "title", "description", "type", "properties", "required", "additionalProperties", "propertyNames",
			"items", "minItems", "maxItems", "uniqueItems", "pattern", "maxLength", "enum", "minimum", "maximum"}, word) {
			fail("the schema uses %q, which this test does not understand", word)
		}
	}
	switch v := v.(type) {
	case map[string]any:
		if rule["type"] != "object" {
			fail("is an object")
			return wrong
		}
		props, _ := rule["properties"].(map[string]any)
		required, _ := rule["required"].([]any)
		for _, r := range required {
			if _, ok := v[r.(string)]; !ok {
				fail("has no %q", r)
			}
		}
		for name, value := range v {
			if names, ok := rule["propertyNames"].(map[string]any); ok {
				wrong = append(wrong, s.check(names, name, at+" name")...)
			}
			s.seen[at+"."+name] = true
			sub, ok := props[name].(map[string]any)
			if !ok {
				sub, ok = rule["additionalProperties"].(map[string]any)
			}
			if !ok {
				fail("has %q, which the schema does not know", name)
				continue
			}
			wrong = append(wrong, s.check(sub, value, at+"."+name)...)
		}
	case []any:
		if rule["type"] != "array" {
			fail("is an array")
			return wrong
		}
		if n, ok := integer("minItems"); ok && int64(len(v)) < n {
			fail("has %d items", len(v))
		}
		if n, ok := integer("maxItems"); ok && int64(len(v)) > n {
			fail("has %d items", len(v))
		}
		for _, item := range v {
			if sub, ok := rule["items"].(map[string]any); ok {
				wrong = append(wrong, s.check(sub, item, at+"[]")...)
			}
		}
	case json.Number:
		n, err := v.Int64()
		least, ok1 := integer("minimum")
		most, ok2 := integer("maximum")
		if rule["type"] != "integer" || err != nil || ok1 && n < least || ok2 && n > most {
			fail("is %s", v)
		}
	case string:
		if rule["type"] != "string" {
			fail("is a string")
		}
		if p, ok := rule["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			fail("is %q, which is not like %s", v, p)
		}
		if n, ok := integer("maxLength"); ok && int64(utf8.RuneCountInString(v)) > n {
			fail("is too long")
		}
		if list, ok := rule["enum"].([]any); ok && !slices.Contains(list, any(v)) {
			fail("is %q", v)
		}
	case bool:
		if rule["type"] != "boolean" {
			fail("is a boolean")
		}
	}
	return wrong
}

// members yields every member the schema names, as dotted paths.
func (s *rules) members(rule map[string]any, at string) map[string]bool {
	rule = s.resolve(rule)
	all := map[string]bool{}
	props, _ := rule["properties"].(map[string]any)
	for name, sub := range props {
		all[at+"."+name] = true
		for m := range s.members(sub.(map[string]any), at+"."+name) {
			all[m] = true
		}
	}
	if items, ok := rule["items"].(map[string]any); ok {
		for m := range s.members(items, at+"[]") {
			all[m] = true
		}
	}
	return all
}

// sampleManifest has every member that a manifest can have without being refused.
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
