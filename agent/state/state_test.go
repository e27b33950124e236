package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// open opens dir with its anchor inside, until the test ends or Close.
func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, filepath.Join(dir, "anchor.json"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t *testing.T, s *Store) *Memory {
	t.Helper()
	m, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fill stores a state with two roots, two channels and a beacon.
func fill(t *testing.T, s *Store, f *manifesttest.Fleet) manifest.Snapshot {
	t.Helper()
	f.Rotate()
	trust := f.Trust()
	accept(t, trust, manifesttest.Stable, f.Manifest(manifesttest.Stable, 41))
	env := f.Manifest(manifesttest.Stable, 42)
	cycle := accept(t, trust, manifesttest.Stable, env)
	if fresh, events := cycle.Beacon(manifesttest.Stable, f.Beacon(env)); fresh != manifest.FreshCurrent {
		t.Fatal(fresh, events)
	}
	accept(t, trust, manifesttest.Nightly, f.Manifest(manifesttest.Nightly, 7))
	snap := trust.Snapshot()
	local := Local{
		Installed: map[string]Installed{"acme": {SHA256: manifesttest.Content("1.0.42"), Epoch: 1, Sequence: 42, At: f.Now}},
		Counters:  map[string]int64{"report": 1873},
	}
	if err := s.Save(snap, local); err != nil {
		t.Fatal(err)
	}
	return snap
}

func accept(t testing.TB, trust *manifest.Trust, ch manifest.Channel, env []byte) *manifest.Cycle {
	t.Helper()
	cycle, err := trust.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := cycle.Manifest(ch, env); err != nil {
		t.Fatal(err)
	}
	return cycle
}

func TestWhatIsSavedIsRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f := manifesttest.New(t)
	snap := fill(t, s, f)
	m := read(t, s)
	if !m.Known || m.Repaired || len(m.Events) > 0 {
		t.Errorf("known %v, repaired %v, events %v; want a sound state", m.Known, m.Repaired, m.Events)
	}
	if diff := cmp.Diff(snap, m.Snapshot); diff != "" {
		t.Errorf("the snapshot changed on its way (-saved +read):\n%s", diff)
	}
	if in := m.Local.Installed["acme"]; in.Sequence != 42 || !in.At.Equal(f.Now) || m.Local.Counters["report"] != 1873 {
		t.Errorf("local memory changed on its way: %+v", m.Local)
	}
	// The exact bytes of the documents, under the names of the tree.
	for path, want := range map[string][]byte{
		"trust/root/000001.json": f.Roots[0], "trust/root/000002.json": f.Roots[1],
		"trust/m/acme/stable.json": snap.Manifests[manifesttest.Stable], "trust/b/acme/stable.json": snap.Beacons[manifesttest.Stable],
	} {
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: not the bytes that were accepted (%v)", path, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "trust")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("trust has mode %v, %v; want 0700", fi.Mode(), err)
	}
}

// The members of state.json that other programs may read.
func TestStateFileMembers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, manifesttest.New(t))
	b, err := os.ReadFile(filepath.Join(dir, "trust", "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v", "repo", "tofu", "root_version", "root_sha256", "channels", "last_epochs", "installed", "counters"} {
		if _, ok := doc[name]; !ok {
			t.Errorf("state.json has no %q", name)
		}
	}
	stable := doc["channels"].(map[string]any)["acme/stable"].(map[string]any)
	if stable["sequence"] != 42.0 || stable["epoch"] != 1.0 || stable["manifest_sha256"] == nil || stable["last_beacon"] == nil {
		t.Errorf("acme/stable is %v", stable)
	}
}

func TestSavingTheSameWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	snap := fill(t, s, manifesttest.New(t))
	m := read(t, s)
	before := stamps(t, dir)
	if err := s.Save(snap, m.Local); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, stamps(t, dir)); diff != "" {
		t.Errorf("files were written again:\n%s", diff)
	}
}

// stamps names every file with its inode's change, which a rename into place shows.
func stamps(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		all[path] = fmt.Sprint(fi.ModTime().UnixNano(), fi.Size())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOneAgentPerDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(dir, filepath.Join(dir, "anchor.json")); !errors.Is(err, fault.Locked) {
		t.Errorf("a second agent: %v, want locked", err)
	}
	s.Close()
	open(t, dir)
}

// order is what must never fall.
func order(s manifest.State) map[string]int64 {
	o := map[string]int64{"root": s.RootVersion}
	for ch, c := range s.Channels {
		o[ch.String()] = c.Epoch<<32 + c.Sequence
	}
	return o
}

// load verifies what is stored, getting a first root that was damaged from elsewhere,
// as an agent gets it from a source.
func load(t *testing.T, m *Memory, f *manifesttest.Fleet) *manifest.Trust {
	t.Helper()
	snap := m.Snapshot
	trust, _, err := manifest.Load(snap, f.Options())
	if errors.Is(err, fault.RootBehind) {
		snap.Roots = f.Roots[:1]
		trust, _, err = manifest.Load(snap, f.Options())
	}
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// checkNoLess fails if trust has fallen below want, or holds another manifest than the
// one that was accepted.
func checkNoLess(t *testing.T, what string, trust *manifest.Trust, want manifest.Snapshot) {
	t.Helper()
	got := order(trust.Snapshot().State)
	for name, n := range order(want.State) {
		if got[name] < n {
			t.Errorf("%s: %s fell from %d to %d", what, name, n, got[name])
		}
	}
	for ch, c := range want.State.Channels {
		if v, ok := trust.Held(ch); ok && v.Hash != c.ManifestSHA256 {
			t.Errorf("%s: %s holds another manifest", what, ch)
		}
	}
}

func TestTornFilesNeverLowerTheOrder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f := manifesttest.New(t)
	snap := fill(t, s, f)
	var files []string
	for name := range stamps(t, dir) {
		if filepath.Base(name) != lockFile {
			files = append(files, name)
		}
	}
	if len(files) < 7 {
		t.Fatalf("only %d files: %v", len(files), files)
	}
	for _, path := range files {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The state and the anchor at every byte. A document that is cut anywhere is no
		// document, which is quickly seen; a few of them are put to the whole test.
		document := !slices.Contains([]string{stateFile, "anchor.json"}, filepath.Base(path))
		for n := range len(whole) {
			if document && n%97 != 0 && n < len(whole)-2 {
				if cutDocumentReads(whole[:n]) {
					t.Errorf("%s cut at %d is still a document", path, n)
				}
				continue
			}
			if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			m := read(t, s)
			if !m.Known {
				t.Fatalf("%s cut at %d: the state counts as lost", path, n)
			}
			got := order(m.Snapshot.State)
			for name, want := range order(snap.State) {
				if got[name] < want {
					t.Fatalf("%s cut at %d: %s fell from %d to %d", path, n, name, want, got[name])
				}
			}
			if document || n%97 == 0 {
				checkNoLess(t, fmt.Sprintf("%s cut at %d", filepath.Base(path), n), load(t, m, f), snap)
			}
			if t.Failed() {
				return
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func cutDocumentReads(b []byte) bool {
	for _, typ := range []manifest.Type{manifest.TypeRoot, manifest.TypeManifest, manifest.TypeBeacon} {
		if _, err := manifest.ParseEnvelope(b, typ); err == nil {
			return true
		}
	}
	return false
}

func TestFlippedByteInADocumentDropsIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f := manifesttest.New(t)
	snap := fill(t, s, f)
	path := filepath.Join(dir, "trust", "m", "acme", "stable.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), `"payload"`) + 40
	whole[at] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	trust := load(t, read(t, s), f)
	if _, ok := trust.Held(manifesttest.Stable); ok {
		t.Error("a changed manifest is still held")
	}
	checkNoLess(t, "flipped byte", trust, snap)
}

func TestLostAndOlderCopies(t *testing.T) {
	rows := []struct {
		name         string
		damage       func(t *testing.T, state, anchor string)
		known        bool
		repairs      bool // it says that it repaired something
		wantSequence int64
	}{
		{"state-deleted", func(t *testing.T, state, anchor string) { remove(t, state) }, true, true, 42},
		{"anchor-deleted", func(t *testing.T, state, anchor string) { remove(t, anchor) }, true, false, 42},
		{"both-deleted", func(t *testing.T, state, anchor string) { remove(t, state); remove(t, anchor) }, false, false, 0},
		{"state-put-back-from-a-backup", func(t *testing.T, state, anchor string) { older(t, state) }, true, true, 42},
		{"anchor-put-back-from-a-backup", func(t *testing.T, state, anchor string) { older(t, anchor) }, true, false, 42},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			f := manifesttest.New(t)
			fill(t, s, f)
			r.damage(t, filepath.Join(dir, "trust", "state.json"), filepath.Join(dir, "anchor.json"))
			m := read(t, s)
			if m.Known != r.known {
				t.Fatalf("known %v, want %v", m.Known, r.known)
			}
			if !r.known {
				if !m.Used || len(m.Snapshot.Roots) != 2 || m.Snapshot.Manifests[manifesttest.Stable] == nil {
					t.Errorf("used %v, %d roots, manifests %v; want what was left behind", m.Used, len(m.Snapshot.Roots), len(m.Snapshot.Manifests))
				}
				return
			}
			if c := m.Snapshot.State.Channels[manifesttest.Stable]; c.Sequence != r.wantSequence {
				t.Errorf("sequence %d, want %d", c.Sequence, r.wantSequence)
			}
			said := len(m.Events) > 0 && m.Events[0].Code == fault.StateRepaired
			if said != r.repairs {
				t.Errorf("events %v, want a repair: %v", m.Events, r.repairs)
			}
			if err := s.Save(m.Snapshot, m.Local); err != nil {
				t.Fatal(err)
			}
			if again := read(t, s); again.Repaired || len(again.Events) > 0 {
				t.Errorf("after saving: repaired %v, events %v", again.Repaired, again.Events)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// older lowers the sequence in a stored state.
func older(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lower := strings.Replace(string(b), `"sequence": 42`, `"sequence": 12`, 1)
	if lower == string(b) {
		t.Fatal("there is no sequence 42 in it")
	}
	if err := os.WriteFile(path, []byte(lower), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, manifesttest.New(t))
	state := filepath.Join(dir, "trust", "state.json")
	b, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(b), `"v": 1`, `"v": 2`, 1)
	if err := os.WriteFile(state, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); !errors.Is(err, fault.AgentTooOld) {
		t.Errorf("a newer schema: %v, want agent_too_old", err)
	}
	id := regexp.MustCompile(`"repo": "sha256:[0-9a-f]{64}"`)
	other := id.ReplaceAllString(string(b), fmt.Sprintf(`"repo": %q`, manifest.Sum(nil).Prefixed()))
	if err := os.WriteFile(state, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("another fleet's anchor: %v, want pin_mismatch", err)
	}
}

func TestForgetLeavesNothingKnown(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, manifesttest.New(t))
	if _, _, err := s.identity(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(); err != nil {
		t.Fatal(err)
	}
	if m := read(t, s); m.Known || m.Used {
		t.Errorf("known %v, used %v after forgetting", m.Known, m.Used)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != lockFile {
		t.Errorf("left %v, %v; want the lock alone", left, err)
	}
}
