package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// newcomer is a bench whose machine has not joined yet.
func newcomer(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	if err := os.Remove(b.cfg.JoinFile); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) link() *link.Link { return b.Link(stable, b.cfg.Sources.Publisher) }

func TestJoin(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	l := b.link()
	l.MinRoot, l.MinSequence = 1, manifest.Order{Epoch: 1, Sequence: 2}
	j, err := Join(t.Context(), b.cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	if j.Already || j.Version != "1.0.2" || j.Name != "acme" || len(j.SignedBy) != 2 || j.SignedBy[0] == "" || !j.Target.Present ||
		j.Target.Version != "1.0.2" || j.Target.Free == 0 || !strings.HasPrefix(string(j.Agent), "SHA256:") || j.Note != "" {
		t.Errorf("joined %+v", j)
	}
	pin, err := state.ReadPin(b.cfg.JoinFile)
	if err != nil || pin.Repo.String() != b.Pin().Prefixed() || len(pin.Root) == 0 {
		t.Fatalf("pin %+v, %v", pin, err)
	}
	if least, _ := pin.Least(stable); least.Sequence != 2 {
		t.Errorf("the floor of the link is lost: %v", least)
	}
	b.installed(b.old) // joining installs nothing
	again, err := Join(t.Context(), b.cfg, l)
	if err != nil || !again.Already || again.Agent != j.Agent {
		t.Errorf("again: %+v, %v; want the same agent, already joined", again, err)
	}
	b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)

	defer b.run()()
	b.serving()
	if again, err = Join(t.Context(), b.cfg, l); err != nil || !again.Already || again.Agent != j.Agent {
		t.Errorf("beside the running agent: %+v, %v", again, err)
	}
}

// Without a link the server says which fleet it is; that is recorded, and told.
func TestJoinOnFirstUse(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	l, err := FirstUseLink(t.Context(), b.cfg, b.cfg.Sources.Publisher, stable)
	if err != nil {
		t.Fatal(err)
	}
	if l.Repo != b.Pin() {
		t.Errorf("the link is for %s, want %s", l.Repo, b.Pin())
	}
	j, err := JoinOnFirstUse(t.Context(), b.cfg, l)
	if err != nil || !j.TOFU {
		t.Fatalf("joined %+v, %v; want tofu", j, err)
	}
	if pin, err := state.ReadPin(b.cfg.JoinFile); err != nil || !pin.TOFU || pin.Repo.String() != b.Pin().Prefixed() {
		t.Errorf("pin %+v, %v; want tofu", pin, err)
	}
	b.want(b.update(Choice{}), fault.Same, manifest.StateHealthy)
	if s, err := ReadStatus(b.cfg.StateDir); err != nil || !s.TOFU {
		t.Errorf("status %+v, %v; want tofu", s, err)
	}
	// The fleet that a link names is never replaced by what a server says.
	other := *l
	other.Repo = manifest.Sum([]byte("another fleet"))
	if _, err := JoinOnFirstUse(t.Context(), b.cfg, &other); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("another fleet: %v, want pin_mismatch", err)
	}
	// A link that is joined with later makes no secret of how the pin came here.
	if again, err := Join(t.Context(), b.cfg, b.link()); err != nil || !again.TOFU {
		t.Errorf("joining with a link later: %+v, %v", again, err)
	}
}

// The floors of a second link count at once, for an agent that is running too.
func TestJoiningAgainRaisesTheFloor(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	stop := b.run()
	b.serving()
	l := b.link()
	l.MinSequence = manifest.Order{Epoch: 1, Sequence: 3}
	b.Release(stable, 4, b.old) // what the link speaks of is there
	if j, err := Join(t.Context(), b.cfg, l); err != nil || !j.Already {
		t.Fatalf("%+v, %v", j, err)
	}
	b.Release(stable, 2, b.old)
	checks, err := b.connect().Check(t.Context(), nil)
	if err != nil || checks.Apps[0].Code != fault.Rollback {
		t.Errorf("%+v, %v; want rollback", checks, err)
	}
	stop()
	pin, err := state.ReadPin(b.cfg.JoinFile)
	if err != nil {
		t.Fatal(err)
	}
	if least, _ := pin.Least(stable); least.Sequence != 3 {
		t.Errorf("the floor is %v", least)
	}
}

// A join that fails leaves nothing.
func TestJoinRefusals(t *testing.T) {
	rows := []struct {
		name string
		do   func(b *bench, l *link.Link)
		want fault.Code
	}{
		{"another-fleet", func(b *bench, l *link.Link) { l.Repo = manifest.Sum([]byte("another fleet")) }, fault.PinMismatch},
		{"roots-older-than-the-link-says", func(b *bench, l *link.Link) { l.MinRoot = 2 }, fault.RootBehind},
		{"manifest-older-than-the-link-says", func(b *bench, l *link.Link) { l.MinSequence = manifest.Order{Epoch: 1, Sequence: 3} }, fault.Rollback},
		{"no-such-channel", func(b *bench, l *link.Link) {
			l.Channel.Name, b.cfg.Apps[0].Channel = "beta", "beta"
		}, fault.ChannelGone},
		{"expired", func(b *bench, l *link.Link) { b.Now = b.Now.AddDate(1, 0, 0) }, fault.Expired},
		{"too-few-signatures", func(b *bench, l *link.Link) {
			b.Release(stable, 2, b.old, manifesttest.SignedBy("release-1"))
		}, fault.Threshold},
		{"bad-root", func(b *bench, l *link.Link) {
			b.Put(tree.Root(2), b.NextRoot(manifesttest.SignedBy("root-1")))
		}, fault.Threshold},
		{"nobody-answers", func(b *bench, l *link.Link) { b.cfg.Sources.Publisher = "http://127.0.0.1:1" }, fault.Unreachable},
		{"target-in-no-directory", func(b *bench, l *link.Link) {
			b.cfg.Apps[0].Target = filepath.Join(filepath.Dir(b.target), "none", "acme")
		}, fault.Config},
		{"target-is-a-directory", func(b *bench, l *link.Link) { b.cfg.Apps[0].Target = filepath.Dir(b.target) }, fault.Config},
		{"another-fleet-in-the-configuration", func(b *bench, l *link.Link) {
			b.cfg.FleetID = manifest.Sum([]byte("another fleet")).Prefixed()
		}, fault.PinMismatch},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newcomer(t)
			b.Release(stable, 2, b.old)
			l := b.link()
			r.do(b, l)
			if j, err := Join(t.Context(), b.cfg, l); !errors.Is(err, r.want) {
				t.Errorf("%+v, %v; want %s", j, err, r.want)
			}
			for _, path := range []string{b.cfg.JoinFile, b.cfg.StateDir} {
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was left behind", path)
				}
			}
			b.installed(b.old)
		})
	}
}

func TestJoiningAnotherFleetIsRefused(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(b.cfg.JoinFile)
	if err != nil {
		t.Fatal(err)
	}
	other := b.link()
	other.Repo = manifest.Sum([]byte("another fleet"))
	if _, err := Join(t.Context(), b.cfg, other); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("%v, want pin_mismatch", err)
	}
	if after, err := os.ReadFile(b.cfg.JoinFile); err != nil || string(after) != string(before) {
		t.Errorf("the pin changed: %v", err)
	}
	// The same when join.json alone was deleted: the state knows.
	if err := os.Remove(b.cfg.JoinFile); err != nil {
		t.Fatal(err)
	}
	second := agenttest.New(t)
	root := second.Rotate() // any other document will do as another fleet's: only its hash counts
	other.Repo = manifest.Sum(root)
	if _, err := Join(t.Context(), b.cfg, other); !errors.Is(err, fault.PinMismatch) {
		t.Errorf("%v, want pin_mismatch", err)
	}
}

func TestJoinBeforeAnythingIsPublished(t *testing.T) {
	b := newcomer(t)
	j, err := Join(t.Context(), b.cfg, b.link())
	if err != nil || j.Note == "" || j.Version != "" {
		t.Errorf("%+v, %v; want joined, with a note", j, err)
	}
	b.Release(stable, 1, agenttest.Program("first", 0))
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
}

func TestJoiningAgainAcknowledgesALostState(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	b.update(Choice{})
	for _, name := range []string{"trust/state.json", "anchor.json"} {
		if err := os.Remove(filepath.Join(b.cfg.StateDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.update(Choice{})
	if s := mustStatus(t, b); !s.StateLost {
		t.Errorf("the loss is not told: %+v", s)
	}
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	b.update(Choice{})
	if s := mustStatus(t, b); s.StateLost {
		t.Error("the loss is still told after joining again")
	}
}

func TestLeave(t *testing.T) {
	b := newcomer(t)
	next := agenttest.Large("2", 0)
	b.cfg.idle = 200_000_000
	b.Release(stable, 2, next)
	if _, err := Join(t.Context(), b.cfg, b.link()); err != nil {
		t.Fatal(err)
	}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	if err := Leave(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	b.installed(next)
	if _, err := os.Stat(b.cfg.JoinFile); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the pin is still there")
	}
	entries, err := os.ReadDir(b.cfg.StateDir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("the state directory still holds %v, %v", entries, err)
	}
	// And it may join another fleet now, or this one anew.
	if j, err := Join(t.Context(), b.cfg, b.link()); err != nil || j.Already {
		t.Errorf("%+v, %v", j, err)
	}
}
