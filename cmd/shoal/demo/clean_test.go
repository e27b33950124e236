package demo

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCleanRemovesWhatKilledDemosLeft(t *testing.T) {
	base := t.TempDir()
	running, err := newWorkDir(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.remove() })
	dead, err := newWorkDir(base)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(base, "somebody-elses")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	// A leftover that is the demo's, and one whose process id has become another's.
	leftover := func(args string) (*exec.Cmd, io.WriteCloser) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-c", "read line; exit 7; : "+args)
		stdin, err := cmd.StdinPipe() // it waits on this until killed
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := dead.note(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		return cmd, stdin
	}
	ours, _ := leftover(filepath.Join(dead.path, "m1", "acme"))
	stranger, stdin := leftover("/usr/bin/editor")
	if err := dead.lock.Unlock(); err != nil { // as when its process dies
		t.Fatal(err)
	}

	removed, err := Clean(t.Context(), base)
	if err != nil || len(removed) != 1 || removed[0] != dead.path {
		t.Errorf("Clean = %v, %v; want only %s", removed, err, dead.path)
	}
	if err := ours.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the leftover process ended with %v, want killed", err)
	}
	stdin.Close()
	if stranger.Wait(); stranger.ProcessState.ExitCode() != 7 {
		t.Errorf("a process that is not the demo's ended with %v, want exit status 7 of its own", stranger.ProcessState)
	}
	for _, dir := range []string{running.path, other} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s should stay: %v", dir, err)
		}
	}
	if _, err := os.Stat(dead.path); err == nil {
		t.Errorf("%s is still there", dead.path)
	}
	again, err := Clean(t.Context(), base)
	if err != nil || len(again) != 0 {
		t.Errorf("a second Clean = %v, %v; want nothing to do", again, err)
	}
}
