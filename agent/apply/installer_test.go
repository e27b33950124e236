//go:build linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
)

// packages is a machine whose program comes in packages: a script notes what it was
// asked to do.
type packages struct {
	crashWorld
	t *testing.T
}

// newPackages makes one whose install command is the shell script install, and whose
// revert command is revert, if there is one. Both see the package as $1, and note.
func newPackages(t *testing.T, install, revert string) *packages {
	t.Helper()
	p := &packages{crashWorld{Dir: memoryDir(t), Kind: KindInstaller, Swap: SwapRename}, t}
	p.make(t, "1", "2", "3")
	p.script("install", install)
	p.script("revert", revert)
	return p
}

// script makes a command of a shell script, none if that is empty.
func (p *packages) script(name, script string) {
	p.t.Helper()
	note := fmt.Sprintf(`note() { echo "$SHOAL_HOOK $(head -n 1 "$1" | sed 's/program of version //') from=$SHOAL_FROM_VERSION" >>%s; }`, p.path("log"))
	err := os.Remove(p.path(name))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil && script != "" {
		err = os.WriteFile(p.path(name), []byte("#!/bin/sh\n"+note+"\n"+script+"\n"), 0o755)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// log is what the commands have noted.
func (p *packages) log() []string {
	b, err := os.ReadFile(p.path("log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (p *packages) assertLog(at string, want ...string) {
	p.t.Helper()
	if got := p.log(); !slices.Equal(got, want) {
		p.t.Errorf("%s: the commands noted %q, want %q", at, got, want)
	}
}

func (p *packages) mustApply(version string) {
	p.t.Helper()
	if res, err := p.apply(p.engine(nil), version); err != nil {
		p.t.Fatalf("%s: %+v, %s", version, res, why(err))
	}
}

// assertTidy fails if anything lies beside the package that is not kept.
func (p *packages) assertTidy() {
	p.t.Helper()
	list, err := os.ReadDir(p.path("bin"))
	if err != nil {
		p.t.Fatal(err)
	}
	n := names{p.path("bin/acme")}
	for _, e := range list {
		if _, prev := n.isPrevious(p.path("bin/" + e.Name())); !prev && e.Name() != "acme" && e.Name() != filepath.Base(n.lock()) {
			p.t.Errorf("%q was left", e.Name())
		}
	}
}

func TestPackagesAreInstalledAndReverted(t *testing.T) {
	p := newPackages(t, `note $1; case $1 in */.shoal-*-acme) ;; *) exit 9 ;; esac`, `note $1`)
	p.mustApply("1")
	p.mustApply("2")
	p.Sick = []string{"3"}
	res, err := p.apply(p.engine(nil), "3")
	wantCode(t, err, fault.HealthFailed)
	if res.State != Reverted {
		t.Errorf("%+v", res)
	}
	if res, err := p.revert(p.engine(nil)); err != nil || res.To.Version != "1" {
		t.Errorf("%+v, %v", res, err)
	}
	p.assertLog("all", "install 1 from=", "install 2 from=1", "install 3 from=2", "revert 2 from=2", "revert 1 from=2")
	p.assertTidy()
	if _, err := p.apply(p.engine(nil), "3"); fault.CodeOf(err) != fault.HealthFailed {
		t.Errorf("the bad one again: %v", err)
	}
}

func TestInstallersExitStatus(t *testing.T) {
	rows := []struct {
		name    string
		install string
		revert  string
		set     func(*Installer)
		state   State
		code    fault.Code
		now     string
		log     []string
	}{
		{"done", "note $1", "", nil, Confirmed, fault.OK, "2", []string{"install 2 from=1"}},
		{"done-and-wants-a-restart", "note $1; exit 7", "", func(in *Installer) { in.Success = []int{7} }, Confirmed, fault.OK, "2", []string{"install 2 from=1"}},
		{"busy", "note $1; exit 8", "note $1", func(in *Installer) { in.RetryLater = []int{8} }, Aborted, fault.Locked, "1", []string{"install 2 from=1"}},
		{"failed", "note $1; echo broken; exit 3", "", nil, Failed, fault.ApplyFailed, "1", []string{"install 2 from=1"}},
		{"failed-idempotent", "note $1; exit 3", "", func(in *Installer) { in.Idempotent = true }, Failed, fault.ApplyFailed, "1", []string{"install 2 from=1"}},
		{"failed-and-put-back", "note $1; exit 3", "note $1", nil, Reverted, fault.ApplyFailed, "1", []string{"install 2 from=1", "revert 1 from=1"}},
		{"failed-twice", "note $1; exit 3", "note $1; exit 4", nil, Failed, fault.ApplyFailed, "1", []string{"install 2 from=1", "revert 1 from=1"}},
		{"killed", "note $1; kill -9 $$", "", nil, Failed, fault.ApplyFailed, "1", []string{"install 2 from=1"}},
		{"hangs", "note $1; sleep 60", "note $1", func(in *Installer) { in.Timeout = 3 * time.Second }, Reverted, fault.ApplyFailed, "1", []string{"install 2 from=1", "revert 1 from=1"}},
		{"not-there", "", "note $1", nil, Aborted, fault.Config, "1", []string{""}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newPackages(t, "exit 0", r.revert)
			p.mustApply("1")
			p.set = r.set
			p.script("install", r.install)
			res, err := p.apply(p.engine(nil), "2")
			wantCode(t, err, r.code)
			if res.State != r.state {
				t.Errorf("%+v, %s", res, why(err))
			}
			p.assert(t, r.name, r.now)
			p.assertLog(r.name, r.log...)
			again, err := p.apply(p.engine(nil), "2")
			switch r.state {
			case Failed:
				if again.State != Failed || fault.CodeOf(err) != fault.ApplyFailed || len(p.log()) != len(r.log) {
					t.Errorf("after it failed: %+v, %v", again, err)
				}
			case Reverted:
				wantCode(t, err, fault.HealthFailed)
			}
			if r.state != Failed {
				p.assertTidy()
			}
		})
	}
}

// The agent is killed while the installer runs.
func TestInterruptedInstallers(t *testing.T) {
	rows := []struct {
		name       string
		revert     string
		idempotent bool
		state      State
		now        string
		log        []string
	}{
		{"unknown", "", false, Failed, "1", []string{"install 1 from=", "install 2 from=1"}},
		{"run-again", "", true, Confirmed, "2", []string{"install 1 from=", "install 2 from=1", "install 2 from=1"}},
		{"put-back", "note $1", false, Reverted, "1", []string{"install 1 from=", "install 2 from=1", "revert 1 from=1"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newPackages(t, "note $1", r.revert)
			if r.idempotent {
				p.Commands = "idempotent"
			}
			p.mustApply("1")
			p.script("install", fmt.Sprintf("note $1; [ -e %[1]s ] || { touch %[1]s; kill -9 $PPID; }", p.path("killed")))
			if !p.do(t, "apply 2", 0) {
				t.Fatal("the agent was not killed")
			}
			res, err := p.program().recoverBy(p.engine(nil))
			if res.State != r.state {
				t.Errorf("%+v, %s", res, why(err))
			}
			p.assert(t, "recovered", r.now)
			p.assertLog("recovered", r.log...)
			if r.state != Failed {
				p.assertTidy()
				return
			}
			if !strings.Contains(why(err), "how far it came is unknown") {
				t.Errorf("it says %q", why(err))
			}
			// Nothing happens until a person has looked; then all goes on.
			if res, err := p.apply(p.engine(nil), "3"); res.State != Failed || err == nil {
				t.Errorf("%+v, %v", res, err)
			}
			if err := p.engine(nil).ClearFailed(p.program().Target); err != nil {
				t.Fatal(err)
			}
			p.mustApply("3")
		})
	}
}

// The agent is killed while things are put back.
func TestInterruptedRevertCommand(t *testing.T) {
	p := newPackages(t, "note $1", "note $1; kill -9 $PPID")
	p.mustApply("1")
	p.Sick = []string{"2"}
	if !p.do(t, "apply 2", 0) {
		t.Fatal("the agent was not killed")
	}
	res, err := p.program().recoverBy(p.engine(nil))
	if res.State != Failed || !strings.Contains(why(err), "how far it came is unknown") {
		t.Errorf("%+v, %s", res, why(err))
	}
	p.assertLog("recovered", "install 1 from=", "install 2 from=1", "revert 1 from=1")
}

func TestPackageIsNotRevertedWithoutACommand(t *testing.T) {
	p := newPackages(t, "note $1", "")
	p.mustApply("1")
	p.mustApply("2")
	_, err := p.revert(p.engine(nil))
	wantCode(t, err, fault.Policy)
	p.assert(t, "refused", "2")
}

func TestInstallersNeedTheFile(t *testing.T) {
	for _, in := range []Installer{{}, {Command: []string{"dpkg", "-i"}}, {Command: []string{"dpkg", "{file}"}, Revert: []string{"dpkg"}}, {Command: []string{"a", "{file}"}, Timeout: -1}} {
		_, err := in.defaults()
		wantCode(t, err, fault.Config)
	}
}

// An agent that dies at any call of its own leaves a package installed or not, never
// twice, and never says so wrongly.
func TestPackageKillSweep(t *testing.T) {
	step := 5
	if os.Getenv("SHOAL_LONG") != "" {
		step = 1
	}
	for k := 1; ; k += step {
		p := newPackages(t, "note $1", "note $1")
		p.mustApply("1")
		f := &faultFS{FS: osFS{}, at: k}
		p.apply(p.engine(f), "2")
		if !f.dead {
			if k < 40 {
				t.Fatalf("it made only %d calls", f.calls)
			}
			return
		}
		at := "killed at " + f.where()
		p.assert(t, at, "1", "2")
		res, err := p.program().recoverBy(p.engine(nil))
		if res.State == Failed {
			t.Fatalf("%s: %+v, %s", at, res, why(err))
		}
		now := p.assert(t, at+", recovered", "1", "2")
		p.assertTidy()
		log := p.log()
		ran, undone := slices.Contains(log, "install 2 from=1"), slices.Contains(log, "revert 1 from=1")
		if count := len(log); count > 3 || now == "2" && (!ran || undone) || now == "1" && ran && !undone {
			t.Fatalf("%s: %s is noted as installed, and the commands did %q", at, now, log)
		}
		os.RemoveAll(p.Dir)
	}
}
