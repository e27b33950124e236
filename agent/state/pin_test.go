package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

func TestPinFile(t *testing.T) {
	id := manifest.Sum([]byte("a root")).Prefixed()
	rows := []struct {
		name, text string
		want       fault.Code // empty: it is read
	}{
		{"as-configuration-management-writes-it", `{"repo":"` + id + `"}`, ""},
		{"all-members", `{"repo":"` + id + `","root":{"type":"x"},"min_root":5,"min_sequence":{"acme/stable":{"epoch":1,"sequence":42}},"tofu":false}`, ""},
		{"unknown-members-are-for-later-agents", `{"repo":"` + id + `","colour":"red"}`, ""},
		{"no-fleet", `{"min_root":5}`, fault.Config},
		{"fleet-without-prefix", `{"repo":"` + strings.TrimPrefix(id, "sha256:") + `"}`, fault.Config},
		{"two-fleets", `{"repo":"` + id + `","repo":"` + id + `"}`, fault.Config},
		{"two-fleets-by-case", `{"repo":"` + id + `","REPO":"` + id + `"}`, fault.Config},
		{"floor-of-no-channel", `{"repo":"` + id + `","min_sequence":{"acme":{"epoch":1,"sequence":1}}}`, fault.Config},
		{"cut-short", `{"repo":"` + id, fault.Config},
		{"empty", ``, fault.Config},
		{"endless", `{"repo":"` + id + `","x":"` + strings.Repeat("x", maxPinFile) + `"}`, fault.Config},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "join.json")
			if err := os.WriteFile(path, []byte(r.text), 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := ReadPin(path)
			if r.want == "" && (err != nil || p.Repo.String() != id) {
				t.Errorf("ReadPin = %+v, %v", p, err)
			}
			if r.want != "" && !errors.Is(err, r.want) {
				t.Errorf("ReadPin: %v, want %s", err, r.want)
			}
		})
	}
	if _, err := ReadPin(filepath.Join(t.TempDir(), "join.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
}

func TestPinRemembersFloors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "join.json")
	p := &Pin{Repo: manifest.FleetID(manifest.Sum(nil))}
	p.Raise(3, manifesttest.Stable, manifest.Order{Epoch: 2, Sequence: 7})
	p.Raise(2, manifesttest.Stable, manifest.Order{Epoch: 1, Sequence: 99}) // lower: nothing falls
	if err := p.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPin(path)
	if err != nil {
		t.Fatal(err)
	}
	least, ok := got.Least(manifesttest.Stable)
	if got.MinRoot != 3 || !ok || least != (manifest.Order{Epoch: 2, Sequence: 7}) {
		t.Errorf("floors are root %d, %v; want 3 and 2.7", got.MinRoot, least)
	}
	if _, ok := got.Least(manifesttest.Nightly); ok {
		t.Error("a channel without a floor has one")
	}
	got.MinSequence = map[string]Order{AnyChannel: {1, 5}}
	if least, _ := got.Least(manifesttest.Nightly); least.Sequence != 5 {
		t.Errorf("the floor of any channel is %v, want 1.5", least)
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	get := func(machine string, wantMade bool) string {
		t.Helper()
		key, made, err := s.identity(t.Context(), machine)
		if err != nil || made != wantMade {
			t.Fatalf("made %v, %v; want %v", made, err, wantMade)
		}
		return string(key.Public().ID())
	}
	first := get(hashed("machine one"), true)
	if again := get(hashed("machine one"), false); again != first {
		t.Errorf("the id changed from %s to %s", first, again)
	}
	if same := get("", false); same != first {
		t.Errorf("a machine that cannot be told lost its id")
	}
	clone := get(hashed("machine two"), true)
	if clone == first {
		t.Error("a clone kept the original's key")
	}
	if again := get(hashed("machine two"), false); again != clone {
		t.Error("the clone's id changed again")
	}
	for _, name := range []string{keyFile, machineFile} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, fi.Mode(), err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, machineFile)); err != nil || strings.Contains(string(b), "machine two") {
		t.Errorf("the machine's id is kept in the clear: %q, %v", b, err)
	}
}

func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(`{"v":1,"repo":"` + manifest.Sum(nil).Prefixed() + `","root_version":1,"channels":{"acme/stable":{"epoch":1,"sequence":2}}}`))
	f.Add([]byte(`{"v":1`))
	f.Add([]byte(``))
	path := filepath.Join(f.TempDir(), "state.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := readDocument(path); err == nil && d != nil && (d.Repo.IsZero() || d.RootVersion < 1) {
			t.Errorf("%q is taken for a state", b)
		}
	})
}
