package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/manifest/strictjson"
)

// block is a fenced part of a document: what stands after the fence, and inside.
type block struct{ info, text string }

func blocks(t *testing.T, path string) []block {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []block
	for _, m := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		found = append(found, block{m[1], m[2]})
	}
	return found
}

// The examples of the protocol are golden vectors, byte for byte, and those are read by
// manifest's own tests.
func TestProtocolExamples(t *testing.T) {
	good := filepath.Join("..", "..", "manifest", "testdata", "good")
	examples, links := 0, 0
	for _, b := range blocks(t, "../../docs/protocol.md") {
		if b.info == "link" {
			links++
			l, err := link.Parse(strings.TrimSpace(b.text))
			if err != nil || l.MinRoot != 2 || len(l.Peers) != 1 {
				t.Errorf("the join link: %+v, %v", l, err)
			}
		}
		kind, rest, _ := strings.Cut(b.info, " ")
		if kind != "json" {
			continue
		}
		examples++
		name, part, _ := strings.Cut(rest, " ")
		want, err := os.ReadFile(filepath.Join(good, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		if err := strictjson.Check([]byte(b.text)); err != nil {
			t.Errorf("%s is not strict JSON: %v", b.info, err)
		}
		if part == "payload" {
			var env struct {
				Type manifest.Type `json:"type"`
			}
			if err := json.Unmarshal(want, &env); err != nil {
				t.Fatal(err)
			}
			e, err := manifest.ParseEnvelope(want, env.Type)
			if err != nil {
				t.Fatal(err)
			}
			want = e.Payload
		}
		if b.text != string(want) {
			t.Errorf("%s is not what is in testdata", b.info)
		}
	}
	if examples != 5 || links != 1 {
		t.Errorf("found %d examples and %d links", examples, links)
	}
}

// What follows from a fleet key is pinned by the room that works it out.
func TestProtocolFleetKey(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("..", "..", "swarm", "fleet", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	numbers, _, _ := strings.Cut(read("vector.txt"), "-----BEGIN")
	_, key, _ := strings.Cut(read("fleet.key"), "\n") // after its comment
	found := 0
	for _, b := range blocks(t, "../../docs/protocol.md") {
		if b.info != "fleet" {
			continue
		}
		if found++; b.text != key+numbers {
			t.Errorf("the protocol has\n%s\nwant\n%s", b.text, key+numbers)
		}
	}
	if found != 1 {
		t.Errorf("found %d examples of a fleet key", found)
	}
}

// The vectors can be checked without any of this code, as the protocol says.
func TestProtocolRecipe(t *testing.T) {
	for _, tool := range []string{"sh", "jq", "base64", "sha256sum", "fold", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the recipe needs %s, which is not here", tool)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../manifest/testdata/good")); err != nil {
		t.Fatal(err)
	}
	var recipe, hashes string
	for _, b := range blocks(t, "../../docs/protocol.md") {
		switch b.info {
		case "sh":
			recipe += b.text
		case "hashes":
			hashes += b.text
		}
	}
	cmd := exec.Command("sh", "-e", "-u", "-c", recipe)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || recipe == "" || string(out) != hashes {
		t.Errorf("%v; it prints:\n%s\nthe document has:\n%s", err, out, hashes)
	}
}

// The answer that conformance.md shows has the members that are promised, and its table
// the exit statuses that are.
func TestConformanceSaysWhatIs(t *testing.T) {
	shown := 0
	for _, b := range blocks(t, "../../docs/conformance.md") {
		if b.info != "json" {
			continue
		}
		shown++
		var members map[string]json.RawMessage
		var a answer
		if err := json.Unmarshal([]byte(b.text), &members); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(b.text), &a); err != nil {
			t.Fatal(err)
		}
		for _, name := range alwaysThere {
			if members[name] == nil {
				t.Errorf("the answer that is shown has no %q", name)
			}
		}
		if len(a.Events) != 1 || string(members["exit"]) != fmt.Sprint(a.Code.Exit()) {
			t.Errorf("the answer that is shown: %s", b.text)
		}
	}
	if shown != 1 {
		t.Errorf("%d answers are shown", shown)
	}

	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Exit statuses")
	table, _, _ = strings.Cut(table, "\n## ")
	row := regexp.MustCompile(`(?m)^\| ([0-9]+) \| (.*) \|$`)
	code := regexp.MustCompile("`([a-z_]+)`")
	told := 0
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		for _, c := range code.FindAllStringSubmatch(m[2], -1) {
			r, ok := fault.Lookup(fault.Code(c[1]))
			if !ok && (c[1] == "check" || c[1] == "update" || c[1] == "http" || c[1] == "https") {
				continue
			}
			told++
			if !ok || fmt.Sprint(r.Exit) != m[1] && !(r.Code == fault.NoArtifact && m[1] == "0") {
				t.Errorf("exit %s for %s: the program has %d", m[1], c[1], r.Exit)
			}
		}
	}
	if told < 35 {
		t.Errorf("only %d codes were found in the table", told)
	}
}
