package agent

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

// offline is a bench whose machine reaches nobody.
func offline(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.cfg.Sources.Publisher = "http://127.0.0.1:1"
	return b
}

// imported imports a bundle with a fresh agent and returns how the app stands.
func (b *bench) imported(path string) (Updated, error) {
	b.t.Helper()
	a := b.open()
	defer a.Close()
	updated, err := a.Import(b.t.Context(), path, nil)
	if err != nil {
		return Updated{}, err
	}
	return updated[0], updated[0].Error.Err()
}

func (b *bench) wantImport(path string, code fault.Code) {
	b.t.Helper()
	u, err := b.imported(path)
	if fault.CodeOf(err) == fault.OK {
		b.want(u, code, manifest.StateHealthy)
	} else {
		b.t.Errorf("%v, want %s", err, code)
	}
}

func TestImport(t *testing.T) {
	b := offline(t)
	next := agenttest.Large("2", 0)
	env := b.Release(stable, 2, next)
	b.Put(tree.Beacon(stable), b.Beacon(env))
	b.Put(tree.Root(2), b.Rotate())
	path := b.Bundle()
	u, err := b.imported(path)
	if err != nil {
		t.Fatal(err)
	}
	b.want(u, fault.OK, manifest.StateHealthy)
	b.installed(next)
	if u.Version != "1.0.2" || u.Freshness != manifest.FreshCurrent || u.Update.Bytes != (Bytes{}) {
		t.Errorf("status %+v, update %+v", u.AppStatus, u.Update)
	}
	b.wantImport(path, fault.Same)
	b.installed(next)
	if b.Asked() != 0 {
		t.Errorf("%d requests reached the publisher", b.Asked())
	}
	a := b.open()
	if root, _ := a.follow.Root(); root.Version != 2 {
		t.Errorf("root %d is trusted, want 2", root.Version)
	}
	stored, err := a.Stored(t.Context())
	if err != nil || len(stored) != 1 || stored[0].SHA256 != manifest.Sum(next) || !stored[0].Whole {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if _, err := os.Stat(a.cache.Info(artifact(t, env).Payloads[0].InfoSHA256)); err != nil {
		t.Error(err)
	}
}

func artifact(t *testing.T, env []byte) manifest.Artifact {
	t.Helper()
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return m.Artifacts[0]
}

// foreign is a bundle of another fleet, which has the same channel.
func foreign(t *testing.T) string {
	t.Helper()
	p := agenttest.New(t)
	other := *p.Root
	other.Fleet = "other"
	payload, err := manifest.DraftRoot(&other)
	if err != nil {
		t.Fatal(err)
	}
	p.Roots = nil
	p.Publish(p.Sign(manifest.TypeRoot, payload, "root-1", "root-2"))
	p.PutRoots()
	p.Release(stable, 9, agenttest.Program("9", 0))
	return p.Bundle()
}

// The machine trusts sequence 2, and runs what came before it.
func TestImportRefuses(t *testing.T) {
	next := agenttest.Program("2", 0)
	data := tree.Data(manifest.Sum(agenttest.Program("3", 0)))
	cut := func(n int64) func(b *bench, path string) string {
		return func(b *bench, path string) string {
			fi, err := os.Stat(path)
			if err == nil {
				err = os.Truncate(path, fi.Size()-n)
			}
			if err != nil {
				b.t.Fatal(err)
			}
			return path
		}
	}
	edited := func(edit func(b *bench, files map[string][]byte)) func(b *bench, path string) string {
		return func(b *bench, _ string) string {
			return b.Bundle(func(files map[string][]byte) { edit(b, files) })
		}
	}
	rows := []struct {
		name string
		do   func(b *bench, path string) string
		want fault.Code
	}{
		{"cut-short", cut(5000), fault.Malformed},
		{"without-its-end", cut(1), fault.Malformed},
		{"gone", func(b *bench, path string) string { return path + ".none" }, fault.NotFound},
		{"a-directory", func(b *bench, path string) string { return filepath.Dir(path) }, fault.Usage},
		{"something-else", func(b *bench, path string) string { return b.target }, fault.Malformed},
		{"foreign-fleet", func(b *bench, path string) string { return foreign(b.t) }, fault.PinMismatch},
		{"expired", func(b *bench, path string) string { b.Now = b.Now.AddDate(0, 6, 0); return path }, fault.Expired},
		{"older", edited(func(b *bench, files map[string][]byte) {
			files[tree.Manifest(stable)] = b.Draft(stable, 1, agenttest.Program("1", 0))
		}), fault.Rollback},
		{"another-release-of-the-same-number", edited(func(b *bench, files map[string][]byte) {
			files[tree.Manifest(stable)] = b.Draft(stable, 2, agenttest.Program("x", 0))
		}), fault.Equivocation},
		{"signed-too-seldom", edited(func(b *bench, files map[string][]byte) {
			files[tree.Manifest(stable)] = b.Draft(stable, 4, agenttest.Program("3", 0), manifesttest.SignedBy("release-1"))
		}), fault.Threshold},
		{"root-that-does-not-follow", edited(func(b *bench, files map[string][]byte) {
			files[tree.Root(2)] = b.NextRoot(manifesttest.SignedBy("root-1"))
		}), fault.Threshold},
		{"another-channel", edited(func(b *bench, files map[string][]byte) {
			files[tree.Manifest(manifesttest.Nightly)] = b.Draft(manifesttest.Nightly, 1, agenttest.Program("3", 0))
			delete(files, tree.Manifest(stable))
		}), fault.WrongTarget},
		{"payload-swapped", edited(func(b *bench, files map[string][]byte) {
			files[data] = bytes.Replace(files[data], []byte("3"), []byte("6"), 1)
		}), fault.ContentMismatch},
		{"payload-longer", edited(func(b *bench, files map[string][]byte) { files[data] = append(files[data], '#') }), fault.LengthExceeded},
		{"info-dict-swapped", edited(func(b *bench, files map[string][]byte) {
			files[tree.Info(artifact(b.t, files[tree.Manifest(stable)]).Payloads[0].InfoSHA256)] = []byte("de")
		}), fault.BadInfo},
		{"too-large-for-this-machine", func(b *bench, path string) string { b.cfg.Disk.Cache = 5; return path }, fault.Quota},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := offline(t)
			b.Release(stable, 2, next)
			b.wantImport(b.Bundle(), fault.OK)
			b.Release(stable, 3, agenttest.Program("3", 0))
			path := r.do(b, b.Bundle())
			_, err := b.imported(path)
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != r.want {
				t.Fatalf("%v (%s), want %s", err, fault.CodeOf(err), r.want)
			}
			if text := strings.Join(append(e.Detail, e.Next...), "\n"); !strings.Contains(text, "keeps running") && e.Code != fault.PinMismatch && e.Code != fault.Usage {
				t.Errorf("it does not say what still works: %q", text)
			}
			b.installed(next)
			a := b.open()
			stored, serr := a.Stored(t.Context())
			for _, s := range stored {
				if s.SHA256 != manifest.Sum(next) {
					t.Errorf("%+v is in the cache (%v)", s, serr)
				}
			}
			a.Close()
			// An honest bundle lands afterwards, unless it would be refused itself.
			b.cfg.Disk.Cache = 0
			if r.want != fault.Expired {
				b.wantImport(b.Bundle(), fault.OK)
			}
		})
	}
}

// What this machine may not install yet is kept and given to neighbours, who may.
func TestImportWhileHeld(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	b := offline(t)
	next := agenttest.Large("2", 0)
	env := b.Release(stable, 2, next, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Rollout = &manifest.Rollout{Paused: true} }))
	path := b.Bundle()
	defer b.run()()
	b.serving()
	updated, err := b.connect().Import(t.Context(), path, nil)
	if err != nil || updated[0].Code != fault.Held {
		t.Fatalf("%+v, %v; want held", updated, err)
	}
	b.installed(b.old)

	p := artifact(t, env).Payloads[0]
	dict, err := os.ReadFile(filepath.Join(b.Dir, filepath.FromSlash(tree.Info(p.InfoSHA256))))
	if err != nil {
		t.Fatal(err)
	}
	info, err := swarm.OpenInfo(dict, swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length})
	if err != nil {
		t.Fatal(err)
	}
	node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := node.Fetch(t.Context(), info, dst, swarm.FetchOptions{Peers: []string{b.status().Listen}}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, next) {
		t.Errorf("the neighbour has %d bytes, %v", len(got), err)
	}
}

func TestJoinFromBundle(t *testing.T) {
	b := newcomer(t)
	b.cfg.Sources = Sources{}
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	path := b.Bundle()
	j, err := JoinFrom(t.Context(), b.cfg, b.Link(stable), path)
	if err != nil || j.Version != "1.0.2" || j.Already || j.TOFU {
		t.Fatalf("joined %+v, %v", j, err)
	}
	if pin, err := state.ReadPin(b.cfg.JoinFile); err != nil || pin.Repo.String() != b.Pin().Prefixed() || len(pin.Root) == 0 {
		t.Errorf("pin %+v, %v", pin, err)
	}
	b.installed(b.old) // joining installs nothing
	if j, err = JoinFrom(t.Context(), b.cfg, b.Link(stable), path); err != nil || !j.Already {
		t.Errorf("again: %+v, %v", j, err)
	}
	b.wantImport(path, fault.OK)
	b.installed(next)
	if b.Asked() != 0 {
		t.Errorf("%d requests reached the publisher", b.Asked())
	}
}

// A join that fails leaves nothing.
func TestJoinFromBundleRefusals(t *testing.T) {
	rows := []struct {
		name string
		do   func(b *bench, path string) string
		want fault.Code
	}{
		{"foreign-fleet", func(b *bench, path string) string { return foreign(b.t) }, fault.PinMismatch},
		{"cut-short", func(b *bench, path string) string { os.Truncate(path, 2000); return path }, fault.Malformed},
		{"gone", func(b *bench, path string) string { return path + ".none" }, fault.NotFound},
		{"expired", func(b *bench, path string) string { b.Now = b.Now.AddDate(0, 6, 0); return path }, fault.Expired},
		{"signed-too-seldom", func(b *bench, path string) string {
			return b.Bundle(func(f map[string][]byte) {
				f[tree.Manifest(stable)] = b.Draft(stable, 2, b.old, manifesttest.SignedBy("release-1"))
			})
		}, fault.Threshold},
		{"for-members-alone", func(b *bench, path string) string {
			private, err := swarm.BuildInfo(context.Background(), bytes.NewReader(b.old), "acme", int64(len(b.old)), true)
			if err != nil {
				b.t.Fatal(err)
			}
			b.Put(tree.Info(private.Ref().InfoSHA256), private.Bytes())
			b.Release(stable, 3, b.old, manifesttest.WithManifest(func(m *manifest.Manifest) {
				p := &m.Artifacts[0].Payloads[0]
				p.Infohash, p.InfoSHA256 = private.Ref().Infohash, private.Ref().InfoSHA256
			}))
			return b.Bundle()
		}, fault.Config},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newcomer(t)
			b.cfg.Sources = Sources{}
			b.Release(stable, 2, b.old)
			path := r.do(b, b.Bundle())
			if j, err := JoinFrom(t.Context(), b.cfg, b.Link(stable), path); !errors.Is(err, r.want) {
				t.Errorf("%+v, %v; want %s", j, err, r.want)
			}
			for _, path := range []string{b.cfg.JoinFile, b.cfg.StateDir} {
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was left behind", path)
				}
			}
		})
	}
}
