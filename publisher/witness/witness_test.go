package witness_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/witness"
)

var stable = manifest.Channel{App: "acme", Name: "stable"}

// fleet makes documents; its keys are the same in every run.
type fleet struct {
	t    *testing.T
	root *manifest.Root
	now  time.Time
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, now: time.Date(2026, 10, 12, 10, 0, 0, 0, time.UTC)}
	f.root = &manifest.Root{Version: 1, Fleet: "acme", Issued: f.now, Expires: f.now.AddDate(2, 0, 0),
		Root: f.spec("root"), Channels: []manifest.ChannelSpec{{App: "acme", Channel: "stable", Epoch: 1, Release: f.spec("ann"), MaxValidity: 24 * time.Hour}}}
	return f
}

func (f *fleet) spec(names ...string) manifest.RoleSpec {
	s := manifest.RoleSpec{Threshold: 1}
	for _, n := range names {
		s.KeyIDs = append(s.KeyIDs, keystest.New(f.t, n).Public().ID())
	}
	return s
}

func (f *fleet) sign(typ manifest.Type, payload []byte, err error, names ...string) []byte {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	env := manifest.NewEnvelope(typ, payload)
	for _, name := range names {
		for _, e := range keystest.Sign(f.t, string(typ), payload, keystest.New(f.t, name)) {
			if err := env.Attach(e); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	return env.Marshal()
}

// rootEnv is a root signed by its key, with the release key of that name.
func (f *fleet) rootEnv(version int64, prev []byte, release, reason string) []byte {
	f.t.Helper()
	r := *f.root
	r.Version, r.Reason = version, reason
	if version > 1 {
		id, last := f.fleetID(), f.hash(manifest.TypeRoot, prev)
		r.ID, r.Prev = &id, &last
	}
	r.Channels = append([]manifest.ChannelSpec{}, r.Channels...)
	r.Channels[0].Release = f.spec(release)
	r.Keys = map[keys.ID]string{}
	for _, name := range []string{"root", release} {
		k := keystest.New(f.t, name).Public()
		r.Keys[k.ID()] = k.String()
	}
	b, err := manifest.DraftRoot(&r)
	return f.sign(manifest.TypeRoot, b, err, "root")
}

func (f *fleet) hash(typ manifest.Type, env []byte) manifest.Digest {
	e, err := manifest.ParseEnvelope(env, typ)
	if err != nil {
		f.t.Fatal(err)
	}
	return e.PayloadHash()
}

func (f *fleet) fleetID() manifest.Digest {
	return f.hash(manifest.TypeRoot, f.rootEnv(1, nil, "ann", ""))
}

func (f *fleet) manifest(sequence int64, content string, names ...string) []byte {
	f.t.Helper()
	sum := manifest.Sum([]byte(content))
	m := &manifest.Manifest{
		Repo: f.fleetID(), App: "acme", Channel: "stable", Epoch: 1, Sequence: sequence, Issued: f.now, Expires: f.now.Add(time.Hour),
		Release: manifest.Release{Version: "1.0." + string(rune('0'+sequence))},
		Artifacts: []manifest.Artifact{{Name: "acme", OS: "linux", Arch: "amd64", Length: 1, SHA256: sum, Mode: "0755",
			Payloads: []manifest.Payload{{Kind: manifest.PayloadFull, Codec: manifest.CodecNone, Length: 1, SHA256: sum, InfoSHA256: sum}}}},
	}
	b, err := manifest.Draft(m, f.now)
	return f.sign(manifest.TypeManifest, b, err, names...)
}

// files is a tree.
type files map[string][]byte

func (fs files) dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range fs {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (fs files) state(t *testing.T) *repo.State {
	t.Helper()
	read, err := witness.Open(t.Context(), nil, fs.dir(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := repo.ReadTree(read, nil, "here")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLook(t *testing.T) {
	f := newFleet(t)
	root1 := f.rootEnv(1, nil, "ann", "")
	root2 := f.rootEnv(2, root1, "ben", "ann leaves")
	other2 := f.rootEnv(2, root1, "cai", "ann leaves")
	root3 := f.rootEnv(3, root2, "ben", "again")
	r1, r2, r3, m := tree.Root(1), tree.Root(2), tree.Root(3), tree.Manifest(stable)
	two := f.manifest(2, "two", "ann")
	oneRoot := files{r1: root1, m: two}
	twoRoots := files{r1: root1, r2: root2, m: f.manifest(2, "two", "ben")}
	stranger := newFleet(t)
	stranger.root.Fleet = "strangers"
	rows := []struct {
		name    string
		ours    files
		theirs  files
		refuse  string // part of the refusal; empty: none
		problem string // part of the warning; empty: none
	}{
		{name: "the-same", ours: oneRoot, theirs: oneRoot},
		{name: "an-empty-mirror", ours: oneRoot, theirs: files{}},
		{name: "roots-and-no-release", ours: oneRoot, theirs: files{r1: root1}},
		{name: "an-older-release", ours: oneRoot, theirs: files{r1: root1, m: f.manifest(1, "one", "ann")}},
		{name: "a-newer-release", ours: oneRoot, theirs: files{r1: root1, m: f.manifest(3, "three", "ann")}, refuse: "has acme/stable 1.0.3 1.3, this repository only 1.2"},
		{name: "another-release-with-our-number", ours: oneRoot, theirs: files{r1: root1, m: f.manifest(2, "fork", "ann")}, refuse: "another acme/stable 1.2"},
		{name: "our-release-signed-by-more", ours: oneRoot, theirs: files{r1: root1, m: f.manifest(2, "two", "ann", "ben")}},
		{name: "a-newer-release-nobody-signed", ours: oneRoot, theirs: files{r1: root1, m: f.manifest(3, "three", "mallory")}, problem: "0 of 1 required signatures"},
		{name: "no-json", ours: oneRoot, theirs: files{r1: root1, m: []byte("<html>")}, problem: "strict JSON"},
		{name: "endless-release", ours: oneRoot, theirs: files{r1: root1, m: make([]byte, manifest.MaxManifest+1)}, problem: "larger than"},
		{name: "another-fleet", ours: oneRoot, theirs: files{r1: stranger.rootEnv(1, nil, "ann", "")}, problem: "serves another fleet"},
		{name: "an-older-root", ours: twoRoots, theirs: oneRoot},
		{name: "another-fleet-that-is-behind", ours: twoRoots, theirs: files{r1: stranger.rootEnv(1, nil, "ann", "")}, problem: "serves another fleet"},
		{name: "a-newer-root", ours: oneRoot, theirs: twoRoots, refuse: "has root 2, this repository only root 1"},
		{name: "two-newer-roots", ours: oneRoot, theirs: files{r1: root1, r2: root2, r3: root3}, refuse: "has root 3, this repository only root 1"},
		{name: "another-root-with-our-number", ours: twoRoots, theirs: files{r1: root1, r2: other2}, refuse: "has another root 2"},
		{name: "a-newer-root-nobody-signed", ours: oneRoot, theirs: files{r1: root1, r2: f.sign(manifest.TypeRoot, payloadOf(t, root2), nil, "mallory"), m: two}, problem: "required signatures"},
		{name: "a-newer-release-beside-a-bad-root", ours: oneRoot, theirs: files{r1: root1, r2: []byte("{}"), m: f.manifest(3, "three", "ann")}, refuse: "1.3", problem: "root"},
		// Keys that root has replaced signed it while they counted: its number is used up.
		{name: "a-newer-release-by-keys-of-before", ours: twoRoots, theirs: files{r1: root1, m: f.manifest(3, "three", "ann")}, refuse: "1.3"},
		{name: "an-older-release-by-keys-of-before", ours: twoRoots, theirs: files{r1: root1, m: f.manifest(1, "one", "ann")}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			ours, place := row.ours.state(t), row.theirs.dir(t)
			server := httptest.NewServer(http.FileServer(http.Dir(place)))
			defer server.Close()
			ch, err := ours.Channel(stable)
			if err != nil {
				t.Fatal(err)
			}
			next := manifest.Order{Epoch: 1, Sequence: ch.Last.Sequence + 1}
			for _, place := range []string{place, server.URL} {
				views := witness.Look(t.Context(), nil, []string{place}, ours.Trust, stable)
				err := witness.Refuse(views, stable, ch.Last, next, manifest.Digest{}, false)
				switch {
				case row.refuse == "" && err != nil:
					t.Errorf("refused: %v", err)
				case row.refuse != "" && (!errors.Is(err, fault.Equivocation) || !strings.Contains(err.Error(), row.refuse)):
					t.Errorf("%v, want equivocation with %q", err, row.refuse)
				}
				warnings := strings.Join(witness.Warnings(views), "\n")
				if (row.problem == "") != (warnings == "") || !strings.Contains(warnings, row.problem) {
					t.Errorf("warnings %q, want %q", warnings, row.problem)
				}
			}
		})
	}
}

func payloadOf(t *testing.T, env []byte) []byte {
	e, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		t.Fatal(err)
	}
	return e.Payload
}

// A number chosen to be above everything goes on; one that is not above everything does
// not, and no number is above another root.
func TestRefuseLetsAJumpPass(t *testing.T) {
	f := newFleet(t)
	root1 := f.rootEnv(1, nil, "ann", "")
	ours := files{tree.Root(1): root1, tree.Manifest(stable): f.manifest(2, "two", "ann")}.state(t)
	last := manifest.Order{Epoch: 1, Sequence: 2}
	ahead := files{tree.Root(1): root1, tree.Manifest(stable): f.manifest(5, "five", "ann")}.dir(t)
	fork := files{tree.Root(1): root1, tree.Manifest(stable): f.manifest(2, "fork", "ann")}.dir(t)
	rooted := files{tree.Root(1): root1, tree.Root(2): f.rootEnv(2, root1, "ben", "")}.dir(t)
	for _, row := range []struct {
		name   string
		places []string
		next   int64
		jump   bool
		passes bool
	}{
		{"next-number", []string{ahead}, 3, false, false},
		{"jump-that-is-too-short", []string{ahead}, 5, true, false},
		{"jump-above", []string{ahead}, 6, true, true},
		{"jump-that-nobody-meant", []string{ahead}, 6, false, false},
		{"next-after-a-fork", []string{fork}, 3, false, false},
		{"next-after-a-fork-on-purpose", []string{fork}, 3, true, true},
		{"above-one-and-not-the-other", []string{fork, ahead}, 3, true, false},
		{"another-root", []string{rooted}, 99, true, false},
	} {
		views := witness.Look(t.Context(), nil, row.places, ours.Trust, stable)
		err := witness.Refuse(views, stable, last, manifest.Order{Epoch: 1, Sequence: row.next}, manifest.Digest{}, row.jump)
		if (err == nil) != row.passes {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestPlacesThatDoNotAnswer(t *testing.T) {
	f := newFleet(t)
	ours := files{tree.Root(1): f.rootEnv(1, nil, "ann", "")}.state(t)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer broken.Close()
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }))
	defer away.Close()
	places := []string{closed.URL, broken.URL, away.URL, filepath.Join(t.TempDir(), "not-mounted"), "ftp://example/", ""}
	views := witness.Look(t.Context(), nil, places, ours.Trust, stable)
	if err := witness.Refuse(views, stable, manifest.Order{}, manifest.Order{Epoch: 1, Sequence: 1}, manifest.Digest{}, false); err != nil {
		t.Errorf("a place that does not answer stops a release: %v", err)
	}
	for i, v := range views {
		if v.Problem == nil {
			t.Errorf("nothing is said about %q", places[i])
		}
	}
}
