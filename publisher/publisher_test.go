package publisher

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

var stable = manifest.Channel{App: "acme", Name: "stable"}

// fleet is a publisher with keys that are the same in every run.
type testFleet struct {
	t       testing.TB
	cfg     Config
	root    *manifest.Root
	rootKey keys.Signer
	release []keys.Signer
	now     time.Time
	dist    string // where builds are written
}

// newFleet makes a repository whose channel acme/stable needs so many of the named
// release keys.
func newFleet(t testing.TB, threshold int, release ...string) *testFleet {
	t.Helper()
	f := &testFleet{t: t, rootKey: keystest.New(t, "root-1@acme"), now: time.Now().UTC().Truncate(time.Second), dist: t.TempDir()}
	f.cfg = Config{Store: filepath.Join(t.TempDir(), "store"), App: "acme", Clock: func() time.Time { return f.now }}
	f.root = &manifest.Root{
		Version: 1, Fleet: "acme", Issued: f.now, Expires: f.now.Add(DefaultRootValidity),
		Root: role(1, []keys.Signer{f.rootKey}), Keys: map[keys.ID]string{},
	}
	f.addKey(f.rootKey)
	for _, name := range release {
		s := keystest.New(t, name)
		f.release = append(f.release, s)
		f.addKey(s)
	}
	f.root.Channels = []manifest.ChannelSpec{{
		App: "acme", Channel: "stable", Epoch: 1, Release: role(threshold, f.release), MaxValidity: DefaultMaxValidity,
	}}
	if _, err := repo.Create(f.cfg.Store, f.sign(f.draftRoot(), manifest.TypeRoot, f.rootKey)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *testFleet) addKey(s keys.Signer) { f.root.Keys[s.Public().ID()] = s.Public().String() }

func (f *testFleet) draftRoot() []byte {
	f.t.Helper()
	b, err := manifest.DraftRoot(f.root)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *testFleet) sign(payload []byte, typ manifest.Type, signers ...keys.Signer) []byte {
	f.t.Helper()
	env := manifest.NewEnvelope(typ, payload)
	for _, e := range keystest.Sign(f.t, string(typ), payload, signers...) {
		if err := env.Attach(e); err != nil {
			f.t.Fatal(err)
		}
	}
	return env.Marshal()
}

// withBeacon has the first channel go by a beacon from now on, and returns its key.
func (f *testFleet) withBeacon() keys.Signer {
	f.t.Helper()
	beacon := keystest.New(f.t, "beacon-1@acme")
	f.nextRoot(func(r *manifest.Root) {
		f.addKey(beacon)
		r.Channels[0].Beacon, r.Channels[0].StaleAfter = new(role(1, []keys.Signer{beacon})), DefaultStaleAfter
	})
	return beacon
}

// nextRoot changes root as an operator's ceremony would.
func (f *testFleet) nextRoot(change func(*manifest.Root)) {
	f.t.Helper()
	prev := manifest.Sum(f.draftRoot())
	f.root.Version++
	if f.root.ID == nil {
		f.root.ID = &prev
	}
	f.root.Prev = &prev
	change(f.root)
	f.write(tree.Root(f.root.Version), f.sign(f.draftRoot(), manifest.TypeRoot, f.rootKey))
}

func (f *testFleet) open() *Publisher {
	f.t.Helper()
	p, err := Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// build writes a file to publish.
func (f *testFleet) build(name, content string) string {
	f.t.Helper()
	path := filepath.Join(f.dist, name)
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// request publishes one linux/amd64 build with the content, signed by signers.
func (f *testFleet) request(version, content string, signers ...keys.Signer) PublishRequest {
	f.t.Helper()
	return PublishRequest{
		Channel: stable, Version: version, Files: []File{{Path: f.build("acme-linux-amd64", content)}},
		Keys: with(signers...), DraftDir: f.dist,
	}
}

func with(signers ...keys.Signer) func(context.Context) ([]keys.Signer, error) {
	return func(context.Context) ([]keys.Signer, error) { return signers, nil }
}

func (f *testFleet) publish(version, content string) *PublishResult {
	f.t.Helper()
	res, err := f.open().Publish(f.t.Context(), f.request(version, content, f.release...))
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

func (f *testFleet) path(name string) string {
	return filepath.Join(repo.TreeDir(f.cfg.Store), filepath.FromSlash(name))
}

func (f *testFleet) read(name string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *testFleet) write(name string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), b, 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// agent is what a machine with nothing but the pin and the tree believes.
func (f *testFleet) agent() (*manifest.Verified, error) {
	f.t.Helper()
	first := f.read(tree.Root(1))
	env, err := manifest.ParseEnvelope(first, manifest.TypeRoot)
	if err != nil {
		f.t.Fatal(err)
	}
	trust, _, err := manifest.Pin(first, env.PayloadHash(), manifest.Options{Clock: f.cfg.Clock})
	if err != nil {
		f.t.Fatal(err)
	}
	for v := int64(2); v <= f.root.Version; v++ {
		if _, err := trust.UpdateRoot(f.read(tree.Root(v))); err != nil {
			f.t.Fatal(err)
		}
	}
	cycle, err := trust.Begin()
	if err != nil {
		return nil, err
	}
	v, _, err := cycle.Manifest(stable, f.read(tree.Manifest(stable)))
	return v, err
}

// snapshot is the content of every file of the tree.
func (f *testFleet) snapshot() map[string]string {
	f.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(repo.TreeDir(f.cfg.Store), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(repo.TreeDir(f.cfg.Store), path)
		files[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return files
}

func wantCode(t testing.TB, err error, want fault.Code) *fault.Error {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Fatalf("error %v (%s), want code %s", err, fault.CodeOf(err), want)
	}
	if len(e.Message) == 0 || bytes.ContainsRune([]byte(e.Message), '\n') {
		t.Errorf("message %q is not one line", e.Message)
	}
	return e
}
