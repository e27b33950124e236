package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/cmd/shoal/demo"
)

// The demo is every command at work together: it must come out exactly as it says.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a publisher and four agents; not with -short")
	}
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "shoal", "demo", "--agents", "3", "--size", "1MB", "--dir", tmp, "-o", "json")
	opened := filepath.Join(t.TempDir(), "opened")
	cmd.Env = append(os.Environ(), "DISPLAY=:99", "PATH="+browserAt(t, opened)+":"+os.Getenv("PATH"))
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		t.Fatalf("shoal demo: %v\n%s\n%s", err, &talk, &out)
	}
	var r struct {
		Schema string `json:"schema"`
		demo.Result
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if r.Schema != "shoal.demo/v1" || r.Agents != 4 || r.Updated != 4 || len(r.Problems) != 0 {
		t.Errorf("%s: %d of %d updated, problems %q", r.Schema, r.Updated, r.Agents, r.Problems)
	}
	want := []demo.Refusal{
		{Case: "too-few-signatures", Code: "threshold", Exit: 2, Running: "2.0.0"},
		{Case: "old-release", Code: "rollback", Exit: 3, Running: "2.0.0"},
		{Case: "crashes-at-start", Code: "health_failed", Exit: 7, Running: "2.0.0"},
	}
	if d := cmp.Diff(want, r.Refusals); d != "" {
		t.Errorf("refusals (-want +got):\n%s", d)
	}
	// Of four machines one got a bundle, and another one all bytes from that neighbour.
	if r.ArtifactBytes < 1e6 || r.Seconds <= 0 || r.OriginBytes < r.ArtifactBytes || r.OriginBytes+r.PeerBytes < 3*r.ArtifactBytes {
		t.Errorf("measured %+v, which cannot be", r.Result)
	}
	if len(r.Machines) != 4 {
		t.Fatalf("%d machines: %+v", len(r.Machines), r.Machines)
	}
	if m := r.Machines[2]; m.OriginBytes != 0 || m.PeerBytes != 0 {
		t.Errorf("%s has no network, and got %+v", m.Name, m)
	}
	if m := r.Machines[3]; m.OriginBytes != 0 || m.PeerBytes < r.ArtifactBytes {
		t.Errorf("%s knows nobody but m3, and got %+v of %d bytes", m.Name, m, r.ArtifactBytes)
	}
	if got := float64(r.OriginBytes) / float64(r.ArtifactBytes); got < r.Copies-0.01 || got > r.Copies+0.01 {
		t.Errorf("%v copies, computed %v", r.Copies, got)
	}
	for _, line := range []string{
		"wave 1 canary\n    m1 ", "wave 2 everyone\n    m2 ", "m3  has no network", "m3  imported acme-stable-2.shoalbundle", "4 of 4 on 2.0.0",
		"one stolen key", "offered again", "crashes on start", "answered on every machine, 4 of 4",
	} {
		if !strings.Contains(talk.String(), line) {
			t.Errorf("it does not tell of %q:\n%s", line, &talk)
		}
	}
	if _, err := os.Stat(opened); err == nil {
		t.Error("it opens a browser for a program that reads")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	noProcesses(t, filepath.Join(tmp, "shoal-demo-"))
}

// browserAt returns a directory with what a desktop opens links with, which makes a file.
func browserAt(t *testing.T, opened string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\n: > "+opened+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// noProcesses fails when a process is left whose command line has word in it.
func noProcesses(t *testing.T, word string) {
	t.Helper()
	if left := processes(t, word); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// processes are the command lines with word in them, on systems with /proc.
func processes(t *testing.T, word string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(word)) {
			found = append(found, string(b))
		}
	}
	return found
}

// startDemo starts a demo and returns when its agents have begun to join.
func startDemo(t *testing.T, tmp string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command("shoal", "demo", "--agents", "2", "--size", "1MB", "--dir", tmp, "--keep")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) // nothing, once it has ended
	if !comes(func() bool {
		found, _ := filepath.Glob(filepath.Join(tmp, "*", "m2", "state"))
		return len(found) == 1
	}) {
		t.Fatalf("the demo does not get to its agents:\n%s", &out)
	}
	return cmd, &out
}

func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a publisher and two agents; not with -short")
	}
	tmp := t.TempDir()
	cmd, out := startDemo(t, tmp)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	// Where the signal came after all was shown, ending is what --keep waits for.
	if exit := cmd.ProcessState.ExitCode(); exit != 130 && !(exit == 0 && strings.Contains(out.String(), "Still running")) {
		t.Errorf("exit status %d, want 130\n%s", exit, out)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	noProcesses(t, filepath.Join(tmp, "shoal-demo-"))
}

func TestAKilledDemoLeavesOnlyItsDirectoryWhichCleanRemoves(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a publisher and two agents; not with -short")
	}
	tmp := t.TempDir()
	cmd, _ := startDemo(t, tmp)
	clean := func() string {
		out, err := exec.Command("shoal", "demo", "--clean", "--dir", tmp).CombinedOutput()
		if err != nil {
			t.Errorf("demo --clean: %v", err)
		}
		return string(out)
	}
	if got := clean(); !strings.Contains(got, "Nothing to remove.") {
		t.Errorf("the directory of a running demo was removed: %s", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if runtime.GOOS != "linux" {
		t.Log("only Linux ends the children of a killed process by itself: --clean has to")
		clean()
	}
	if !comes(func() bool { return len(processes(t, filepath.Join(tmp, "shoal-demo-"))) == 0 }) {
		t.Fatalf("left running: %q", processes(t, filepath.Join(tmp, "shoal-demo-")))
	}
	if runtime.GOOS == "linux" {
		if got := clean(); !strings.Contains(got, "Removed ") {
			t.Errorf("demo --clean says %q", got)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("after --clean there is %v, %v", left, err)
	}
}
