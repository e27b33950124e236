package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// What docs/conformance.md promises to other people's suites, apart from the attacks.

// initOf runs agent init for a root envelope.
func initOf(t *testing.T, dir string, root []byte, more ...string) (status int, out map[string]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root-1.env.json")
	if err := os.WriteFile(path, root, 0o644); err != nil {
		t.Fatal(err)
	}
	status, text, talk := shoal(append([]string{"agent", "init", "--state", dir, "--root", path, "-o", "json"}, more...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("standard output is not one JSON object: %v\n%s%s", err, text, talk)
	}
	return status, out
}

func TestInitPinsARoot(t *testing.T) {
	f := mt.New(t)
	dir := filepath.Join(t.TempDir(), "new", "state")
	status, out := initOf(t, dir, f.Roots[0])
	if status != 0 || out["fleet"] != f.Pin().Prefixed() {
		t.Fatalf("exit %d, %v; want the root's own hash to be pinned and printed", status, out)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want mode 0700", fi.Mode(), err)
	}
	made := files(t, dir)
	if made["anchor.json"] == "" || !strings.Contains(made["trust/state.json"], `"checker": true`) {
		t.Errorf("the state is no checker's, or has no anchor inside: %v", made)
	}

	for _, more := range [][]string{nil, {"--pin", f.Pin().Prefixed()}, {"--min-root", "7", "--min-sequence", "3.9"}} {
		if status, out := initOf(t, dir, f.Roots[0], more...); status != 0 || out["already"] != true {
			t.Errorf("the same root again with %q: exit %d, %v", more, status, out)
		}
	}
	other := mt.EditPayload(t, f.Roots[0], manifest.TypeRoot, func(m map[string]any) { m["fleet"] = "other" })
	if status, out := initOf(t, dir, f.Sign(manifest.TypeRoot, other, "root-1", "root-2")); status != 8 || out["code"] != "pin_mismatch" {
		t.Errorf("another root: exit %d, %v", status, out)
	}
	if diff := cmp.Diff(made, files(t, dir)); diff != "" {
		t.Errorf("the state changed:\n%s", diff)
	}

	// A root that is out of date is for the checks to refuse.
	expired := mt.EditPayload(t, f.Roots[0], manifest.TypeRoot, func(m map[string]any) {
		m["issued"], m["expires"] = "2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z"
	})
	if status, out := initOf(t, filepath.Join(t.TempDir(), "s"), f.Sign(manifest.TypeRoot, expired, "root-1", "root-2")); status != 0 {
		t.Errorf("a root that is out of date: exit %d, %v", status, out)
	}
}

func TestInitRefusesAndLeavesNothing(t *testing.T) {
	f := mt.New(t)
	first := f.Roots[0]
	f.Rotate()
	payload := mt.EditPayload(t, first, manifest.TypeRoot, func(map[string]any) {})
	id, line := identity()
	small := mt.EditPayload(t, first, manifest.TypeRoot, func(m map[string]any) {
		m["keys"].(map[string]any)[id] = line
		root := m["root"].(map[string]any)
		root["keyids"] = append(root["keyids"].([]any), id)
	})
	rows := []struct {
		name string
		root []byte
		args []string
		exit int
		code fault.Code
	}{
		{"second-root", f.Roots[1], nil, 2, fault.RootChain},
		{"below-its-threshold", f.Sign(manifest.TypeRoot, payload, "root-1"), nil, 2, fault.Threshold},
		{"by-strangers", f.Sign(manifest.TypeRoot, payload, "x-1", "x-2"), nil, 2, fault.Threshold},
		{"identity-point", f.Sign(manifest.TypeRoot, small, "root-1", "root-2"), nil, 2, fault.BadKey},
		{"manifest", f.Manifest(mt.Stable, 1), nil, 2, fault.WrongType},
		{"no-json", []byte("-----BEGIN"), nil, 2, fault.Malformed},
		{"too-large", make([]byte, manifest.MaxRoot+1), nil, 2, fault.TooLarge},
		{"another-pin", first, []string{"--pin", manifest.Sum(nil).Prefixed()}, 8, fault.PinMismatch},
		{"pin-without-prefix", first, []string{"--pin", manifest.Sum(nil).String()}, 64, fault.Usage},
		{"pin-cut-short", first, []string{"--pin", "sha256:00"}, 64, fault.Usage},
		{"min-root-below-zero", first, []string{"--min-root", "-1"}, 64, fault.Usage},
		{"min-sequence-of-one-number", first, []string{"--min-sequence", "42"}, 64, fault.Usage},
		{"argument", first, []string{"x"}, 64, fault.Usage},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			parent := t.TempDir()
			status, out := initOf(t, filepath.Join(parent, "state"), r.root, r.args...)
			if status != r.exit || out["code"] != string(r.code) || out["message"] == "" {
				t.Errorf("exit %d, %v; want %d %s", status, out, r.exit, r.code)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestCheckUsage(t *testing.T) {
	v := newVictim(t)
	before := files(t, v.dir)
	with := func(args []string, name, value string) []string {
		for i, a := range args {
			if a == name {
				args[i+1] = value
			}
		}
		return args
	}
	rows := map[string][]string{
		"app-that-climbs":      with(v.args("check"), "--app", ".."),
		"app-of-two-parts":     with(v.args("check"), "--app", "acme/x"),
		"app-in-capitals":      with(v.args("check"), "--app", "Acme"),
		"no-app":               with(v.args("check"), "--app", ""),
		"channel-with-a-space": with(v.args("check"), "--channel", "stable "),
		"device-as-channel":    with(v.args("check"), "--channel", "con"),
		"channel-that-climbs":  with(v.args("update", "--out", v.out), "--channel", "../../x"),
		"platform":             with(v.args("check"), "--platform", "linux"),
		"now":                  with(v.args("check"), "--now", "yesterday"),
		"no-source":            with(v.args("check"), "--source", ""),
		"update-without-out":   v.args("update"),
		"argument":             v.args("check", "acme/stable"),
		"unknown-flag":         v.args("check", "--nwo", "2026-10-14T06:00:00Z"),
		"now-without-once":     {"agent", "check", "--now", "2026-10-14T06:00:00Z"},
		"now-of-plain-update":  {"agent", "update", "--now", "2026-10-14T06:00:00Z"},
		"now-of-init":          {"agent", "init", "--state", v.dir, "--root", "x", "--now", "2026-10-14T06:00:00Z"},
	}
	for name, args := range rows {
		if status, out, _ := shoal(args...); status != 64 {
			t.Errorf("%s: exit %d, want 64\n%s", name, status, out)
		}
	}
	unchanged(t, before, files(t, v.dir), 1)
}

// A wrong time must not make an agent that has joined trust what has expired.
func TestNowIsRefusedOnAJoinedState(t *testing.T) {
	v := newStranger(t)
	v.Release(mt.Stable, 42, program)
	store, err := state.Open(v.dir, filepath.Join(v.dir, "anchor.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(v.Trust().Snapshot(), state.Local{}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	before := files(t, v.dir)
	for _, args := range [][]string{v.args("check"), v.args("update", "--out", v.out)} {
		if status, out, _ := shoal(args...); status != 64 {
			t.Errorf("exit %d, want 64\n%s", status, out)
		}
	}
	v.wantOut("")
	unchanged(t, before, files(t, v.dir), 1)
	if status, out := initOf(t, v.dir, v.Roots[0]); status != 64 {
		t.Errorf("init over it: exit %d, %v", status, out)
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	v := newVictim(t)
	held := expected{"", 1, "1.42", v.hash, manifest.FreshCurrent, false}
	nothing := expected{"", 0, "0.0", manifest.Digest{}, manifest.FreshNone, false}
	rows := []struct {
		name string
		do   func(v *victim)
		code fault.Code
		want expected
	}{
		{"no-state", func(v *victim) { v.dir = filepath.Join(filepath.Dir(v.out), "state") }, fault.StateLost, nothing},
		{"empty-state", func(v *victim) { v.dir = filepath.Dir(v.out) }, fault.StateLost, nothing},
		{"no-tree", func(v *victim) { v.source = filepath.Join(v.Dir, "unplugged") }, fault.Unreachable, held},
		{"no-such-scheme", func(v *victim) { v.source = "ftp://updates.example" }, fault.Config, held},
		{"no-manifest", func(v *victim) { v.Remove(tree.Manifest(mt.Stable)) }, fault.NotFound, held},
		{"no-such-channel", func(v *victim) { v.channel.Name = "beta" }, fault.ChannelGone, expected{"", 1, "0.0", manifest.Digest{}, manifest.FreshNone, false}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := newVictim(t)
			before := files(t, v.dir)
			whole := v.dir
			r.do(v)
			want := r.want
			want.code = r.code
			if want.hash != (manifest.Digest{}) {
				want.hash = v.hash
			}
			v.check().want(t, want)
			v.update().want(t, want)
			v.wantOut("")
			unchanged(t, before, files(t, whole), 1)
		})
	}
}

func TestInterruptedCheckStillAnswers(t *testing.T) {
	v := newVictim(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	askIn(t, ctx, 0, v.args("check")...).want(t, expected{fault.Interrupted, 1, "1.42", v.hash, manifest.FreshCurrent, false})
}

func TestLockedState(t *testing.T) {
	v := newVictim(t)
	store, err := state.Open(v.dir, filepath.Join(v.dir, "anchor.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if got := v.check("--timeout", "300ms"); got.Code != fault.Locked {
		t.Errorf("%s, want locked", got.Code)
	}
}

func TestRootAloneChangesIsSame(t *testing.T) {
	v := newVictim(t)
	before := files(t, v.dir)
	v.Rotate()
	v.PutRoots()
	v.check().want(t, expected{fault.Same, 2, "1.42", v.hash, manifest.FreshCurrent, true})
	unchanged(t, before, files(t, v.dir), 2)
	v.check().want(t, expected{fault.Same, 2, "1.42", v.hash, manifest.FreshCurrent, false})
}

func TestNothingForThePlatform(t *testing.T) {
	v := newVictim(t)
	next := v.Release(mt.Stable, 43, program)
	v.arch = "vax"
	v.putOut(asItWas)
	v.check().want(t, expected{fault.NoArtifact, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
	v.update().want(t, expected{fault.NoArtifact, 1, "1.43", payloadHash(t, next), manifest.FreshStale, false})
	v.wantOut(asItWas)
}

// The numbers are floors: they stay when the document does not count any more.
func TestNumbersOutliveTheirDocument(t *testing.T) {
	v := newVictim(t)
	var ids []keys.ID
	v.Rotate(mt.WithRoot(func(r *manifest.Root) {
		ids = r.Channels[0].Release.KeyIDs
		for _, id := range ids {
			delete(r.Keys, id)
		}
		r.Channels[0].Release = v.Role(r, 2, "release-4", "release-5")
	}))
	v.PutRoots()
	v.check().want(t, expected{fault.Threshold, 2, "1.42", manifest.Digest{}, manifest.FreshBehind, true})

	// The same payload, signed by the new keys, is the same manifest.
	e, err := manifest.ParseEnvelope(v.held, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	v.Put(tree.Manifest(mt.Stable), v.Sign(manifest.TypeManifest, e.Payload, "release-4", "release-5"))
	v.check().want(t, expected{fault.Same, 2, "1.42", v.hash, manifest.FreshCurrent, true})

	v.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[0].Epoch = 2 }))
	v.PutRoots()
	v.Remove(tree.Manifest(mt.Stable))
	v.check().want(t, expected{fault.NotFound, 3, "1.42", manifest.Digest{}, manifest.FreshStale, true})
	next := v.Release(mt.Stable, 1, program)
	v.check().want(t, expected{fault.OK, 3, "2.1", payloadHash(t, next), manifest.FreshStale, true})
}

func TestUpdateWritesOnlyWhatIsMissing(t *testing.T) {
	v := newVictim(t)
	same := expected{fault.Same, 1, "1.42", v.hash, manifest.FreshCurrent, false}
	v.update().want(t, same) // known, and written all the same
	v.wantOut(string(program))
	if fi, err := os.Stat(v.out); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v; want the signed mode", fi.Mode(), err)
	}
	if err := os.RemoveAll(filepath.Join(v.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	v.update().want(t, same) // right already: data is not asked for
	v.wantOut(string(program))
	v.putOut(asItWas)
	missing := same
	missing.code = fault.NotFound
	v.update().want(t, missing)
	v.wantOut(asItWas)

	v.Release(mt.Stable, 43, oldProgram) // puts its data
	if got := v.update(); got.Code != fault.OK {
		t.Errorf("%s, want ok: %s", got.Code, got.said())
	}
	v.wantOut(string(oldProgram))

	v.out = filepath.Join(t.TempDir(), "no", "such", "directory", "acme")
	if got := v.update(); got.Code != fault.IO {
		t.Errorf("no directory: %s, want io", got.Code)
	}
	if _, err := os.Stat(filepath.Dir(v.out)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a directory was made")
	}
}

// Waves are for agents: who drives a checker wants the artifact.
func TestUpdateDoesNotWaitForWaves(t *testing.T) {
	v := newVictim(t)
	v.Release(mt.Stable, 43, oldProgram, mt.WithManifest(func(m *manifest.Manifest) {
		m.Rollout = &manifest.Rollout{Salt: "s", Start: v.Now.Add(30 * day), Paused: true, Waves: []manifest.Wave{{Name: "all", Percent: 100, After: time.Hour}}}
	}))
	if got := v.update(); got.Code != fault.OK {
		t.Errorf("%s: %s", got.Code, got.said())
	}
	v.wantOut(string(oldProgram))
}

// In text, a refusal and its exit status are the same, and standard output is silent.
func TestCheckInText(t *testing.T) {
	v := newVictim(t)
	text := func() (int, string, string) {
		args := v.args("check")
		return shoal(args[:len(args)-2]...)
	}
	if status, out, talk := text(); status != 0 || !strings.Contains(out, "acme/stable 1.0.42 (1.42)") || talk != "" {
		t.Errorf("exit %d, %q, %q", status, out, talk)
	}
	v.Put(tree.Manifest(mt.Stable), v.old)
	if status, out, talk := text(); status != 3 || out != "" || !strings.Contains(talk, "[rollback]") {
		t.Errorf("exit %d, %q, %q", status, out, talk)
	}
}
