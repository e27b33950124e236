//go:build linux || darwin

package agent

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// treeOf is a tree whose program prints version, compressed.
func treeOf(t *testing.T, version string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	program := "#!/bin/sh\ncat \"$(dirname \"$0\")/../share/version\"\n"
	for _, f := range []struct {
		tar.Header
		content string
	}{
		{tar.Header{Name: "./bin/acme", Mode: 0o755}, program},
		{tar.Header{Name: "./share/version", Mode: 0o644}, version},
		{tar.Header{Name: "./share/filler", Mode: 0o644}, strings.Repeat(version+" filler\n", 20000)},
	} {
		f.Header.Typeflag, f.Header.Size = tar.TypeReg, int64(len(f.content))
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(b.Bytes(), nil)
}

func kind(kind, mode string) manifesttest.Edit {
	return manifesttest.WithManifest(func(m *manifest.Manifest) { m.Artifacts[0].Kind, m.Artifacts[0].Mode = kind, mode })
}

// A tree goes the whole way: signed, fetched, unpacked, switched to, checked, put back.
func TestTreeIsUpdatedAndPutBack(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(filepath.Dir(b.target), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	app := &b.cfg.Apps[0]
	app.Target, app.Kind = dir, manifest.KindTree
	app.Health = HealthConfig{Type: "command", Command: []string{"sh", "-c", "test $(" + dir + "/current/bin/acme) != 3"}, Timeout: failsWithin, Interval: 50 * time.Millisecond}
	runs := func(want string) {
		t.Helper()
		out, err := exec.Command(filepath.Join(dir, "current/bin/acme")).Output()
		if err != nil || string(out) != want {
			t.Errorf("it prints %q, %v; want %q", out, err, want)
		}
	}
	for i, version := range []string{"1", "2"} {
		b.Release(stable, int64(43+i), treeOf(t, version), kind(manifest.KindTree, "0644"))
		b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
		runs(version)
	}
	b.Release(stable, 50, treeOf(t, "3"), kind(manifest.KindTree, "0644"))
	b.want(b.update(Choice{}), fault.HealthFailed, manifest.StateReverted)
	runs("2")
	versions, err := os.ReadDir(filepath.Join(dir, "versions"))
	if err != nil || len(versions) != 2 {
		t.Errorf("versions: %v, %v", versions, err)
	}
	// What the channel offers is looked at, not what the configuration hopes for.
	b.Release(stable, 51, b.old)
	b.want(b.update(Choice{}), fault.Policy, manifest.StateBlocked)
	runs("2")
}

// A package goes the whole way: its command is told where it is, and its hash is what
// counts as installed.
func TestPackageIsInstalledAndPutBack(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	installed := filepath.Join(dir, "installed")
	app := &b.cfg.Apps[0]
	app.Target, app.Kind = filepath.Join(dir, "acme.pkg"), manifest.KindInstaller
	app.Installer = InstallerConfig{
		Command: []string{"sh", "-c", "case $1 in *.pkg) cp $1 " + installed + " ;; *) exit 1 ;; esac", "sh", "{file}"},
		Revert:  []string{"cp", "{file}", installed},
	}
	app.Health = HealthConfig{Type: "command", Command: []string{"sh", "-c", "! grep -q 3 " + installed}, Timeout: failsWithin, Interval: 50 * time.Millisecond}
	has := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(installed); err != nil || string(got) != want {
			t.Errorf("installed is %q, %v; want %q", got, err, want)
		}
	}
	for i, version := range []string{"1", "2"} {
		b.Release(stable, int64(43+i), []byte("package "+version), kind(manifest.KindInstaller, "0644"))
		b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
		has("package " + version)
	}
	b.Release(stable, 50, []byte("package 3"), kind(manifest.KindInstaller, "0644"))
	b.want(b.update(Choice{}), fault.HealthFailed, manifest.StateReverted)
	has("package 2")
	b.want(b.update(Choice{}), fault.HealthFailed, manifest.StateReverted)
}
