package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// What an operator has decided outlives whatever happens to one of the two files.
func TestOperatorsWordSurvives(t *testing.T) {
	stable, unknown := manifesttest.Stable, manifest.Channel{App: "acme", Name: "beta"}
	rows := []struct {
		name string
		harm func(t *testing.T, state, anchor string)
	}{
		{"nothing-happened", func(*testing.T, string, string) {}},
		{"state-lost", func(t *testing.T, state, _ string) { lose(t, state) }},
		{"anchor-lost", func(t *testing.T, _, anchor string) { lose(t, anchor) }},
		{"state-torn", func(t *testing.T, state, _ string) { put(t, state, []byte(`{"v":1,"repo":"sha`)) }},
		{"state-from-an-old-backup", nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			s, f := open(t, dir), manifesttest.New(t)
			state, anchor := filepath.Join(dir, trustDir, stateFile), filepath.Join(dir, "anchor.json")
			trust := f.Trust()
			accept(t, trust, stable, f.Manifest(stable, 41))
			if err := s.Save(trust.Snapshot(), Local{}); err != nil {
				t.Fatal(err)
			}
			backup := get(t, state)
			for _, member := range []string{"hold_until", "held", "pins", "installed", "reverted_from", "lost_at"} {
				if strings.Contains(string(backup), member) {
					t.Errorf("state.json has %q though there is none", member)
				}
			}
			accept(t, trust, stable, f.Manifest(stable, 42))
			want := Local{
				HoldUntil: map[manifest.Channel]time.Time{stable: NoEnd, unknown: f.Now.Add(time.Hour)},
				Pins:      map[manifest.Channel]string{stable: "1.0.41"},
				Installed: map[string]Installed{"acme": {SHA256: manifesttest.Content("a"), At: f.Now, RevertedFrom: manifesttest.Content("b")}},
			}
			if err := s.Save(trust.Snapshot(), want); err != nil {
				t.Fatal(err)
			}
			if r.harm == nil {
				r.harm = func(t *testing.T, state, _ string) { put(t, state, backup) }
			}
			r.harm(t, state, anchor)
			for range 2 { // as it is read, and as it is read again after a repair
				m := read(t, s)
				if diff := cmp.Diff(want, m.Local); diff != "" {
					t.Fatalf("what was decided (-before +after):\n%s", diff)
				}
				if _, ok := m.Snapshot.State.Channels[unknown]; ok || m.Snapshot.State.Channels[stable].Sequence != 42 {
					t.Errorf("trusted: %+v; want stable at 42 alone", m.Snapshot.State.Channels)
				}
				if err := s.Save(trust.Snapshot(), m.Local); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Save(trust.Snapshot(), Local{}); err != nil {
				t.Fatal(err)
			}
			if m := read(t, s); m.Local.HoldUntil != nil || m.Local.Pins != nil {
				t.Errorf("taken back, and still there: %+v", m.Local)
			}
		})
	}
}

func get(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func lose(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
