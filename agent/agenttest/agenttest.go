// Package agenttest is a publisher for tests of agents: a small fleet whose keys are in
// the test's hands, the tree of its files, a web server and a seed, and ways to make
// each of them wrong.
package agenttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"shoal/manifest"
	"shoal/manifest/bundle"
	"shoal/manifest/link"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// Publisher is a fleet and its tree of files.
type Publisher struct {
	*manifesttest.Fleet
	// Dir is the tree.
	Dir string

	t      testing.TB
	infos  map[manifest.Digest]*swarm.Info
	asked  atomic.Int64
	member *fleet.Member // after ServeMembers
}

// New returns a publisher whose tree holds its first root.
func New(t testing.TB) *Publisher {
	t.Helper()
	p := &Publisher{Fleet: manifesttest.New(t), Dir: t.TempDir(), t: t, infos: map[manifest.Digest]*swarm.Info{}}
	p.PutRoots()
	return p
}

// Put writes a file of the tree.
func (p *Publisher) Put(path string, b []byte) {
	p.t.Helper()
	name := filepath.Join(p.Dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		p.t.Fatal(err)
	}
	// A rename, so that who reads at the same time gets the old file or the new one.
	if err := os.WriteFile(name+".tmp", b, 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		p.t.Fatal(err)
	}
}

// Remove removes a file of the tree.
func (p *Publisher) Remove(path string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.Dir, filepath.FromSlash(path))); err != nil {
		p.t.Fatal(err)
	}
}

// PutRoots writes every root the fleet has published.
func (p *Publisher) PutRoots() {
	p.t.Helper()
	for i, env := range p.Roots {
		p.Put(tree.Root(int64(i+1)), env)
	}
}

// Release puts a release of content for this machine's platform into the tree, with its
// manifest, and returns the manifest's envelope.
func (p *Publisher) Release(ch manifest.Channel, sequence int64, content []byte, edits ...manifesttest.Edit) []byte {
	p.t.Helper()
	env := p.Draft(ch, sequence, content, edits...)
	p.Put(tree.Manifest(ch), env)
	return env
}

// Draft is Release without putting the manifest into the tree.
func (p *Publisher) Draft(ch manifest.Channel, sequence int64, content []byte, edits ...manifesttest.Edit) []byte {
	p.t.Helper()
	a := p.Artifact(ch.App, content)
	set := manifesttest.WithManifest(func(m *manifest.Manifest) { m.Artifacts = []manifest.Artifact{a} })
	return p.Manifest(ch, sequence, append([]manifesttest.Edit{set}, edits...)...)
}

// Artifact puts content into the tree and returns it as an artifact for this machine.
func (p *Publisher) Artifact(name string, content []byte) manifest.Artifact {
	p.t.Helper()
	sum := manifest.Sum(content)
	info, err := swarm.BuildInfo(context.Background(), bytes.NewReader(content), name, int64(len(content)), false)
	if err != nil {
		p.t.Fatal(err)
	}
	p.infos[sum] = info
	ref := info.Ref()
	a := manifesttest.Artifact(name, manifest.Host(), int64(len(content)), sum)
	a.Payloads[0].Infohash, a.Payloads[0].InfoSHA256 = ref.Infohash, ref.InfoSHA256
	p.Put(tree.Info(ref.InfoSHA256), info.Bytes())
	p.Put(tree.Data(sum), content)
	return a
}

// Serve serves the tree over HTTP until the test ends.
func (p *Publisher) Serve() string {
	p.t.Helper()
	files := http.FileServer(http.Dir(p.Dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		files.ServeHTTP(w, r)
	}))
	p.t.Cleanup(srv.Close)
	return srv.URL
}

// ServeMembers serves the tree over HTTPS until the test ends, to members of the fleet
// with the keys k alone. So does Seed from then on.
func (p *Publisher) ServeMembers(k *fleet.Keys) string {
	p.t.Helper()
	var err error
	if p.member, err = k.Join(p.t.TempDir()); err != nil {
		p.t.Fatal(err)
	}
	files := http.FileServer(http.Dir(p.Dir))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := fleet.Peer(r.TLS); !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		p.asked.Add(1)
		files.ServeHTTP(w, r)
	}))
	srv.TLS = p.member.Serving()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	p.t.Cleanup(srv.Close)
	return srv.URL
}

// Asked is how many requests have been answered.
func (p *Publisher) Asked() int64 { return p.asked.Load() }

// Seed gives content, which is in the tree, to peers, and takes it out of the tree: it
// is then to be had from peers alone. It returns the seed's address.
func (p *Publisher) Seed(content []byte) string {
	p.t.Helper()
	sum := manifest.Sum(content)
	path := filepath.Join(p.t.TempDir(), "content")
	if err := os.Rename(filepath.Join(p.Dir, filepath.FromSlash(tree.Data(sum))), path); err != nil {
		p.t.Fatal(err)
	}
	node, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0", Fleet: p.member, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { node.Close() })
	if err := node.Seed(context.Background(), p.infos[sum], path, nil); err != nil {
		p.t.Fatal(err)
	}
	return node.Addr().String()
}

// Link is the join link of a channel.
func (p *Publisher) Link(ch manifest.Channel, at ...string) *link.Link {
	return &link.Link{Repo: p.Pin(), Channel: ch, At: at}
}

// Program is the text of a small program that prints its version. With --self-check it
// exits with status; with --serve it runs until it is killed.
func Program(version string, status int) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\ncase \"$1\" in\n--self-check) exit %d;;\n--serve) exec sleep 600;;\nesac\necho %s\n", status, version)
}

// Large is a program as Program makes it, made larger than what is fetched without
// asking peers.
func Large(version string, status int) []byte {
	return append(Program(version, status), bytes.Repeat([]byte("# "+version+" filler\n"), 20000)...)
}

// Bundle writes all that is in the tree, after edits, into a bundle and returns its path.
func (p *Publisher) Bundle(edits ...func(files map[string][]byte)) string {
	p.t.Helper()
	content := map[string][]byte{}
	if err := fs.WalkDir(os.DirFS(p.Dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content[name], err = os.ReadFile(filepath.Join(p.Dir, filepath.FromSlash(name)))
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	for _, edit := range edits {
		edit(content)
	}
	var files []bundle.File
	for name, b := range content {
		files = append(files, bundle.File{Name: name, Size: int64(len(b)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}})
	}
	path := filepath.Join(p.t.TempDir(), "acme"+bundle.Suffix)
	f, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if err := bundle.Write(f, files); err != nil {
		p.t.Fatal(err)
	}
	return path
}
