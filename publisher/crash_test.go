package publisher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// whole fails unless an agent believes the tree's manifest and everything it names is
// there. It returns the version.
func (f *testFleet) whole(t *testing.T) string {
	t.Helper()
	v, err := f.agent()
	if err != nil {
		t.Fatalf("an agent refuses what is there: %v", err)
	}
	for i := range v.Manifest.Artifacts {
		pl, _ := v.Manifest.Artifacts[i].Usable()
		if manifest.Sum(f.read(tree.Data(pl.SHA256))) != pl.SHA256 || manifest.Sum(f.read(tree.Info(pl.InfoSHA256))) != pl.InfoSHA256 {
			t.Errorf("the data of %s is not what its manifest names", v.Manifest.Release.Version)
		}
	}
	for name := range f.snapshot() {
		if !tree.Valid(name) {
			t.Errorf("the tree holds %q, which is none of its names", name)
		}
	}
	return v.Manifest.Release.Version
}

// At every step of a publish the disk may fail: the old release stays, whole.
func TestFaultAtEveryStepLeavesTheOldRelease(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	broken := errors.New("the disk broke")
	var steps []string
	for fail := 0; ; fail++ {
		steps = steps[:0]
		p := f.open()
		p.step = func(name string) error {
			if steps = append(steps, name); len(steps) > fail {
				return broken
			}
			return nil
		}
		_, err := p.Publish(t.Context(), f.request("2.0.0", "two", f.release...))
		if err == nil {
			break
		}
		if !errors.Is(err, broken) {
			t.Fatalf("step %d: %v", fail, err)
		}
		if v := f.whole(t); v != "1.0.0" {
			t.Errorf("after a fault before %q machines see %s", steps[len(steps)-1], v)
		}
		if left, _ := filepath.Glob(filepath.Join(f.cfg.Store, "tmp", "*")); len(left) > 0 {
			t.Errorf("after a fault before %q %v is left", steps[len(steps)-1], left)
		}
	}
	if v := f.whole(t); v != "2.0.0" {
		t.Errorf("machines see %s in the end", v)
	}
	if last := steps[len(steps)-1]; last != "rename tree/m/acme/stable.json" {
		t.Errorf("the last step is %q; the manifest must come after all it names\n%s", last, strings.Join(steps, "\n"))
	}
}

// The process may also be killed there, with no chance to tidy up.
func TestKillAtEveryStepLeavesTheOldRelease(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	before := f.snapshot()
	const most = 64
	for kill := 0; ; kill++ {
		if kill == most {
			t.Fatalf("a publish takes more than %d steps", most)
		}
		child := exec.Command(os.Args[0], "-test.run=^TestPublishAndBeKilled$")
		child.Env = append(os.Environ(), "SHOAL_TEST_STORE="+f.cfg.Store, fmt.Sprint("SHOAL_TEST_KILL=", kill))
		out, err := child.CombinedOutput()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("the child was not killed: %v\n%s", err, out)
		}
		if v := f.whole(t); v != "1.0.0" {
			t.Errorf("killed before step %d, machines see %s", kill, v)
		}
	}
	if v := f.whole(t); v != "2.0.0" {
		t.Errorf("machines see %s in the end", v)
	}
	for name, content := range f.snapshot() {
		if old, ok := before[name]; ok && old != content && name != tree.Manifest(stable) {
			t.Errorf("%s changed", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(f.cfg.Store, "tmp", "*")); len(left) > 0 {
		t.Errorf("what the killed ones left is still there: %v", left)
	}
}

// TestPublishAndBeKilled is the child of the test above.
func TestPublishAndBeKilled(t *testing.T) {
	store := os.Getenv("SHOAL_TEST_STORE")
	if store == "" {
		t.Skip("only a child process of TestKillAtEveryStepLeavesTheOldRelease")
	}
	var kill int
	if _, err := fmt.Sscan(os.Getenv("SHOAL_TEST_KILL"), &kill); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, 1, "release-1@acme") // the same keys; its own repository is not used
	f.cfg.Store = store
	p := f.open()
	step := 0
	p.step = func(string) error {
		if step == kill {
			me, err := os.FindProcess(os.Getpid())
			if err != nil {
				return err
			}
			me.Kill()
			select {} // until it arrives
		}
		step++
		return nil
	}
	if _, err := p.Publish(t.Context(), f.request("2.0.0", "two", f.release...)); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedPublish(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	ctx, cancel := context.WithCancel(t.Context())
	p := f.open()
	p.step = func(string) error { cancel(); return nil }
	_, err := p.Publish(ctx, f.request("2.0.0", "two", f.release...))
	if fault.CodeOf(err) != fault.Interrupted {
		t.Errorf("%v (%s), want interrupted", err, fault.CodeOf(err))
	}
	if v := f.whole(t); v != "1.0.0" {
		t.Errorf("machines see %s", v)
	}
}

func TestLostRightsToTheRepository(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	if reason := asRoot(); reason != "" {
		t.Skip(reason)
	}
	if err := os.Chmod(repo.TreeDir(f.cfg.Store), 0o555); err != nil {
		t.Fatal(err)
	}
	_, err := f.open().Publish(t.Context(), f.request("1.0.0", "x", f.release...))
	wantCode(t, err, fault.Permission)
}
