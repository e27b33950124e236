package layers

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "shoal"

// rooms says which rooms a room may import; sub-packages follow the row of their
// room. A new word here is a change of the architecture: say why in the commit.
var rooms = map[string][]string{
	"keys":      {},
	"manifest":  {"keys", "internal/fault"},
	"swarm":     {"internal/durable"}, // key files of a fleet must survive a crash
	"publisher": {"keys", "manifest", "swarm", "internal"},
	"agent":     {"keys", "manifest", "swarm", "internal"},
	"internal":  {"internal"},
	"cmd":       {"keys", "manifest", "swarm", "publisher", "agent", "internal", "cmd"},
}

// owners says which folder alone may import a module.
var owners = map[string]string{
	"github.com/anacrolix/":         "swarm",
	"github.com/minio/selfupdate":   "agent/apply",
	"github.com/spf13/viper":        "cmd/shoal",
	"github.com/spf13/cobra":        "cmd/shoal",
	"github.com/vbauerster/mpb":     "cmd/shoal",
	"github.com/rogpeppe/":          "cmd/shoal",
	"github.com/coreos/go-systemd/": "agent",
	"github.com/kardianos/service":  "agent/install",
}

// top is what may stand at the top of the tree; dot files apart.
var top = []string{
	"agent", "bench", "cmd", "deploy", "docs", "internal", "keys", "manifest", "publisher", "swarm", "third_party",
	"CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum",
}

// mostFiles is how many a room of the command may have, tests apart.
const mostFiles = 20

type file struct {
	path    string // slash-separated, from the root of the tree
	dir     string
	pkg     string
	doc     string
	imports []string
	test    bool
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, f := range goFiles(t) {
		room, _, _ := strings.Cut(f.dir, "/")
		allowed, ok := rooms[room]
		if !ok {
			t.Errorf("%s is in no room of the table", f.path)
			continue
		}
		for _, imp := range f.imports {
			if to, ok := strings.CutPrefix(imp, module+"/"); ok && !mayImport(room, allowed, to) {
				t.Errorf("%s imports %s: %q may import only itself and %v", f.path, imp, room, allowed)
			}
			for mod, owner := range owners {
				if strings.HasPrefix(imp, mod) && f.dir != owner && !strings.HasPrefix(f.dir, owner+"/") {
					t.Errorf("%s imports %s, which belongs to %s alone", f.path, imp, owner)
				}
			}
		}
	}
}

func mayImport(room string, allowed []string, to string) bool {
	for _, a := range append([]string{room}, allowed...) {
		if to == a || strings.HasPrefix(to, a+"/") {
			return true
		}
	}
	return false
}

// A newcomer looks for a verb in the room that its purpose names, and finds all of it there:
// so package main of the command only puts the rooms together, no room of verbs leans on
// another's, and what they share knows none of them.
func TestRoomsOfTheCommand(t *testing.T) {
	const command, inside = "cmd/shoal", "cmd/shoal/internal/"
	// verbs is the room of verbs that a folder is or is in; empty for any other.
	verbs := func(dir string) string {
		room, _, _ := strings.Cut(strings.TrimPrefix(dir, inside), "/")
		if !strings.HasPrefix(dir, inside) || !strings.HasSuffix(room, "cmd") {
			return ""
		}
		return room
	}
	found := map[string]int{} // files by folder
	for _, f := range goFiles(t) {
		if f.test || f.dir != command && !strings.HasPrefix(f.dir, inside) {
			continue
		}
		found[f.dir]++
		if f.dir == command {
			if f.path != command+"/main.go" && f.path != command+"/root.go" {
				t.Errorf("%s: a verb belongs in a room of %s", f.path, inside)
			}
			continue
		}
		for _, imp := range f.imports {
			to := verbs(strings.TrimPrefix(imp, module+"/"))
			if to != "" && to != verbs(f.dir) {
				t.Errorf("%s imports %s: what both need belongs in cli, machine, publishing or words", f.path, imp)
			}
		}
	}
	for dir, n := range found {
		if n > mostFiles {
			t.Errorf("%s has %d files, more than %d: it holds more than one concept", dir, n, mostFiles)
		}
	}
	if len(found) < 10 {
		t.Errorf("found only %d rooms", len(found))
	}
}

// Whoever audits a signing machine should not have to read an HTTP or TLS stack.
func TestSigningLinksNoNetworkStack(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./keys/...", "./manifest/...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("go list names only %d packages: %q", len(deps), deps)
	}
	for _, banned := range []string{"net/http", "crypto/tls"} {
		if slices.Contains(deps, banned) {
			t.Errorf("keys or manifest links %s", banned)
		}
	}
}

// What the torrent library brings and Shoal has no use for is kept out by the modules of
// third_party: a debug port that an environment variable opens, and the stack of WebRTC.
func TestProgramLinksNoDebugPortAndNoWebRTC(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/shoal")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "github.com/anacrolix/torrent") {
		t.Fatalf("go list names %d packages, and not the torrent library", len(deps))
	}
	for _, dep := range deps {
		switch {
		case dep == "net/http/pprof", strings.HasPrefix(dep, "github.com/pion/dtls"), strings.HasPrefix(dep, "github.com/pion/ice"), strings.HasPrefix(dep, "github.com/pion/sctp"):
			t.Errorf("the program links %s", dep)
		}
	}
}

func TestEveryPackageStatesItsPromise(t *testing.T) {
	docs := map[string]string{}
	for _, f := range goFiles(t) {
		if !f.test && len(f.doc) > len(docs[f.dir]) {
			docs[f.dir] = f.doc
		} else if !f.test && docs[f.dir] == "" {
			docs[f.dir] = f.doc
		}
	}
	for dir, doc := range docs {
		if len(doc) < 40 {
			t.Errorf("package %s has no doc that says what it promises (found %q)", dir, doc)
		}
	}
}

func TestNoPackageIsNamedForNothing(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, part := range strings.Split(f.dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helpers", "types", "models", "misc"}, part) {
				t.Errorf("%s: %q says nothing about what is in it", f.path, part)
			}
		}
	}
}

// Exits and panics belong to main: anywhere else they skip what others deferred.
func TestOnlyMainExits(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || f.pkg == "main" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root(t), f.path))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			code, _, _ := strings.Cut(line, "//")
			for _, call := range []string{"os.Exit(", "log.Fatal", "log.Panic"} {
				if strings.Contains(code, call) && !strings.Contains(line, "// exits:") {
					t.Errorf("%s:%d calls %s; only main may, or a line that says \"// exits: why\"", f.path, i+1, call)
				}
			}
			if strings.HasPrefix(strings.TrimSpace(code), "func init()") {
				t.Errorf("%s:%d has an init function", f.path, i+1)
			}
		}
	}
}

func TestTopOfTheTree(t *testing.T) {
	out, err := exec.Command("git", "-C", root(t), "ls-files").Output()
	if err != nil {
		entries, rerr := os.ReadDir(root(t)) // an archive without its history
		if rerr != nil {
			t.Fatal(rerr)
		}
		for _, e := range entries {
			out = append(out, e.Name()+"\n"...)
		}
	}
	for _, name := range strings.Fields(string(out)) {
		first, _, _ := strings.Cut(name, "/")
		if !strings.HasPrefix(first, ".") && !slices.Contains(top, first) && first != "dist" && first != "shoal" {
			t.Errorf("%q does not belong at the top of the tree", first)
		}
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func goFiles(t *testing.T) []file {
	t.Helper()
	var files []file
	base := root(t)
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			name := d.Name()
			if rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || rel == "third_party" || rel == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{path: rel, dir: path.Dir(rel), pkg: parsed.Name.Name, doc: parsed.Doc.Text(), test: strings.HasSuffix(rel, "_test.go")}
		for _, imp := range parsed.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found only %d Go files below %s", len(files), base)
	}
	return files
}
