package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Being told again to trust the fleet that is trusted, as configuration management does
// every hour, is no way back to an older release, whatever of the state is lost.
func TestResetToTheSameFleetLowersNothing(t *testing.T) {
	rows := []struct {
		name string
		lose []string // in the state directory
	}{
		{"nothing-lost", nil},
		{"state-lost", []string{"trust/state.json"}},
		{"anchor-lost", []string{"anchor.json"}},
		{"state-and-anchor-lost", []string{"trust/state.json", "anchor.json"}},
		{"only-the-pin-left", []string{"trust", "anchor.json", "apply"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newcomer(t)
			b.Release(stable, 42, b.old)
			l := b.link()
			l.MinSequence = manifest.Order{Epoch: 1, Sequence: 42}
			if _, err := Join(t.Context(), b.cfg, l); err != nil {
				t.Fatal(err)
			}
			for _, name := range r.lose {
				if err := os.RemoveAll(filepath.Join(b.cfg.StateDir, filepath.FromSlash(name))); err != nil {
					t.Fatal(err)
				}
			}
			if len(r.lose) < 3 { // what is stored must do without the pin's floor
				b.pin(b.Pin())
			}
			if _, err := Reset(t.Context(), b.cfg, b.Roots[0], b.Pin()); err != nil {
				t.Fatal(err)
			}
			b.Release(stable, 41, agenttest.Program("older", 0))
			if u := b.update(Choice{}); u.Code != fault.Rollback {
				t.Errorf("the older release: %s (%v), want rollback", u.Code, u.Error)
			}
			b.installed(b.old)
		})
	}
}

// What was installed from the fleet before says nothing of the new one, even where
// everything else is lost.
func TestOrdersOfAnotherFleetAreNoFloor(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 42, agenttest.Program("2", 0))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Now = b.Now.Add(time.Hour)
	root := *b.Root
	root.Fleet = "other"
	payload, err := manifest.DraftRoot(&root)
	if err != nil {
		t.Fatal(err)
	}
	other, env := manifest.Sum(payload), b.Sign(manifest.TypeRoot, payload, "root-1", "root-2")
	for _, r := range []struct {
		fleet manifest.Digest
		root  []byte
		want  manifest.Order
	}{{b.Pin(), b.Roots[0], manifest.Order{Epoch: 1, Sequence: 42}}, {other, env, manifest.Order{}}} {
		if _, err := Reset(t.Context(), b.cfg, r.root, r.fleet); err != nil {
			t.Fatal(err)
		}
		a := b.open()
		if got := a.installedFloor(stable); got != r.want {
			t.Errorf("fleet %s: the floor is %v, want %v", r.fleet, got, r.want)
		}
		a.Close()
	}
}

// A reset to another fleet that a crash interrupted at its worst moment is finished by
// the same command.
func TestResetIsFinishedAfterACrash(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 42, b.old)
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	root := *b.Root
	root.Fleet = "other"
	payload, err := manifest.DraftRoot(&root)
	if err != nil {
		t.Fatal(err)
	}
	other, env := manifest.Sum(payload), b.Sign(manifest.TypeRoot, payload, "root-1", "root-2")
	b.pin(other)
	for _, name := range []string{"anchor.json", "trust/state.json"} {
		if err := os.Remove(filepath.Join(b.cfg.StateDir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	done, err := Reset(t.Context(), b.cfg, env, other)
	if err != nil || done.Already {
		t.Fatalf("%+v, %v; want it done", done, err)
	}
	if have, err := state.FleetID(b.cfg.StateDir); err != nil || have != manifest.FleetID(other) {
		t.Errorf("the state is of %s, %v", have, err)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.StateDir, "trust", "m")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a document of the old fleet is left")
	}
}
