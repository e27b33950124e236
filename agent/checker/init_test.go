package checker

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

func TestInit(t *testing.T) {
	p := agenttest.New(t)
	other := manifest.Sum([]byte("another fleet"))
	good, write := p.Roots[0], func(b []byte) string {
		path := filepath.Join(t.TempDir(), "root.json")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p.Rotate()
	rows := []struct {
		name string
		root []byte
		pin  *manifest.Digest
		want fault.Code
	}{
		{"another-pin", good, &other, fault.PinMismatch},
		{"second-version", p.Roots[1], nil, fault.RootChain},
		{"below-its-own-threshold", p.Sign(manifest.TypeRoot, payload(t, good), "root-1"), nil, fault.Threshold},
		{"signed-by-strangers", p.Sign(manifest.TypeRoot, payload(t, good), "x-1", "x-2"), nil, fault.Threshold},
		{"a-manifest", p.Manifest(manifesttest.Stable, 1), nil, fault.WrongType},
		{"no-json", []byte("-----BEGIN"), nil, fault.Malformed},
		{"endless", bytes.Repeat([]byte("x"), manifest.MaxRoot+1), nil, fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			_, err := Init{Dir: dir, Root: write(r.root), Pin: r.pin}.Do()
			if !errors.Is(err, r.want) {
				t.Errorf("%v, want %s", err, r.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Error("something was written")
			}
		})
	}

	dir := filepath.Join(t.TempDir(), "state")
	made, err := Init{Dir: dir, Root: write(good)}.Do()
	if err != nil || made.Fleet.String() != p.Pin().Prefixed() || made.Already {
		t.Fatalf("%+v, %v; want the root's own hash pinned", made, err)
	}
	if made, err = (Init{Dir: dir, Root: write(good)}).Do(); err != nil || !made.Already {
		t.Errorf("again: %+v, %v; want already", made, err)
	}
	before := files(t, dir)
	second := manifesttest.New(t)
	root2 := second.Sign(manifest.TypeRoot, bytes.Replace(payload(t, good), []byte(`"fleet": "acme"`), []byte(`"fleet": "evil"`), 1), "root-1", "root-2")
	if _, err := (Init{Dir: dir, Root: write(root2)}).Do(); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("another fleet into the same state: %v, want pin_mismatch", err)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("the state changed:\n%s", diff)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "trust", "state.json")); err != nil || !strings.Contains(string(text), `"checker": true`) {
		t.Errorf("the state is not marked a checker's: %s, %v", text, err)
	}
}

func payload(t *testing.T, env []byte) []byte {
	t.Helper()
	e, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		t.Fatal(err)
	}
	return e.Payload
}
