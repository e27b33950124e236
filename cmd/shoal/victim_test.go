package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/agenttest"
	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

const asItWas = "the file as it was"

var (
	oldProgram = agenttest.Large("41", 0)
	program    = agenttest.Large("42", 0)
)

// victim is a checker of acme/stable that holds 42, and the publisher whose tree an
// attack changes. It is driven as an outsider drives it: by command lines, and judged
// by exit statuses, standard output and files.
type victim struct {
	*agenttest.Publisher
	t       *testing.T
	dir     string // the checker's state
	out     string // what update writes
	source  string // the tree, as --source has it
	channel manifest.Channel
	arch    string
	old     []byte          // the envelope of 41
	held    []byte          // the envelope of 42
	hash    manifest.Digest // of the payload of 42
}

// newVictim also publishes a beacon, which is fresh for a day.
func newVictim(t *testing.T) *victim {
	t.Helper()
	v := newStranger(t)
	v.old = v.Draft(mt.Stable, 41, oldProgram)
	v.held = v.Release(mt.Stable, 42, program)
	v.hash = payloadHash(t, v.held)
	v.Put(tree.Beacon(mt.Stable), v.Beacon(v.held))
	v.init()
	v.check().want(t, expected{code: fault.OK, root: 1, order: "1.42", hash: v.hash, fresh: manifest.FreshCurrent, changed: true})
	return v
}

// newStranger has published nothing but its root, and has no state.
func newStranger(t *testing.T) *victim {
	p := agenttest.New(t)
	return &victim{
		Publisher: p, t: t, dir: filepath.Join(t.TempDir(), "state"), out: filepath.Join(t.TempDir(), "acme"),
		source: p.Dir, channel: mt.Stable, arch: manifest.Host().Arch,
	}
}

func payloadHash(t *testing.T, env []byte) manifest.Digest {
	t.Helper()
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	return e.PayloadHash()
}

// shoal runs a command line.
func shoal(args ...string) (status int, stdout, stderr string) {
	return shoalIn(context.Background(), args...)
}

func shoalIn(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, talk bytes.Buffer
	status = run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &talk})
	return status, out.String(), talk.String()
}

func (v *victim) init(args ...string) {
	v.t.Helper()
	root := filepath.Join(v.Dir, filepath.FromSlash(tree.Root(1)))
	args = append([]string{"agent", "init", "--state", v.dir, "--root", root, "--pin", v.Pin().Prefixed()}, args...)
	if status, _, talk := shoal(args...); status != 0 {
		v.t.Fatalf("init: exit %d: %s", status, talk)
	}
}

// args is the command line of a check or an update.
func (v *victim) args(verb string, more ...string) []string {
	return append([]string{"agent", verb, "--once", "--state", v.dir, "--source", v.source,
		"--app", v.channel.App, "--channel", v.channel.Name, "--platform", manifest.Host().OS + "/" + v.arch,
		"--now", v.Now.UTC().Format(time.RFC3339), "-o", "json"}, more...)
}

func (v *victim) check(more ...string) *answer {
	v.t.Helper()
	return ask(v.t, 0, v.args("check", more...)...)
}

func (v *victim) update(more ...string) *answer {
	v.t.Helper()
	return ask(v.t, fault.NoArtifact.Exit(), v.args("update", append(more, "--out", v.out)...)...)
}

// answer is what every check prints, whatever comes of it.
type answer struct {
	Schema         string             `json:"schema"`
	Code           fault.Code         `json:"code"`
	RootVersion    int64              `json:"root_version"`
	Epoch          int64              `json:"epoch"`
	Sequence       int64              `json:"sequence"`
	ManifestSHA256 string             `json:"manifest_sha256"`
	Freshness      manifest.Freshness `json:"freshness"`
	Changed        bool               `json:"changed"`
	Events         []manifest.Event   `json:"events"`

	Message string         `json:"message"`
	Lines   []string       `json:"lines"`
	Detail  map[string]any `json:"detail"`
	Next    []string       `json:"next"`
}

var alwaysThere = []string{"schema", "code", "root_version", "epoch", "sequence", "manifest_sha256", "freshness", "changed", "events"}

// ask runs a command line whose answer is one object of schema shoal.check/v1.
func ask(t *testing.T, noArtifact int, args ...string) *answer {
	t.Helper()
	return askIn(t, context.Background(), noArtifact, args...)
}

func askIn(t *testing.T, ctx context.Context, noArtifact int, args ...string) *answer {
	t.Helper()
	status, out, talk := shoalIn(ctx, args...)
	var members map[string]json.RawMessage
	dec := json.NewDecoder(strings.NewReader(out))
	if err := dec.Decode(&members); err != nil {
		t.Fatalf("standard output is no JSON object: %v\n%s\n%s", err, out, talk)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("more than one object on standard output:\n%s", out)
	}
	for _, name := range alwaysThere {
		if raw, ok := members[name]; !ok || string(raw) == "null" {
			t.Errorf("the answer has no %q:\n%s", name, out)
		}
	}
	a := new(answer)
	if err := json.Unmarshal([]byte(out), a); err != nil {
		t.Fatal(err)
	}
	want := a.Code.Exit()
	if a.Code == fault.NoArtifact {
		want = noArtifact
	}
	if _, known := fault.Lookup(a.Code); !known || a.Schema != "shoal.check/v1" || status != want {
		t.Errorf("schema %q, code %q, exit status %d; want %d\n%s", a.Schema, a.Code, status, want, talk)
	}
	return a
}

// expected is the part of an answer that has one right value.
type expected struct {
	code    fault.Code
	root    int64
	order   string
	hash    manifest.Digest // zero: none is trusted
	fresh   manifest.Freshness
	changed bool
}

func (a *answer) want(t *testing.T, e expected) {
	t.Helper()
	hash := ""
	if !e.hash.IsZero() {
		hash = e.hash.String()
	}
	got := expected{code: a.Code, root: a.RootVersion, order: manifest.Order{Epoch: a.Epoch, Sequence: a.Sequence}.String(),
		hash: e.hash, fresh: a.Freshness, changed: a.Changed}
	if got != e || a.ManifestSHA256 != hash {
		t.Errorf("answer %+v with manifest %q\nwant   %+v\n%s %q", got, a.ManifestSHA256, e, a.Message, a.Lines)
	}
}

// has reports whether there is an event with that code.
func (a *answer) has(code fault.Code) bool {
	for _, e := range a.Events {
		if e.Code == code && e.Doc != "" && e.Detail != "" {
			return true
		}
	}
	return false
}

// said is everything the answer tells a person.
func (a *answer) said() string {
	detail, _ := json.Marshal(a.Detail)
	return strings.Join(append(append([]string{a.Message}, a.Lines...), string(detail)), "\n")
}

// files is the content of every file below dir, and of nothing else: a lock is empty.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		if len(b) > 0 {
			all[filepath.ToSlash(name)] = string(b)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// unchanged fails when the state is not as it was, byte for byte; a root that was
// rightly accepted, and what records it, apart.
func unchanged(t *testing.T, before, after map[string]string, root int64) {
	t.Helper()
	for v := int64(2); v <= root; v++ {
		name := "trust/" + tree.Root(v)
		if after[name] == "" {
			t.Errorf("root %d was not stored", v)
		}
		delete(after, name)
		for _, record := range []string{"trust/state.json", "anchor.json"} {
			before[record], after[record] = withoutRoot(t, before[record]), withoutRoot(t, after[record])
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the state changed (-before +after):\n%s", diff)
	}
}

func withoutRoot(t *testing.T, text string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "root_version")
	delete(m, "root_sha256")
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// putOut makes the file that update writes what it was before.
func (v *victim) putOut(content string) {
	v.t.Helper()
	if err := os.WriteFile(v.out, []byte(content), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

// wantOut fails unless that file has the content, or is absent for none, and nothing
// was left beside it.
func (v *victim) wantOut(content string) {
	v.t.Helper()
	b, err := os.ReadFile(v.out)
	switch {
	case content == "" && !errors.Is(err, fs.ErrNotExist):
		v.t.Errorf("the file is there, with %d bytes, %v", len(b), err)
	case content != "" && (err != nil || string(b) != content):
		v.t.Errorf("the file has %d bytes, %v; want %d others", len(b), err, len(content))
	}
	entries, err := os.ReadDir(filepath.Dir(v.out))
	if err != nil || len(entries) > 1 {
		v.t.Errorf("left beside the file: %v, %v", entries, err)
	}
}
