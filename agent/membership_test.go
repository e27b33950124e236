package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm/fleet"
)

func newFleetKeys(t *testing.T) *fleet.Keys {
	t.Helper()
	k, err := fleet.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// private is a newcomer to a fleet with a key, which publishes 1.0.2.
func private(t *testing.T) (*bench, *fleet.Keys) {
	t.Helper()
	b := newcomer(t)
	k := newFleetKeys(t)
	b.cfg.Sources.Publisher = b.ServeMembers(k)
	b.Release(stable, 2, b.old)
	return b, k
}

func refused(t *testing.T, err error, want fault.Code, says ...string) {
	t.Helper()
	var e *fault.Error
	if !errors.Is(err, want) || !errors.As(err, &e) {
		t.Fatalf("got %v, want %s", err, want)
	}
	text := strings.Join(append(append([]string{e.Message}, e.Detail...), e.Next...), "\n")
	for _, s := range says {
		if !strings.Contains(text, s) {
			t.Errorf("it does not say %q:\n%s", s, text)
		}
	}
}

func TestJoinAFleetWithAKey(t *testing.T) {
	b, k := private(t)
	_, err := Join(t.Context(), b.cfg, b.link())
	refused(t, err, fault.Config, "has a key", k.IDs()[0], "--fleet-key FILE")
	if _, err := FirstUseLink(t.Context(), b.cfg, b.cfg.Sources.Publisher, stable); err == nil {
		t.Error("the first server was asked without a key")
	}

	b.cfg.FleetKeyFile = filepath.Join(t.TempDir(), "etc", "fleet.key")
	_, err = Join(t.Context(), b.cfg, b.link())
	refused(t, err, fault.Config, "no such file", "--fleet-key FILE")

	b.cfg.FleetKeys = newFleetKeys(t)
	_, err = Join(t.Context(), b.cfg, b.link())
	refused(t, err, fault.Config, "not the one of this fleet", k.IDs()[0], b.cfg.FleetKeys.IDs()[0])
	for _, path := range []string{b.cfg.FleetKeyFile, b.cfg.JoinFile, b.cfg.StateDir} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("joining in vain has left %s", path)
		}
	}

	b.cfg.FleetKeys = k
	j, err := Join(t.Context(), b.cfg, b.link())
	if err != nil || j.FleetKey != b.cfg.FleetKeyFile || j.Version != "1.0.2" {
		t.Fatalf("joined %+v, %v", j, err)
	}
	if kept, err := fleet.Read(b.cfg.FleetKeyFile); err != nil || !kept.Equal(k) { // which checks its mode, too
		t.Errorf("kept %v, %v", kept, err)
	}
	if again, err := Join(t.Context(), b.cfg, b.link()); err != nil || !again.Already {
		t.Errorf("again: %+v, %v", again, err)
	}

	// From then on the file is enough, and everything comes from members.
	b.cfg.FleetKeys = nil
	large := agenttest.Large("2", 0)
	b.Release(stable, 3, large)
	b.cfg.Peers = []string{b.Seed(large)}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(large)

	leaf := filepath.Join(b.cfg.StateDir, fleet.LeafFile)
	if _, err := os.Stat(leaf); err != nil {
		t.Errorf("the leaf's key is not kept: %v", err)
	}
	if err := Leave(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{b.cfg.FleetKeyFile, leaf} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after leaving %s is there: %v", path, err)
		}
	}
}

func TestJoinNeverReplacesAFleetKey(t *testing.T) {
	b, k := private(t)
	b.cfg.FleetKeyFile = filepath.Join(t.TempDir(), "fleet.key")
	other := newFleetKeys(t)
	if err := other.Write(b.cfg.FleetKeyFile); err != nil {
		t.Fatal(err)
	}
	b.cfg.FleetKeys = k
	_, err := Join(t.Context(), b.cfg, b.link())
	refused(t, err, fault.Usage, "never overwritten", other.IDs()[0], k.IDs()[0], "install -m 600")
	if kept, err := fleet.Read(b.cfg.FleetKeyFile); err != nil || !kept.Equal(other) {
		t.Errorf("the file holds %v, %v", kept, err)
	}
	if _, err := os.Stat(b.cfg.JoinFile); err == nil {
		t.Error("the machine has joined")
	}
}

func TestAgentWithoutItsFleetKey(t *testing.T) {
	b := newBench(t)
	b.cfg.FleetKeyFile = filepath.Join(t.TempDir(), "fleet.key")
	_, err := Open(t.Context(), b.cfg)
	refused(t, err, fault.Config, "no such file", "keeps running")
	if err := os.WriteFile(b.cfg.FleetKeyFile, []byte("#"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), b.cfg)
	refused(t, err, fault.Permission, "chmod 600")
}

// A running agent whose publisher has moved on to another key says so, and keeps its
// program.
func TestAgentWithAnOldFleetKey(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, b.old)
	b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)
	b.cfg.Sources.Publisher = b.ServeMembers(newFleetKeys(t))
	b.cfg.FleetKeyFile = filepath.Join(t.TempDir(), "fleet.key")
	if err := newFleetKeys(t).Write(b.cfg.FleetKeyFile); err != nil {
		t.Fatal(err)
	}
	u := b.update(Choice{})
	if u.Code != fault.Unreachable || u.Error == nil || !strings.Contains(u.Error.Message, "not of this machine's fleet") {
		t.Errorf("%s, %+v", u.Code, u.Error)
	}
	b.installed(b.old)
}

func TestCloneIsAnotherMember(t *testing.T) {
	b := newBench(t)
	b.cfg.FleetKeyFile = filepath.Join(t.TempDir(), "fleet.key")
	if err := newFleetKeys(t).Write(b.cfg.FleetKeyFile); err != nil {
		t.Fatal(err)
	}
	id := func() fleet.Identity {
		t.Helper()
		a := b.open()
		defer a.Close()
		return a.member.ID()
	}
	first := id()
	if again := id(); again != first {
		t.Error("after a restart it is another member")
	}
	// What a disk image that woke up elsewhere looks like.
	if err := os.WriteFile(filepath.Join(b.cfg.StateDir, "machine"), []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id() == first {
		t.Error("a clone is the same member as the original")
	}
}
