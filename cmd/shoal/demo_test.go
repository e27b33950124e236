package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/cmd/shoal/demo"
)

// The demo is every command at work together: it must come out exactly as it says.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a publisher and three agents; not with -short")
	}
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "shoal", "demo", "--agents", "3", "--size", "1MB", "--dir", tmp, "-o", "json")
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
	if r.Schema != "shoal.demo/v1" || r.Agents != 3 || r.Updated != 3 || len(r.Problems) != 0 {
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
	if r.ArtifactBytes < 1e6 || r.Seconds <= 0 || r.OriginBytes < r.ArtifactBytes || r.OriginBytes+r.PeerBytes < 3*r.ArtifactBytes {
		t.Errorf("measured %+v, which cannot be", r.Result)
	}
	if got := float64(r.OriginBytes) / float64(r.ArtifactBytes); got < r.Copies-0.01 || got > r.Copies+0.01 {
		t.Errorf("%v copies, computed %v", r.Copies, got)
	}
	for _, line := range []string{"3 of 3 on 2.0.0", "one stolen key", "offered again", "crashes on start"} {
		if !strings.Contains(talk.String(), line) {
			t.Errorf("it does not tell of %q:\n%s", line, &talk)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	noProcesses(t, filepath.Join(tmp, "shoal-demo-"))
}

// noProcesses fails when a process is left whose command line has word in it.
func noProcesses(t *testing.T, word string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(word)) {
			t.Errorf("left running: %s %q", name, b)
		}
	}
}
