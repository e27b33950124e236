package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// Stories of TestAttackStories in which the state is deleted, torn or changed.

func (v *victim) remove(names ...string) {
	v.t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(v.dir, filepath.FromSlash(name))); err != nil {
			v.t.Fatal(err)
		}
	}
}

func stateDeleted(t *testing.T) {
	for _, gone := range []string{"trust/state.json", "anchor.json"} {
		v := newVictim(t)
		before := files(t, v.dir)
		v.Put(tree.Manifest(mt.Stable), v.old)
		v.remove(gone)
		got := v.check()
		got.want(t, expected{fault.Rollback, 1, "1.42", v.hash, manifest.FreshCurrent, false})
		if gone == "trust/state.json" && !got.has(fault.StateRepaired) {
			t.Errorf("events %v, want state_repaired", got.Events)
		}
		after := files(t, v.dir)
		before["trust/state.json"], after["trust/state.json"] = "", "" // the anchor has no dates
		unchanged(t, before, after, 1)
		if got := v.check(); got.has(fault.StateRepaired) {
			t.Error("repaired a second time")
		}
	}
}

func stateAndAnchorDeleted(t *testing.T) {
	v := newVictim(t)
	v.remove("trust/state.json", "anchor.json", "lock")
	before := files(t, v.dir)
	for _, ask := range []func(...string) *answer{v.check, v.update} {
		ask().want(t, expected{fault.StateLost, 0, "0.0", manifest.Digest{}, manifest.FreshNone, false})
	}
	v.wantOut("")
	unchanged(t, before, files(t, v.dir), 1)
	if _, err := os.Stat(filepath.Join(v.dir, "lock")); err == nil {
		t.Error("a lock was made where there is no state")
	}
	// Made anew over what is left, it goes on from there.
	v.init()
	v.Put(tree.Manifest(mt.Stable), v.old)
	v.check().want(t, expected{fault.Rollback, 1, "1.42", v.hash, manifest.FreshStale, false})
}

// Each file of a state is cut at many places, as by a power cut on a disk that lies.
func tornState(t *testing.T) {
	v := newVictim(t)
	v.Rotate()
	v.PutRoots()
	v.check().want(t, expected{fault.Same, 2, "1.42", v.hash, manifest.FreshCurrent, true})
	whole := v.dir
	for name, content := range files(t, whole) {
		step := max(len(content)/6, 1)
		cuts := []int{0, 1, len(content) - 2, len(content) - 1}
		for n := step; n < len(content); n += step {
			cuts = append(cuts, n)
		}
		for _, n := range cuts {
			v.dir = filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(v.dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(v.dir, filepath.FromSlash(name)), int64(n)); err != nil {
				t.Fatal(err)
			}
			v.Put(tree.Manifest(mt.Stable), v.old)
			if got := v.update(); got.Code != fault.Rollback || got.RootVersion != 2 || got.Epoch != 1 || got.Sequence != 42 {
				t.Errorf("%s cut at %d: %s at root %d, %d.%d", name, n, got.Code, got.RootVersion, got.Epoch, got.Sequence)
			}
			v.wantOut("")
			v.Put(tree.Manifest(mt.Stable), v.held)
			if got := v.check(); got.Code != fault.Same || got.ManifestSHA256 != v.hash.String() {
				t.Errorf("%s cut at %d: then %s", name, n, got.Code)
			}
		}
	}
}

// A check is killed while it waits for each of the documents in turn.
func killedAtEachDocument(t *testing.T) {
	exe, err := exec.LookPath("shoal")
	if err != nil {
		t.Fatal(err) // TestMain puts it into PATH
	}
	v := newVictim(t)
	v.Rotate()
	v.PutRoots()
	next := v.Release(mt.Stable, 43, program)
	v.Put(tree.Beacon(mt.Stable), v.Beacon(next))
	whole, tree43 := v.dir, v.Dir
	serve := http.FileServer(http.Dir(tree43))
	reached := 0
	for at := 1; ; at++ {
		v.dir = filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(v.dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		asked, killed := 0, false
		var cmd *exec.Cmd
		started := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-started
			if asked++; asked == at {
				killed = true
				cmd.Process.Kill()
				return
			}
			serve.ServeHTTP(w, r)
		}))
		v.source = srv.URL
		cmd = exec.Command(exe, v.args("update", "--out", v.out)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		close(started)
		cmd.Wait()
		srv.Close()
		if !killed {
			reached = at - 1
			break
		}
		if b, err := os.ReadFile(v.out); err == nil && !bytes.Equal(b, program) {
			t.Errorf("killed at document %d: an unverified file has the name of the verified one", at)
		}
		// It goes on, and has forgotten nothing.
		v.source = v.Dir
		v.Put(tree.Manifest(mt.Stable), v.old)
		if got := v.check(); got.Code != fault.Rollback || got.Sequence < 42 {
			t.Errorf("killed at document %d: offered 41, it says %s at %d", at, got.Code, got.Sequence)
		}
		v.Put(tree.Manifest(mt.Stable), next)
		if got := v.check(); (got.Code != fault.OK && got.Code != fault.Same) || got.Sequence != 43 || got.RootVersion != 2 {
			t.Errorf("killed at document %d: then %s at root %d, %d", at, got.Code, got.RootVersion, got.Sequence)
		}
	}
	if reached < 5 {
		t.Errorf("only %d documents were asked for", reached)
	}
}

// flip changes one byte inside the payload of a stored document.
func (v *victim) flip(name string) {
	v.t.Helper()
	path := filepath.Join(v.dir, "trust", filepath.FromSlash(name))
	b, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	at := bytes.Index(b, []byte(`"payload"`)) + 40
	if b[at] != 'A' {
		b[at] = 'A'
	} else {
		b[at] = 'B'
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func storedManifestChanged(t *testing.T) {
	v := newVictim(t)
	whole := files(t, v.dir)
	v.flip(tree.Manifest(mt.Stable))
	v.Put(tree.Manifest(mt.Stable), v.old)
	// The beacon names 42, which is not held any more.
	v.update().want(t, expected{fault.Rollback, 1, "1.42", manifest.Digest{}, manifest.FreshBehind, true})
	v.wantOut("")
	v.Release(mt.Stable, 42, oldProgram)
	if got := v.check(); got.Code != fault.Equivocation {
		t.Errorf("another 42: %s, want equivocation", got.Code)
	}
	v.Put(tree.Manifest(mt.Stable), v.held)
	v.check().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshCurrent, true})
	if diff := cmp.Diff(whole, files(t, v.dir)); diff != "" {
		t.Errorf("not as before the damage:\n%s", diff)
	}
}

func storedRootChanged(t *testing.T) {
	v := newVictim(t)
	v.Rotate()
	v.PutRoots()
	v.check()
	v.flip(tree.Root(2))
	v.Remove(tree.Root(2)) // and no source has it
	next := v.Release(mt.Stable, 43, program)
	if got := v.update(); got.Code != fault.RootBehind || got.RootVersion != 2 || got.Sequence != 42 {
		t.Errorf("%s at root %d, %d; want root_behind at 2, 42", got.Code, got.RootVersion, got.Sequence)
	}
	v.wantOut("")
	v.PutRoots()
	got := v.update()
	if got.Code != fault.OK || got.RootVersion != 2 || got.ManifestSHA256 != payloadHash(t, next).String() {
		t.Errorf("%s at root %d", got.Code, got.RootVersion)
	}
	v.wantOut(string(program))
}
