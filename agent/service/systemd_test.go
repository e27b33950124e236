//go:build !windows

package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeSystemd is a systemctl in PATH with one unit, which is active.
type fakeSystemd struct {
	t   *testing.T
	dir string
}

func newFakeSystemd(t *testing.T) *fakeSystemd {
	t.Helper()
	script, err := os.ReadFile("testdata/systemctl")
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	write := func(path, content string, perm os.FileMode) {
		if err := os.WriteFile(path, []byte(content), perm); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(bin, "systemctl"), string(script), 0o755)
	write(filepath.Join(bin, "where"), dir, 0o644)
	write(filepath.Join(dir, "program"), "#!/bin/sh\nexit 0\n", 0o755)
	f := &fakeSystemd{t, dir}
	f.set("LoadState", "loaded")
	f.set("UnitFileState", "enabled")
	f.set("ActiveState", "active")
	f.set("SubState", "running")
	f.set("Result", "success")
	f.set("MainPID", "1000")
	f.set("NRestarts", "0")
	f.set("starts", "0")
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	return f
}

func (f *fakeSystemd) set(property, value string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, property), []byte(value), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

// calls returns what systemctl was asked so far, but for "show".
func (f *fakeSystemd) calls() []string {
	b, err := os.ReadFile(filepath.Join(f.dir, "calls"))
	if err != nil {
		f.t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "show ") {
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return calls
}

func TestSystemdRestart(t *testing.T) {
	f := newFakeSystemd(t)
	s, err := Systemd("acme.service")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := s.State(t.Context())
	if want := (State{Running: true, Enabled: true, PID: 1001, Detail: "active (running)"}); err != nil || st != want {
		t.Errorf("state %+v, %v; want %+v", st, err, want)
	}

	f.set("program", "#!/bin/sh\nexit 3\n")
	err = s.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "failed because the control process exited") ||
		!strings.Contains(err.Error(), "failed (failed), exit-code, exit status 3") {
		t.Errorf("restart of a crashing program: %v", err)
	}
	if st, err := s.State(t.Context()); err != nil || st.Running || !st.Failed {
		t.Errorf("state %+v, %v; want failed", st, err)
	}
}

// A unit that crashed until its start limit was hit refuses every start, of the
// version that is put back too.
func TestSystemdRestartClearsTheStartLimit(t *testing.T) {
	f := newFakeSystemd(t)
	f.set("limit", "2")
	f.set("starts", "2")
	f.set("ActiveState", "failed")
	s, err := Systemd("acme.service")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"reset-failed acme.service", "restart acme.service"}, f.calls()); diff != "" {
		t.Error(diff)
	}
}

func TestSystemdStopAndStart(t *testing.T) {
	f := newFakeSystemd(t)
	s, err := Systemd("acme.service")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(t.Context()); err != nil || st.Running || st.Failed {
		t.Errorf("state %+v, %v; want stopped", st, err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(t.Context()); err != nil || !st.Running {
		t.Errorf("state %+v, %v; want running", st, err)
	}
	if got := f.calls()[0]; got != "stop acme.service" {
		t.Errorf("first call %q", got)
	}
}

func TestParseUnit(t *testing.T) {
	unit := func(active, sub, file string) string {
		return "LoadState=loaded\nActiveState=" + active + "\nSubState=" + sub + "\nUnitFileState=" + file + "\nResult=success\nNRestarts=2\nMainPID=7\n"
	}
	rows := []struct {
		name, output string
		want         State
		err          string
	}{
		{"running", unit("active", "running", "enabled"), State{Running: true, Enabled: true, PID: 7, Restarts: 2, Detail: "active (running)"}, ""},
		{"stopped-by-a-person", unit("inactive", "dead", "enabled"), State{Enabled: true, PID: 7, Restarts: 2, Detail: "inactive (dead)"}, ""},
		{"disabled-and-stopped", unit("inactive", "dead", "disabled"), State{PID: 7, Restarts: 2, Detail: "inactive (dead)"}, ""},
		{"masked", unit("inactive", "dead", "masked"), State{PID: 7, Restarts: 2, Detail: "inactive (dead)"}, ""},
		{"started-by-another-unit", unit("inactive", "dead", "static"), State{Enabled: true, PID: 7, Restarts: 2, Detail: "inactive (dead)"}, ""},
		{"between-two-crashes", unit("activating", "auto-restart", "enabled"), State{Running: true, Failed: true, Enabled: true, PID: 7, Restarts: 2, Detail: "activating (auto-restart)"}, ""},
		{"gave-up", strings.Replace(unit("failed", "failed", "enabled"), "success", "core-dump\nExecMainStatus=11", 1), State{Failed: true, Enabled: true, PID: 7, Restarts: 2, Detail: "failed (failed), core-dump, exit status 11"}, ""},
		{"unknown-unit", "LoadState=not-found\nActiveState=inactive\nSubState=dead\n", State{}, "not-found"},
		{"no-answer", "", State{}, "did not tell"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := parseUnit("acme.service", r.output)
			if got != r.want || (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, r.want, r.err)
			}
		})
	}
}

func TestSystemdUnitName(t *testing.T) {
	for _, good := range []string{"acme", "acme.service", "acme@1.service", `dev-sda\x2d1.device`, "A_b:c.service", strings.Repeat("a", 255)} {
		if _, err := Systemd(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "--root=/tmp", "-H", "acme service", "a/b", "acme;id", "acme\n", strings.Repeat("a", 256)} {
		if _, err := Systemd(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSystemdWithoutSystemctl(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s, err := Systemd("acme.service")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(t.Context()); err == nil || !strings.Contains(err.Error(), "acme.service") {
		t.Errorf("state: %v", err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("restart without systemctl succeeded")
	}
}
