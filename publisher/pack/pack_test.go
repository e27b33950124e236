package pack

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/bundle"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/publisher/repo/repotest"
	"shoal/swarm"
)

var (
	stable = manifesttest.Stable
	linux  = repotest.Linux
	arm    = manifest.Platform{OS: "linux", Arch: "arm", Variant: "v7"}
)

// press is a publisher's repository that bundles are made of.
type press struct {
	*repotest.Press
	t *testing.T
}

func newPress(t *testing.T) *press { return &press{repotest.New(t), t} }

func foreign(t *testing.T) *press { return &press{repotest.Foreign(t), t} }

func both() map[manifest.Platform]string {
	return map[manifest.Platform]string{linux: "for linux", arm: "for arm"}
}

func (p *press) create(out string, platforms ...manifest.Platform) (*Report, error) {
	return Create(p.t.Context(), p.Repo, Request{Channel: stable, Platforms: platforms, Out: out, Now: p.Now})
}

func (p *press) verify(path string) error {
	pin := p.Pin()
	_, err := Examine(p.t.Context(), path, Options{Pin: &pin, Contents: true, Now: p.Now})
	return err
}

func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%q is left beside the bundle", e.Name())
		}
	}
}

func TestCreate(t *testing.T) {
	p := newPress(t)
	p.Put(tree.Root(2), p.Rotate())
	env := p.Release(42, both())
	p.Put(tree.Beacon(stable), p.Beacon(env))
	dir := t.TempDir()
	r, err := p.create(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "acme-stable-42.shoalbundle")
	ch := r.Channels[0]
	if r.File != path || r.Root != 2 || !r.Verified || !r.Pinned || manifest.Digest(r.Fleet) != p.Pin() || ch.Version != "1.0.42" ||
		ch.Sequence != 42 || len(ch.SignedBy) != 2 || !ch.Beacon || len(ch.Artifacts) != 2 || !ch.Artifacts[0].Here || !ch.Artifacts[1].Here {
		t.Errorf("made %+v", r)
	}
	alone(t, path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Stock tools read it too.
	names := ""
	for tr := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names += h.Name + " "
	}
	for _, want := range []string{"root/000001.json root/000002.json m/acme/stable.json b/acme/stable.json info/", " data/"} {
		if !strings.Contains(names, want) {
			t.Errorf("it has %s, want %s", names, want)
		}
	}
	// The same release makes the same bytes, and replaces what is there.
	if _, err := p.create(path); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("made again it differs: %d and %d bytes, %v", len(raw), len(again), err)
	}
	// Only some platforms.
	r, err = p.create(filepath.Join(t.TempDir(), "x"), manifest.Platform{OS: "linux", Arch: "arm"})
	if err != nil || r.Channels[0].Artifacts[0].Here || !r.Channels[0].Artifacts[1].Here {
		t.Errorf("for one platform: %+v, %v", r, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	rows := []struct {
		name      string
		do        func(p *press)
		platforms []manifest.Platform
		want      fault.Code
	}{
		{"nothing-published", func(p *press) { os.Remove(file(p.Repo, tree.Manifest(stable))) }, nil, fault.NotFound},
		{"expired", func(p *press) { p.Now = p.Now.AddDate(0, 6, 0) }, nil, fault.Expired},
		{"no-such-platform", nil, []manifest.Platform{linux, {OS: "plan9", Arch: "386"}}, fault.NoArtifact},
		{"a-payload-is-gone", func(p *press) { os.Remove(file(p.Repo, tree.Data(manifest.Sum([]byte("for arm"))))) }, nil, fault.NotFound},
		{"a-payload-has-rotted", func(p *press) { p.Put(tree.Data(manifest.Sum([]byte("for arm"))), []byte("for arn")) }, nil, fault.ContentMismatch},
		{"its-manifest-was-changed", func(p *press) { p.Put(tree.Manifest(stable), []byte("{}")) }, nil, fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newPress(t)
			p.Release(1, both())
			path := filepath.Join(t.TempDir(), "b")
			if err := os.WriteFile(path, []byte("what was there"), 0o644); err != nil {
				t.Fatal(err)
			}
			if r.do != nil {
				r.do(p)
			}
			if _, err := p.create(path, r.platforms...); !errors.Is(err, r.want) {
				t.Errorf("%v, want %s", err, r.want)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "what was there" {
				t.Errorf("what had the name is %q, %v", b, err)
			}
			alone(t, path)
		})
	}
}

// change writes a bundle with other files than were published: attackers can do that,
// too.
func change(t *testing.T, path string, edit func(files map[string][]byte)) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range b.Names() {
		if files[name], err = b.Document(name, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	edit(files)
	var list []bundle.File
	for name, content := range files {
		list = append(list, bundle.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}})
	}
	var out bytes.Buffer
	if err := bundle.Write(&out, list); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What a bundle holds is believed of nobody, however well it is made.
func TestVerifyRefuses(t *testing.T) {
	one, two := tree.Data(manifest.Sum([]byte("for linux"))), tree.Data(manifest.Sum([]byte("for arm")))
	rows := []struct {
		name string
		do   func(p *press, path string)
		want fault.Code
	}{
		{"cut-short", func(p *press, path string) { os.Truncate(path, 3000) }, fault.Malformed},
		{"empty", func(p *press, path string) { os.Truncate(path, 0) }, fault.Malformed},
		{"gone", func(p *press, path string) { os.Remove(path) }, fault.NotFound},
		{"a-directory", func(p *press, path string) { os.Remove(path); os.Mkdir(path, 0o755) }, fault.Usage},
		{"foreign-fleet", func(p *press, path string) {
			other := foreign(p.t)
			other.Release(1, both())
			if _, err := other.create(path); err != nil {
				p.t.Fatal(err)
			}
		}, fault.PinMismatch},
		{"expired", func(p *press, path string) { p.Now = p.Now.AddDate(0, 6, 0) }, fault.Expired},
		{"payload-swapped", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f[one] = []byte("for Linux") })
		}, fault.ContentMismatch},
		{"payload-of-another-platform", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f[one], f[two] = f[two], f[one] })
		}, fault.ContentMismatch},
		{"payload-longer", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f[one] = append(f[one], 'x') })
		}, fault.LengthExceeded},
		{"extra-payload", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f[tree.Data(manifest.Sum([]byte("x")))] = []byte("x") })
		}, fault.Malformed},
		{"info-dict-changed", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) {
				for name := range f {
					if strings.HasPrefix(name, "info/") {
						f[name] = []byte("de")
					}
				}
			})
		}, fault.BadInfo},
		{"manifest-signed-too-seldom", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) {
				f[tree.Manifest(stable)] = p.Manifest(stable, 2, manifesttest.SignedBy("release-1"))
			})
		}, fault.Threshold},
		{"root-that-does-not-follow", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f[tree.Root(2)] = p.NextRoot(manifesttest.SignedBy("root-1")) })
		}, fault.Threshold},
		{"channel-of-no-root", func(p *press, path string) {
			change(p.t, path, func(f map[string][]byte) { f["m/acme/other.json"] = f[tree.Manifest(stable)] })
		}, fault.ChannelGone},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newPress(t)
			p.Release(1, both())
			path := filepath.Join(t.TempDir(), "b.shoalbundle")
			if _, err := p.create(path); err != nil {
				t.Fatal(err)
			}
			if err := p.verify(path); err != nil {
				t.Fatal(err)
			}
			r.do(p, path)
			if err := p.verify(path); !errors.Is(err, r.want) {
				t.Errorf("%v (%s), want %s", err, fault.CodeOf(err), r.want)
			}
		})
	}
}

// Looking does not need a bundle to be up to date, or to have every payload.
func TestInspect(t *testing.T) {
	p := newPress(t)
	p.Release(1, both())
	path := filepath.Join(t.TempDir(), "b.shoalbundle")
	if _, err := p.create(path, linux); err != nil {
		t.Fatal(err)
	}
	r, err := Examine(t.Context(), path, Options{Now: p.Now.AddDate(1, 0, 0)})
	if err != nil || r.Pinned || r.Verified || !r.Channels[0].Artifacts[0].Here || r.Channels[0].Artifacts[1].Here {
		t.Errorf("%+v, %v", r, err)
	}
}

// The largest info dict that peers may have is the largest one in a bundle.
func TestLimitsAgree(t *testing.T) {
	name := tree.Info(manifest.Sum([]byte("x")))
	for size, want := range map[int64]error{swarm.MaxInfoSize: nil, swarm.MaxInfoSize + 1: fault.TooLarge} {
		var b bytes.Buffer
		var files []bundle.File
		for n, s := range map[string]int64{tree.Root(1): 1, tree.Manifest(stable): 1, name: size} {
			files = append(files, bundle.File{Name: n, Size: s, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(make([]byte, s))), nil
			}})
		}
		if err := bundle.Write(&b, files); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Open(bytes.NewReader(b.Bytes()), int64(b.Len())); !errors.Is(err, want) {
			t.Errorf("an info dict of %d bytes: %v, want %v", size, err, want)
		}
	}
}
