package repo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

func newRepo(t *testing.T) *Repo {
	t.Helper()
	r, err := Create(filepath.Join(t.TempDir(), "store"), []byte("a root"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *Repo) lock(t *testing.T) *Writer {
	t.Helper()
	w, err := r.Lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func open(t *testing.T, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "build")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCreateNeverOverwrites(t *testing.T) {
	r := newRepo(t)
	if _, err := Create(r.dir, []byte("another root")); err == nil {
		t.Error("a second Create succeeded")
	}
	if b, err := os.ReadFile(r.path(tree.Root(1))); err != nil || string(b) != "a root" {
		t.Errorf("the root is %q, %v", b, err)
	}
}

func TestLockIsForOneAtATime(t *testing.T) {
	r := newRepo(t)
	w := r.lock(t)
	hurry, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.Lock(hurry, nil); !errors.Is(err, fault.Locked) {
		t.Errorf("a second lock: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// What a writer that died left is gone when the next one comes.
	left := filepath.Join(r.dir, tmpDir, "half-1234")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.lock(t)
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s is still there", left)
	}
}

func TestAddDataChecksWhatItStores(t *testing.T) {
	const content = "the build"
	sum := manifest.Sum([]byte(content))
	rows := []struct {
		name   string
		src    string
		length int64
		sum    manifest.Digest
		want   fault.Code
	}{
		{"as-promised", content, 9, sum, fault.OK},
		{"other-bytes", "the bulid", 9, sum, fault.ContentMismatch},
		{"cut-short", "the bui", 9, sum, fault.ContentMismatch},
		{"longer-than-promised", content + "!", 9, sum, fault.ContentMismatch},
		{"empty", "", 9, sum, fault.ContentMismatch},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := newRepo(t)
			w := r.lock(t)
			err := w.AddData(t.Context(), open(t, row.src), row.length, row.sum)
			if fault.CodeOf(err) != row.want {
				t.Errorf("%v, want %s", err, row.want)
			}
			b, rerr := os.ReadFile(r.path(tree.Data(row.sum)))
			if stored := rerr == nil; stored != (err == nil) || stored && string(b) != content {
				t.Errorf("stored %q, %v", b, rerr)
			}
			if left, _ := filepath.Glob(filepath.Join(r.dir, tmpDir, "*")); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

func TestReleaseNamesFollowTheData(t *testing.T) {
	r := newRepo(t)
	w := r.lock(t)
	p := manifest.Platform{OS: "linux", Arch: "amd64"}
	name := r.path(tree.Release("acme", "1.0.0", p))
	for _, content := range []string{"one", "one", "two"} { // the same again, then other bytes on purpose
		sum := manifest.Sum([]byte(content))
		if err := w.AddData(t.Context(), open(t, content), 3, sum); err != nil {
			t.Fatal(err)
		}
		info, err := swarm.BuildInfo(t.Context(), strings.NewReader(content), "acme", 3, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.AddRelease("acme", "1.0.0", p, sum, info.Metainfo(nil, nil), info.Magnet(nil, nil)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != content {
			t.Errorf("the release is %q, %v; want %q", b, err, content)
		}
		if same, err := sameFile(r.path(tree.Data(sum)), name); err != nil || !same {
			t.Errorf("the release has a copy of its own: %v, %v", same, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, tmpDir, "*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if err := w.AddRelease("acme", "../1.0.0", p, manifest.Digest{}, nil, ""); !errors.Is(err, fault.UnsafePath) {
		t.Errorf("a version that climbs: %v", err)
	}
}

func TestStampChangesWithTheDocuments(t *testing.T) {
	r := newRepo(t)
	w := r.lock(t)
	ch := manifest.Channel{App: "acme", Name: "stable"}
	seen := map[string]bool{}
	look := func(fresh bool) {
		t.Helper()
		stamp, err := r.Stamp()
		if err != nil || seen[stamp] == fresh {
			t.Errorf("stamp %q, %v; want a new one: %v", stamp, err, fresh)
		}
		seen[stamp] = true
	}
	look(true)
	look(false)
	for seq := range int64(3) {
		if err := w.Publish(ch, manifest.Order{Epoch: 1, Sequence: seq + 1}, []byte(strings.Repeat("x", int(seq)+1))); err != nil {
			t.Fatal(err)
		}
		look(true)
	}
	if err := w.AddData(t.Context(), open(t, "x"), 1, manifest.Sum([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	look(false) // data is no document
}

func TestReadOfWhatIsNoRepository(t *testing.T) {
	rows := []struct {
		name, root string
		want       fault.Code
	}{
		{"not-a-document", "a root", fault.Malformed},
		{"empty", "", fault.Malformed},
		{"endless", strings.Repeat(" ", manifest.MaxRoot+1), fault.TooLarge},
		{"of-another-type", `{"type":"shoal.manifest.v1","payload":"e30=","signatures":[{"keyid":"x","sig":"eA=="}]}`, fault.WrongType},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := newRepo(t)
			if err := os.WriteFile(r.path(tree.Root(1)), []byte(row.root), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(); fault.CodeOf(err) != row.want {
				t.Errorf("%v (%s), want %s", err, fault.CodeOf(err), row.want)
			}
		})
	}
}

func TestHistoryLeavesOutWhatIsNotOfTheChannel(t *testing.T) {
	r := newRepo(t)
	w := r.lock(t)
	ch := manifest.Channel{App: "acme", Name: "stable"}
	if err := w.Publish(ch, manifest.Order{Epoch: 1, Sequence: 1}, []byte("not an envelope")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.2.json~", "x.json", "1.json", "0.1.json"} {
		if err := os.WriteFile(filepath.Join(r.dir, historyDir, "acme", "stable", name), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past, err := r.History(ch, manifest.Order{Epoch: 9, Sequence: 9})
	if err != nil || len(past) != 0 {
		t.Errorf("%d manifests, %v; want none", len(past), err)
	}
	if past, err = r.History(manifest.Channel{App: "acme", Name: "beta"}, manifest.Order{}); err != nil || past != nil {
		t.Errorf("%v, %v of a channel without history", past, err)
	}
}
