//go:build !windows

package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeLaunchctl is a launchctl in PATH that notes what it is asked, and prints.
func fakeLaunchctl(t *testing.T, output string, exit string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >>" + dir + "/calls\ncat " + dir + "/output\nexit " + exit + "\n"
	for name, content := range map[string]string{"launchctl": script, "output": output} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

// printed is how launchctl describes a job, with what else may follow.
func printed(lines ...string) string {
	return "system/lan.acme = {\n\tactive count = 1\n\tpath = /Library/LaunchDaemons/lan.acme.plist\n\t" + strings.Join(lines, "\n\t") +
		"\n\tendpoints = {\n\t\t\"x\" = {\n\t\t\tstate = active\n\t\t\tpid = 99\n\t\t}\n\t}\n}\n"
}

func TestLaunchdStates(t *testing.T) {
	rows := map[string]struct {
		output, exit string
		want         State
		err          string
	}{
		"running": {printed("state = running", "runs = 2", "pid = 123", "last exit code = (never exited)"), "0",
			State{Running: true, Enabled: true, PID: 123, Restarts: 2, Detail: "running"}, ""},
		"running-after-a-crash": {printed("state = running", "runs = 3", "pid = 124", "last exit code = 1"), "0",
			State{Running: true, Enabled: true, PID: 124, Restarts: 3, Detail: "running"}, ""},
		"crashed": {printed("state = spawn scheduled", "runs = 9", "last exit code = 78: EX_CONFIG"), "0",
			State{Failed: true, Enabled: true, Restarts: 9, Detail: "spawn scheduled, exit status 78"}, ""},
		"stopped": {printed("state = not running", "runs = 1", "last exit code = 0"), "0",
			State{Enabled: true, Restarts: 1, Detail: "not running"}, ""},
		"not-loaded": {"Could not find service \"lan.acme\" in domain for system\n", "113", State{}, "Could not find service"},
		"nonsense":   {"hello\n", "0", State{}, "did not tell"},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			fakeLaunchctl(t, r.output, r.exit)
			s, err := Launchd("lan.acme")
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.State(t.Context())
			if d := cmp.Diff(r.want, got); d != "" || (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestLaunchdIsTold(t *testing.T) {
	calls := fakeLaunchctl(t, "", "0")
	s, err := Launchd("lan.acme")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Restart(t.Context()), s.Start(t.Context()), s.Stop(t.Context())} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{"kickstart -k system/lan.acme", "kickstart system/lan.acme", "kill SIGTERM system/lan.acme"}
	if d := cmp.Diff(want, calls()); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "-k", "a/b", "a b", "a\n", strings.Repeat("a", 256)} {
		if _, err := Launchd(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
