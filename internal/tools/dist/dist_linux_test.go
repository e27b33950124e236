package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// command runs a program in dir and returns what it prints.
func command(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// tagged makes a repository of this tree as it is here, with a commit that is released.
func tagged(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join("..", "..", "..")
	ls := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	ls.Dir = root
	files, err := ls.Output()
	if err != nil {
		t.Skipf("skipped: not in a git repository, so there is no commit to release: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(files), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // deleted, or a folder being written right now
		}
		to := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "release"}, {"tag", "v" + version}} {
		git(t, dir, args...)
	}
	return dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	command(t, dir, []string{
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=release", "GIT_COMMITTER_NAME=release", "GIT_AUTHOR_EMAIL=release@example.org", "GIT_COMMITTER_EMAIL=release@example.org",
	}, append([]string{"git"}, args...)...)
}

// makeEnv keeps the make that runs this test from telling ours what to make.
var makeEnv = []string{"MAKEFLAGS=", "MFLAGS=", "SOURCE_DATE_EPOCH=", "CGO_ENABLED=0"}

// onAnotherMachine is argv as it would run on a machine of that name.
func onAnotherMachine(t *testing.T, name string, argv ...string) []string {
	t.Helper()
	there := []string{"--uts", "sh", "-c", `hostname "$0" && exec "$@"`, name}
	if out, err := exec.Command("unshare", append(slices.Clone(there), "true")...).CombinedOutput(); err != nil {
		t.Logf("not compared with another machine: a host name of one's own takes root, unshare and hostname: %v %s", err, out)
		return argv
	}
	return append(append([]string{"unshare"}, there...), argv...)
}

// A whole set for one platform is made twice, in two places, on machines of two names, and
// looked at with the tools of those who get it.
func TestLongDist(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("skipped: builds twice; SHOAL_LONG=1 runs it")
	}
	const version = "1.2.3-rc.1"
	first := tagged(t, version)
	second := filepath.Join(t.TempDir(), "elsewhere")
	command(t, first, nil, "git", "clone", "-q", first, second)
	key := filepath.Join(t.TempDir(), "dist-key")
	command(t, ".", nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	platform := "linux/" + runtime.GOARCH
	makeDist := []string{"make", "dist", "PLATFORMS=" + platform, "DIST_KEY=" + key}
	command(t, first, makeEnv, makeDist...)
	command(t, second, makeEnv, onAnotherMachine(t, "another-machine", makeDist...)...)
	dist := filepath.Join(first, "dist")
	name := "shoal_" + version + "_linux_" + runtime.GOARCH
	file := func(ext string) string { return filepath.Join(dist, name+ext) }

	t.Run("reproducible", func(t *testing.T) {
		a, b := hashes(t, dist), hashes(t, filepath.Join(second, "dist"))
		for name := range a {
			if a[name] != b[name] {
				t.Errorf("%s differs: %s and %s", name, a[name], b[name])
			}
		}
		if len(a) != 10 || len(b) != 10 {
			t.Errorf("there are %d and %d files, want 10: %v", len(a), len(b), a)
		}
	})
	t.Run("signed-hashes", func(t *testing.T) {
		pub, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		signers := filepath.Join(t.TempDir(), "allowed_signers")
		if err := os.WriteFile(signers, append([]byte("shoal "), pub...), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, dist, nil, "sh", "-c", "ssh-keygen -Y verify -f "+signers+" -I shoal -n file -s SHA256SUMS.sig < SHA256SUMS && sha256sum --strict -c SHA256SUMS")
	})
	t.Run("archive", func(t *testing.T) {
		dir := t.TempDir()
		command(t, dir, nil, "tar", "xzf", file(".tar.gz"))
		out := command(t, dir, nil, filepath.Join(dir, name, "shoal"), "version")
		if !strings.Contains(out, version+"\n") || !strings.Contains(out, "2026-01-02T03:04:05Z") || strings.Contains(out, "with changes") {
			t.Errorf("it says of itself:\n%s", out)
		}
	})
	t.Run("sbom", func(t *testing.T) {
		checkSBOM(t, file(".cdx.json"), filepath.Join(dist, "bin", "shoal-linux-"+runtime.GOARCH))
	})
	t.Run("image", func(t *testing.T) { checkImage(t, filepath.Join(dist, "shoal_"+version+"_oci.tar"), version) })
	t.Run("deb", func(t *testing.T) { checkDeb(t, file(".deb")) })
	t.Run("rpm", func(t *testing.T) { checkRPM(t, file(".rpm")) })
	t.Run("self", func(t *testing.T) {
		const next = "1.2.3"
		git(t, first, "commit", "-q", "--allow-empty", "-m", "release "+next)
		git(t, first, "tag", "v"+next)
		command(t, first, makeEnv, "make", "build")
		checkSelf(t, filepath.Join(dist, "bin", "shoal-linux-"+runtime.GOARCH), filepath.Join(first, "shoal"), next)
	})
}

// hashes returns the SHA-256 of every file below dir.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// The bill of materials names the modules that "go version -m" finds in the program.
func checkSBOM(t *testing.T, path, program string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc bom
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range doc.Components {
		listed[c.Name+" "+c.Version] = true
	}
	modules := 0
	for line := range strings.Lines(command(t, ".", nil, "go", "version", "-m", program)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			modules++
			if !listed[f[1]+" "+f[2]] && !listed[f[1]+" "] {
				t.Errorf("it does not name %s %s", f[1], f[2])
			}
		}
	}
	if want := modules + 1; modules == 0 || len(doc.Components) != want { // and the standard library
		t.Errorf("it names %d modules, want %d", len(doc.Components), want)
	}
}

// What Windows gets is a zip, with the commit's date.
func TestArchiveForWindows(t *testing.T) {
	t.Chdir(filepath.Join("..", "..", ".."))
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("MZ"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	r := &release{dir: dir, version: "1.2.3", time: at}
	if err := r.archive(build{path: program, os: "windows", arch: "amd64"}); err != nil {
		t.Fatal(err)
	}
	z, err := zip.OpenReader(filepath.Join(dir, "shoal_1.2.3_windows_amd64.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var found []string
	for _, f := range z.File {
		found = append(found, fmt.Sprintf("%s %s %v", f.Name, f.Mode(), f.Modified.Equal(at)))
	}
	want := "[shoal_1.2.3_windows_amd64/ drwxr-xr-x true shoal_1.2.3_windows_amd64/shoal.exe -rwxr-xr-x true " +
		"shoal_1.2.3_windows_amd64/LICENSE -rw-r--r-- true shoal_1.2.3_windows_amd64/README.md -rw-r--r-- true]"
	if fmt.Sprint(found) != want {
		t.Errorf("%s, want %s", found, want)
	}
}

func TestGoModule(t *testing.T) {
	rows := []struct {
		name    string
		m       debug.Module
		version string
		purl    string
		why     string // first property
	}{
		{"plain", debug.Module{Path: "example.org/a", Version: "v1.2.3", Sum: "h1:x"}, "v1.2.3", "pkg:golang/example.org/a@v1.2.3", "go:sum=h1:x"},
		{"fork", debug.Module{Path: "example.org/a", Version: "v1.2.3", Replace: &debug.Module{Path: "example.org/b", Version: "v2.0.0"}},
			"v2.0.0", "pkg:golang/example.org/b@v2.0.0", "shoal:replaces=example.org/a@v1.2.3"},
		{"folder", debug.Module{Path: "example.org/a", Version: "v1.2.3", Replace: &debug.Module{Path: "./third_party/a", Version: "(devel)"}},
			"", "", "shoal:replaced-by=./third_party/a"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := goModule(&r.m)
			if c.Version != r.version || c.Purl != r.purl || len(c.Properties) == 0 || c.Properties[0].Name+"="+c.Properties[0].Value != r.why || c.Ref == "" {
				t.Errorf("%+v", c)
			}
		})
	}
}

// The image is followed from its index to the program, which is run.
func checkImage(t *testing.T, path, version string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if blobs[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	get := func(d descriptor, doc any) []byte {
		t.Helper()
		b := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if digest(b) != d.Digest || len(b) != d.Size {
			t.Fatalf("%s: %d bytes of %s", d.Digest, len(b), digest(b))
		}
		if doc != nil {
			if err := json.Unmarshal(b, doc); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	var top, all index
	var m imageManifest
	var config imageConfig
	if err := json.Unmarshal(blobs["index.json"], &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%s: %v", blobs["index.json"], err)
	}
	if ref := top.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; ref != version {
		t.Errorf("it is called %q", ref)
	}
	get(top.Manifests[0], &all)
	if len(all.Manifests) != 1 || all.Manifests[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("platforms: %+v", all.Manifests)
	}
	get(all.Manifests[0], &m)
	get(m.Config, &config)
	z, err := gzip.NewReader(bytes.NewReader(get(m.Layers[0], nil)))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil || len(config.RootFS.DiffIDs) != 1 || digest(layer) != config.RootFS.DiffIDs[0] {
		t.Fatalf("the layer is not the config's: %v, %v", config.RootFS, err)
	}
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("no %s in the layer: %v", config.Config.Entrypoint, err)
		}
		if "/"+h.Name != config.Config.Entrypoint[0] {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(t.TempDir(), "shoal")
		if err := os.WriteFile(program, content, fs.FileMode(h.Mode)); err != nil {
			t.Fatal(err)
		}
		if out := command(t, ".", nil, program, "version"); !strings.Contains(out, version) {
			t.Errorf("it says of itself:\n%s", out)
		}
		return
	}
}
