package publisher

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/repo"
	"shoal/swarm/fleet"
)

func initRequest(dir string) InitRequest {
	return InitRequest{
		App: "acme", Channels: []string{"stable", "nightly"},
		KeyDir: filepath.Join(dir, "keys"), ConfigFile: filepath.Join(dir, "publisher.yaml"), Store: filepath.Join(dir, "store"),
	}
}

func secret(context.Context, string) ([]byte, error) { return []byte("correct horse"), nil }

func TestInitMakesAFleetThatPublishes(t *testing.T) {
	dir := t.TempDir()
	req := initRequest(dir)
	req.Threshold, req.ReleaseKeys = 2, 3
	res, err := Init(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if res.Already || res.Protected || len(res.RootKeys) != 2 || len(res.ReleaseKeys) != 3 {
		t.Errorf("%+v", res)
	}
	r, err := repo.Open(req.Store)
	if err != nil {
		t.Fatal(err)
	}
	state, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	root := state.Trust.Root()
	if manifest.FleetID(state.Trust.Repo()) != res.FleetID || len(root.Channels) != 2 || root.Fleet != "acme" {
		t.Errorf("root %+v", root)
	}
	for _, ch := range root.Channels {
		if ch.Epoch != 1 || ch.MaxValidity != 90*24*time.Hour || ch.Release.Threshold != 2 || len(ch.Release.KeyIDs) != 3 || ch.Beacon != nil {
			t.Errorf("channel %+v", ch)
		}
	}
	if years := root.Expires.Sub(root.Issued); years != 2*365*24*time.Hour || root.Root.Threshold != 1 || len(root.Root.KeyIDs) != 2 {
		t.Errorf("root lasts %s, role %+v", years, root.Root)
	}

	var signers []keys.Signer
	for _, k := range res.ReleaseKeys[:2] {
		s, err := keys.Open(t.Context(), "file:"+k.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Public().ID() != k.ID {
			t.Errorf("%s is %s, not %s", k.Path, s.Public().ID(), k.ID)
		}
		signers = append(signers, s)
	}
	p, err := Open(Config{Store: req.Store})
	if err != nil {
		t.Fatal(err)
	}
	build := filepath.Join(dir, "acme-linux-amd64")
	if err := os.WriteFile(build, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), PublishRequest{Channel: stable, Version: "1.0.0", Files: []File{{Path: build}}, Keys: with(signers...)}); err != nil {
		t.Errorf("the new fleet cannot publish: %v", err)
	}
}

func TestInitProtectsItsKeys(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir := t.TempDir()
	req := initRequest(dir)
	req.RootKeys, req.Passphrase = 1, secret
	res, err := Init(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []KeyFile{res.RootKeys[0], res.ReleaseKeys[0]} {
		if _, err := keys.Open(t.Context(), "file:"+k.Path, nil); !errors.Is(err, keys.ErrPassphraseNeeded) {
			t.Errorf("%s opens without its passphrase: %v", k.Path, err)
		}
		if s, err := keys.Open(t.Context(), "file:"+k.Path, secret); err != nil || s.Public().ID() != k.ID || !res.Protected {
			t.Errorf("%s does not open with its passphrase: %v", k.Path, err)
		}
	}
	want := map[string]os.FileMode{filepath.Join(dir, "keys"): 0o700, res.RootKeys[0].Path: 0o600, res.ReleaseKeys[0].Path: 0o600}
	for path, mode := range want {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, fi.Mode(), err, mode)
		}
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	first, err := Init(t.Context(), initRequest(dir))
	if err != nil {
		t.Fatal(err)
	}
	before := readDir(t, dir)
	same := func(t *testing.T) {
		t.Helper()
		if diff := cmp.Diff(before, readDir(t, dir)); diff != "" {
			t.Errorf("init changed what was there:\n%s", diff)
		}
	}
	t.Run("again-says-what-is-there", func(t *testing.T) {
		req := initRequest(dir)
		req.Passphrase = func(context.Context, string) ([]byte, error) {
			t.Error("a passphrase was asked for")
			return nil, nil
		}
		again, err := Init(t.Context(), req)
		if err != nil || !again.Already || again.FleetID != first.FleetID || again.RootKeys[1] != first.RootKeys[1] {
			t.Errorf("%+v, %v", again, err)
		}
		same(t)
	})
	t.Run("another-channel-is-another-fleet", func(t *testing.T) {
		req := initRequest(dir)
		req.Channels = []string{"beta"}
		_, err := Init(t.Context(), req)
		wantCode(t, err, fault.Usage)
		same(t)
	})
	t.Run("more-keys-are-another-fleet", func(t *testing.T) {
		req := initRequest(dir)
		req.ReleaseKeys = 2
		_, err := Init(t.Context(), req)
		e := wantCode(t, err, fault.Usage)
		if text := strings.Join(e.Detail, "\n"); !strings.Contains(text, filepath.Join("keys", "release-2")) {
			t.Errorf("the error does not say what is missing:\n%s", text)
		}
		same(t)
	})
	for _, name := range []string{"publisher.yaml", "keys/root-2", "store/tree/root/000001.json"} {
		t.Run("a-lost-"+filepath.Base(name)+"-is-not-made-anew", func(t *testing.T) {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			_, err := Init(t.Context(), initRequest(dir))
			e := wantCode(t, err, fault.Usage)
			if text := strings.Join(e.Detail, "\n"); !strings.Contains(text, "Not there: "+path) {
				t.Errorf("the error does not say what is missing:\n%s", text)
			}
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
			same(t)
		})
	}
}

func readDir(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestInitRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(*InitRequest)
	}{
		{"no-app", func(r *InitRequest) { r.App = "" }},
		{"app-with-traversal", func(r *InitRequest) { r.App = "../acme" }},
		{"no-channel", func(r *InitRequest) { r.Channels = nil }},
		{"channel-with-slash", func(r *InitRequest) { r.Channels = []string{"acme/stable"} }},
		{"channel-twice", func(r *InitRequest) { r.Channels = []string{"stable", "stable"} }},
		{"threshold-above-the-keys", func(r *InitRequest) { r.Threshold, r.ReleaseKeys = 3, 2 }},
		{"negative-threshold", func(r *InitRequest) { r.Threshold = -1 }},
		{"root-threshold-above-the-keys", func(r *InitRequest) { r.RootThreshold = 3 }},
		{"hundreds-of-keys", func(r *InitRequest) { r.ReleaseKeys = 300 }},
		{"validity-below-a-second", func(r *InitRequest) { r.MaxValidity = time.Millisecond }},
		{"public-url-without-host", func(r *InitRequest) { r.PublicURL = "updates" }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			req := initRequest(dir)
			row.change(&req)
			_, err := Init(t.Context(), req)
			wantCode(t, err, fault.Usage)
			if left := readDir(t, dir); len(left) > 0 {
				t.Errorf("a refused init wrote %v", left)
			}
		})
	}
}

func TestInitMakesAFleetKey(t *testing.T) {
	req := initRequest(t.TempDir())
	req.PublicURL = "http://updates.example:7800"
	if _, err := Init(t.Context(), req); !errors.Is(err, fault.Usage) || !strings.Contains(err.Error(), "https only") {
		t.Errorf("a public URL of http: %v", err)
	}
	req.PublicURL = "https://updates.example:7800"
	res, err := Init(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	k, err := fleet.Read(res.FleetKey) // which checks its mode, too
	if err != nil || k.IDs()[0] != res.FleetKeyID || filepath.Dir(res.FleetKey) != req.KeyDir {
		t.Errorf("fleet key %s %s: %v, %v", res.FleetKey, res.FleetKeyID, k, err)
	}
	again, err := Init(t.Context(), req)
	if err != nil || !again.Already || again.FleetKeyID != res.FleetKeyID {
		t.Errorf("again: %+v, %v", again, err)
	}

	open := initRequest(t.TempDir())
	open.NoFleetKey = true
	made, err := Init(t.Context(), open)
	if err != nil || made.FleetKey != "" {
		t.Errorf("an open fleet: %+v, %v", made, err)
	}
	open.NoFleetKey = false // whoever forgets it is told what is there
	if again, err := Init(t.Context(), open); err != nil || !again.Already || again.FleetKey != "" {
		t.Errorf("an open fleet again: %+v, %v", again, err)
	}
	for dir, keyed := range map[string]bool{filepath.Dir(req.ConfigFile): true, filepath.Dir(open.ConfigFile): false} {
		text, err := os.ReadFile(filepath.Join(dir, "publisher.yaml"))
		if err != nil || strings.Contains(string(text), `fleet_key_file: "keys/fleet"`) != keyed {
			t.Errorf("keyed %v: %v\n%s", keyed, err, text)
		}
	}

	// A key whose fleet is gone is not taken for a new one.
	left := initRequest(t.TempDir())
	if err := os.MkdirAll(left.KeyDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.Write(filepath.Join(left.KeyDir, "fleet")); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), left); !errors.Is(err, fault.Usage) || !strings.Contains(err.Error(), "part of a fleet") {
		t.Errorf("beside a left key: %v", err)
	}
}
