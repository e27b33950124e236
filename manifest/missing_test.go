package manifest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// TestEveryMemberMissingOrWrong takes each member of each document out, and gives it
// each wrong type, one after the other. Nothing may panic, and what is read without a
// member must not need it.
func TestEveryMemberMissingOrWrong(t *testing.T) {
	f := mt.New(t)
	draft, err := manifest.Draft(full(f), f.Now)
	if err != nil {
		t.Fatal(err)
	}
	beacon, err := manifest.DraftBeacon(&manifest.Beacon{Repo: f.Pin(), App: "acme", Channel: "stable", Epoch: 1, Sequence: 42,
		Reason: "x", Issued: f.Now, Expires: f.Now.AddDate(0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := manifest.DraftReport(report(f, "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := manifest.ParseEnvelope(f.NextRoot(mt.Set("reason", "x")), manifest.TypeRoot)
	if err != nil {
		t.Fatal(err)
	}
	wrongs := []any{"\x00", []any{map[string]any{}}, true, -1, []any{}, map[string]any{}, []any{"x"}, map[string]any{"x": "y"}}
	if testing.Short() {
		wrongs = wrongs[:2]
	}
	docs := []struct {
		name     string
		payload  []byte
		optional int // members that may be missing
		open     func(payload []byte) bool
	}{
		{"manifest", draft, 20, func(b []byte) bool {
			_, err := manifest.ReadManifestDraft(b)
			_, _, err2 := begin(t, f.Trust()).Manifest(mt.Stable, f.Sign(manifest.TypeManifest, b, "release-1", "release-2"))
			if (err == nil) != (err2 == nil) {
				t.Errorf("a draft is read with %v and opened with %v:\n%s", err, err2, b)
			}
			return err == nil
		}},
		{"root", second.Payload, 2, func(b []byte) bool {
			_, err := f.Trust().UpdateRoot(f.Sign(manifest.TypeRoot, b, "root-1", "root-2"))
			return err == nil
		}},
		{"beacon", beacon, 1, func(b []byte) bool {
			_, events := begin(t, f.Trust()).Beacon(mt.Stable, f.Sign(manifest.TypeBeacon, b, "beacon-1"))
			return len(events) == 0
		}},
		{"report", rep, 9, func(b []byte) bool {
			_, _, err := manifest.OpenReport(f.Sign(manifest.TypeReport, b, "agent-1"), f.Pin())
			return err == nil
		}},
	}
	for _, d := range docs {
		t.Run(d.name, func(t *testing.T) {
			if !d.open(d.payload) {
				t.Fatalf("the document is bad as it is:\n%s", d.payload)
			}
			missing := 0
			for at := range count(t, d.payload) {
				if without, isMember := change(t, d.payload, at, nil); isMember && d.open(without) {
					missing++
				}
				for _, wrong := range wrongs {
					with, _ := change(t, d.payload, at, wrong)
					d.open(with)
				}
			}
			if missing != d.optional {
				t.Errorf("%d members may be missing, want %d", missing, d.optional)
			}
		})
	}
}

// count returns how many values a document has, itself not among them.
func count(t *testing.T, payload []byte) int {
	n := 0
	walkAll(decode(t, payload), func(any, string) bool { n++; return true })
	return n
}

// change puts v in the place of the at'th value, or takes that value out if v is nil,
// which works for members of objects only.
func change(t *testing.T, payload []byte, at int, v any) (out []byte, isMember bool) {
	doc := decode(t, payload)
	n := 0
	walkAll(doc, func(in any, key string) bool {
		if n++; n <= at {
			return true
		}
		switch in := in.(type) {
		case map[string]any:
			if isMember = true; v == nil {
				delete(in, key)
			} else {
				in[key] = v
			}
		case []any:
			var i int
			fmt.Sscan(key, &i)
			if v != nil {
				in[i] = v
			}
		}
		return false
	})
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out, isMember
}

func decode(t *testing.T, payload []byte) any {
	var doc any
	if err := json.Unmarshal(payload, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// walkAll calls do with every value below v, in a fixed order, until it says no.
func walkAll(v any, do func(in any, key string) bool) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if !do(v, key) {
				return false
			}
			if inner, there := v[key]; there && !walkAll(inner, do) {
				return false
			}
		}
	case []any:
		for i := range v {
			if !do(v, fmt.Sprint(i)) || !walkAll(v[i], do) {
				return false
			}
		}
	}
	return true
}
