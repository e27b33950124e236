package main

import (
	"encoding/base64"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// What the pages about CI have jobs do is done, twice, since jobs are run again; and no job
// leaves its key on the disk.
func TestCIPages(t *testing.T) {
	type github struct {
		Jobs map[string]struct {
			Steps []struct{ Run string }
		}
	}
	type gitlab struct {
		Build, Nightly, Stable struct{ Script []string }
	}
	rows := []struct {
		page string
		key  func(string) string
		env  []string
		jobs func(t *testing.T, text []byte) []string // what they run, nightly first
	}{
		{"github", func(key string) string { return key }, []string{"VER=1.9.0-n7", "TAG=v2.4.1"}, func(t *testing.T, text []byte) (scripts []string) {
			var w github
			unmarshal(t, text, &w)
			for _, job := range []string{"nightly", "stable"} {
				script := ""
				for _, s := range w.Jobs[job].Steps {
					script += s.Run + "\n"
				}
				scripts = append(scripts, script)
			}
			return scripts
		}},
		{"gitlab", func(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }, []string{"CI_PIPELINE_IID=7", "CI_COMMIT_TAG=v2.4.1"},
			func(t *testing.T, text []byte) []string {
				var w gitlab
				unmarshal(t, text, &w)
				build := strings.Join(w.Build.Script, "\n") + "\n"
				return []string{build + strings.Join(w.Nightly.Script, "\n"), build + strings.Join(w.Stable.Script, "\n")}
			}},
	}
	for _, r := range rows {
		t.Run(r.page, func(t *testing.T) {
			dir := t.TempDir()
			var text []byte
			for _, b := range blocks(t, "../../docs/ci/"+r.page+".md") {
				if b.info == "yaml" {
					text = []byte(b.text)
				}
			}
			env := append(os.Environ(), "HOME="+dir, "SHOAL_CONFIG="+filepath.Join(dir, "pub", "publisher.yaml"))
			run := func(env []string, script string) string {
				t.Helper()
				cmd := exec.Command("bash", "-e", "-c", strings.ReplaceAll(script, "/srv/mirror", filepath.Join(dir, "mirror")))
				cmd.Dir, cmd.Env = dir, env
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s\n%v\n%s", script, err, out)
				}
				return string(out)
			}
			// Nightly builds differ from releases, or they are refused.
			run(env, `shoal init --app acme --channel stable --channel nightly --dir pub --no-passphrase
printf '#!/bin/sh\nmkdir -p "$1"\necho "a program ${VER:-${CI_COMMIT_TAG:-$TAG}}" > "$1/acme-linux-amd64"\n' > build.sh
chmod +x build.sh`)
			secret, err := os.ReadFile(filepath.Join(dir, "pub", "keys", "release-1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "pub", "keys", "release-1"), filepath.Join(t.TempDir(), "safe")); err != nil {
				t.Fatal(err)
			}
			scripts := r.jobs(t, text)
			env = append(env, r.env...)
			withKey := append(env, "SHOAL_RELEASE_KEY="+r.key(string(secret)))
			if out := run(withKey, scripts[0]); !strings.Contains(out, "acme/nightly  1.9.0-n7   sequence 1") {
				t.Errorf("nightly:\n%s", out)
			}
			if out := run(withKey, scripts[0]); !strings.Contains(out, "already published as sequence 1") {
				t.Errorf("nightly, again:\n%s", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "mirror", "releases", "acme", "1.9.0-n7", "linux-amd64")); err != nil {
				t.Error(err)
			}
			for i, e := range env {
				if strings.HasPrefix(e, "VER=") {
					env[i] = "VER="
				}
			}
			run(env, scripts[1])
			if _, err := os.Stat(filepath.Join(dir, "acme-v2.4.1.json")); err != nil {
				t.Error(err)
			}
			noFileHas(t, dir, secret)
		})
	}
}

func unmarshal(t *testing.T, text []byte, to any) {
	t.Helper()
	if err := yaml.Unmarshal(text, to); err != nil {
		t.Fatal(err)
	}
}

// noFileHas asserts that a private key is in no file below dir.
func noFileHas(t *testing.T, dir string, key []byte) {
	t.Helper()
	line := strings.Split(string(key), "\n")[2]
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), line) {
			t.Errorf("%s has the private key", path)
		}
		return err
	})
	if err != nil || len(line) < 40 {
		t.Fatalf("%q: %v", line, err)
	}
}
