package follow

import (
	"errors"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/swarm/gossip"
)

// given is a document as a neighbour would announce and give it.
func given(env []byte, sequence uint64) gossip.Document {
	d := gossip.Document{Name: gossip.Name{Kind: gossip.Manifest, Epoch: 1, Number: sequence}, Body: env, Root: 1, From: "neighbour"}
	if e, err := manifest.ParseEnvelope(env, manifest.TypeManifest); err == nil {
		d.SHA256 = e.PayloadHash()
	}
	return d
}

func TestTakingFromNeighbours(t *testing.T) {
	draft := func(m *machine, sequence int64, edits ...manifesttest.Edit) []byte {
		return m.trees[0].Draft(stable, sequence, agenttest.Program("43", 0), edits...)
	}
	rows := []struct {
		name string
		give func(m *machine) gossip.Document
		want fault.Code
	}{
		{"newer", func(m *machine) gossip.Document { return given(draft(m, 43), 43) }, fault.OK},
		{"same", func(m *machine) gossip.Document { return given(m.trees[0].Draft(stable, 42, content), 42) }, fault.Same},
		{"older", func(m *machine) gossip.Document { return given(draft(m, 41), 41) }, fault.Rollback},
		{"old-one-announced-as-new", func(m *machine) gossip.Document { return given(draft(m, 41), 50) }, fault.ContentMismatch},
		{"same-one-announced-as-new", func(m *machine) gossip.Document { return given(m.trees[0].Draft(stable, 42, content), 43) }, fault.ContentMismatch},
		{"another-of-one-sequence", func(m *machine) gossip.Document { return given(draft(m, 42), 42) }, fault.Equivocation},
		{"unsigned", func(m *machine) gossip.Document { return given(draft(m, 43, manifesttest.SignedBy()), 43) }, fault.Malformed},
		{"signed-by-strangers", func(m *machine) gossip.Document { return given(draft(m, 43, manifesttest.SignedBy("stranger")), 43) }, fault.Threshold},
		{"other-than-announced", func(m *machine) gossip.Document {
			d := given(draft(m, 43), 43)
			d.SHA256[0]++
			return d
		}, fault.ContentMismatch},
		{"for-another-channel", func(m *machine) gossip.Document {
			return given(draft(m, 43, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Channel = "beta" })), 43)
		}, fault.WrongTarget},
		{"not-a-document", func(m *machine) gossip.Document { return given([]byte("<html>"), 43) }, fault.Malformed},
		{"a-root-as-manifest", func(m *machine) gossip.Document { return given(m.trees[0].Roots[0], 43) }, fault.WrongType},
		{"next-root", func(m *machine) gossip.Document {
			return gossip.Document{Name: gossip.Name{Kind: gossip.Root, Number: 2}, Body: m.trees[0].NextRoot(), Root: 2}
		}, fault.OK},
		{"root-by-strangers", func(m *machine) gossip.Document {
			return gossip.Document{Name: gossip.Name{Kind: gossip.Root, Number: 2}, Body: m.trees[0].NextRoot(manifesttest.SignedBy("stranger")), Root: 2}
		}, fault.Threshold},
		{"not-a-beacon", func(m *machine) gossip.Document {
			return gossip.Document{Name: gossip.Name{Kind: gossip.Beacon, Number: 5}, Body: []byte("{}"), Root: 1}
		}, fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(t, 1)
			m.trees[0].Release(stable, 42, content)
			m.cycle()
			f := m.open()
			told := 0
			f.c.Stored = func() { told++ }
			if err := f.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			told = 0
			_, err := f.Take(t.Context(), stable, r.give(m))
			if got := fault.CodeOf(err); got != r.want {
				t.Errorf("%s (%v), want %s", got, err, r.want)
			}
			if taken := r.want == fault.OK; taken != (told == 1) {
				t.Errorf("stored %d times", told)
			}
			held, _ := f.Held(stable)
			if want := map[bool]int64{true: 43, false: 42}[r.name == "newer"]; held == nil || held.Manifest.Sequence != want {
				t.Errorf("held %+v, want sequence %d", held, want)
			}
		})
	}
}

// Everything comes from a neighbour, the first root too, and is on disk before it counts.
func TestNeighboursGiveTheChain(t *testing.T) {
	m := newMachine(t, 1)
	p := m.trees[0]
	p.Rotate()
	env := p.Draft(stable, 42, content)
	m.source = nil
	m.trees[0].Remove("root/000001.json")
	f := m.open()
	f.members = nil
	docs := []gossip.Document{
		{Name: gossip.Name{Kind: gossip.Root, Number: 1}, Body: p.Roots[0], Root: 2},
		{Name: gossip.Name{Kind: gossip.Root, Number: 2}, Body: p.Roots[1], Root: 2},
		given(env, 42),
	}
	if _, err := f.Take(t.Context(), stable, docs[2]); !errors.Is(err, fault.Unreachable) {
		t.Errorf("before there is a root: %v, want unreachable", err)
	}
	for _, d := range docs {
		if _, err := f.Take(t.Context(), stable, d); err != nil {
			t.Fatalf("%+v: %v", d.Name, err)
		}
	}
	f.c.Store.Close()
	again := m.open()
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	news := again.News(stable)
	if news.Root != 2 || news.Order != (gossip.Order{Epoch: 1, Sequence: 42}) || string(news.Document(docs[2].Name)) != string(env) ||
		string(news.Document(docs[1].Name)) != string(p.Roots[1]) || news.Document(gossip.Name{Kind: gossip.Root, Number: 3}) != nil {
		t.Errorf("it holds %+v", news.Head)
	}
}

// What was good under the sender's root is not held against the sender: another may have
// come here while the document was on its way.
func TestWhoIsAtFaultForASignature(t *testing.T) {
	threshold := fault.New(fault.Threshold, "too few signatures")
	for _, r := range []struct {
		name         string
		kind         gossip.Kind
		theirs, ours int64
		want         gossip.Verdict
	}{
		{"same-root", gossip.Manifest, 2, 2, gossip.Faulty},
		{"ours-came-meanwhile", gossip.Manifest, 1, 2, gossip.Passed},
		{"ours-came-meanwhile", gossip.Beacon, 1, 2, gossip.Passed},
		{"theirs-is-newer", gossip.Manifest, 3, 2, gossip.Passed},
		{"another-chain-of-roots", gossip.Root, 2, 2, gossip.Passed},
	} {
		d := gossip.Document{Name: gossip.Name{Kind: r.kind}, Root: uint64(r.theirs)}
		if got := verdict(&Report{RootVersion: r.ours}, threshold, d); got != r.want {
			t.Errorf("%s of a %s: %v, want %v", r.name, r.kind, got, r.want)
		}
	}
	if got := verdict(nil, threshold, gossip.Document{}); got != gossip.Passed {
		t.Errorf("nothing is trusted here: %v", got)
	}
}
