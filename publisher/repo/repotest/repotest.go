// Package repotest makes repositories whose keys are in a test's hands.
package repotest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/swarm"
)

// Linux is the platform of most tests.
var Linux = manifest.Platform{OS: "linux", Arch: "amd64"}

// Press is a publisher's repository and the keys of its fleet.
type Press struct {
	*manifesttest.Fleet
	*repo.Repo
	t testing.TB
}

// New is a repository with the first root of its fleet.
func New(t testing.TB) *Press { return of(t, manifesttest.New(t)) }

// Foreign is that of another fleet.
func Foreign(t testing.TB) *Press {
	t.Helper()
	f := manifesttest.New(t)
	other := *f.Root
	other.Fleet = "other"
	payload, err := manifest.DraftRoot(&other)
	if err != nil {
		t.Fatal(err)
	}
	f.Roots = nil
	f.Publish(f.Sign(manifest.TypeRoot, payload, "root-1", "root-2"))
	return of(t, f)
}

func of(t testing.TB, f *manifesttest.Fleet) *Press {
	t.Helper()
	r, err := repo.Create(filepath.Join(t.TempDir(), "store"), f.Roots[0])
	if err != nil {
		t.Fatal(err)
	}
	return &Press{f, r, t}
}

// Put makes content the file called name of the tree, whatever it was.
func (p *Press) Put(name string, content []byte) {
	p.t.Helper()
	path := filepath.Join(p.Tree(), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Release publishes contents by platform in [manifesttest.Stable], with their names for
// people, and returns the manifest's envelope.
func (p *Press) Release(sequence int64, contents map[manifest.Platform]string) []byte {
	p.t.Helper()
	var artifacts []manifest.Artifact
	var infos []*swarm.Info
	platforms := slices.SortedFunc(maps.Keys(contents), func(a, b manifest.Platform) int { return strings.Compare(a.String(), b.String()) })
	for _, platform := range platforms {
		content := contents[platform]
		info, err := swarm.BuildInfo(p.t.Context(), strings.NewReader(content), "acme", int64(len(content)), false)
		if err != nil {
			p.t.Fatal(err)
		}
		a := manifesttest.Artifact("acme", platform, int64(len(content)), manifest.Sum([]byte(content)))
		a.Payloads[0].Infohash, a.Payloads[0].InfoSHA256 = info.Ref().Infohash, info.Ref().InfoSHA256
		artifacts, infos = append(artifacts, a), append(infos, info)
	}
	env := p.Manifest(manifesttest.Stable, sequence, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Artifacts = artifacts }))
	parsed, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(parsed.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	for i, platform := range platforms {
		content, name := []byte(contents[platform]), tree.Release(m.App, m.Release.Version, platform)
		p.Put(tree.Info(infos[i].Ref().InfoSHA256), infos[i].Bytes())
		p.Put(tree.Data(artifacts[i].SHA256), content)
		p.Put(name, content)
		p.Put(name+tree.Torrent, infos[i].Metainfo(nil, nil))
	}
	p.Put(tree.Manifest(manifesttest.Stable), env)
	return env
}
