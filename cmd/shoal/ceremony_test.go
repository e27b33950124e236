package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"shoal/cmd/shoal/internal/cli"
)

// The page tells people what to type on days when nothing may go wrong, so all of it is
// typed here, from top to bottom, as it stands.
func TestCeremonyPage(t *testing.T) {
	for _, tool := range []string{"bash", "jq", "ssh-keygen", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	page, err := os.ReadFile("../../docs/ceremony.md")
	if err != nil {
		t.Fatal(err)
	}
	script, blocks := pageScript(string(page))
	if blocks < 20 {
		t.Fatalf("only %d command blocks found", blocks)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "run.txtar"), []byte("exec bash page.sh\nstdout 'the end of the page'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			for name, value := range apart(env.WorkDir) {
				env.Setenv(name, value)
			}
			files := map[string]string{
				"page.sh":          script,
				"agent/agent.yaml": "sources: { publisher: " + filepath.Join(env.WorkDir, "store", "tree") + " }\n",
			}
			for _, v := range []string{"1.8.2", "1.8.3", "1.8.4", "nightly", "nightly-2", "stolen"} {
				files["dist/"+v+"/acme-linux-amd64"] = "#!/bin/sh\necho " + v + "\n"
			}
			for name, text := range files {
				path := filepath.Join(env.WorkDir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

var (
	failingLine = regexp.MustCompile(`^(.*\S)\s+# exit (\d+)$`)
	hiddenStep  = regexp.MustCompile(`^<!-- run: (.*) -->$`)
)

// pageScript makes one bash script of the command blocks of a page and the steps in its
// comments. A line that ends in "# exit N" must fail with that status.
func pageScript(page string) (script string, blocks int) {
	var b strings.Builder
	b.WriteString(`set -euo pipefail
real=$(command -v shoal)
# Nobody sits here: questions are answered with yes, and no passphrase is asked for.
shoal() {
  local more=()
  if [ "$1 $2" = "keys new" ] && [[ "$*" != *--no-passphrase* ]]; then more=(--no-passphrase); fi
  "$real" --yes "$@" "${more[@]}"
}
trap 'echo "docs/ceremony.md:$line failed" >&2' ERR
expect() { local want=$1 got=0; shift; "$@" || got=$?; [ $got = $want ] || { echo "docs/ceremony.md:$line: exit $got, want $want" >&2; exit 1; }; }
`)
	inside, fresh := false, true
	for i, text := range strings.Split(page, "\n") {
		switch m := hiddenStep.FindStringSubmatch(text); {
		case text == "```sh":
			inside, fresh = true, true
			blocks++
			continue
		case text == "```":
			inside = false
			continue
		case m != nil:
			fmt.Fprintf(&b, "line=%d\n%s\n", i+1, m[1])
			continue
		case !inside:
			continue
		}
		if fresh {
			fmt.Fprintf(&b, "line=%d; echo '--- line %d' >&2\n", i+1, i+1)
			fresh = false
		}
		if m := failingLine.FindStringSubmatch(text); m != nil {
			fmt.Fprintf(&b, "line=%d; expect %s %s\n", i+1, m[2], m[1])
			continue
		}
		b.WriteString(text + "\n")
	}
	b.WriteString("echo the end of the page\n")
	return b.String(), blocks
}

// Every command the page and the blocks name must exist.
func TestCeremonyPageNamesCommandsThatExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/ceremony.md")
	if err != nil {
		t.Fatal(err)
	}
	root := wholeTree()
	found := 0
	for _, m := range regexp.MustCompile("`shoal ([a-z][^`]*)`").FindAllStringSubmatch(strings.ReplaceAll(string(page), "\n", " "), -1) {
		found++
		checkCommandLine(t, root, "docs/ceremony.md", m[1])
	}
	if found < 6 {
		t.Errorf("only %d commands found", found)
	}
}

// A person at a terminal is shown what a file changes and is asked; no is the default.
func TestSignersAreAsked(t *testing.T) {
	dir := t.TempDir()
	sh := func(stdin string, args ...string) (int, string) {
		var said bytes.Buffer
		c := cli.New(cli.Streams{In: strings.NewReader(stdin), Out: io.Discard, Err: &said})
		c.Getenv = func(string) string { return "" }
		c.InTTY, c.ErrTTY = true, true
		return c.Execute(t.Context(), newRoot(c), args), said.String()
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, k := range []string{"root", "spare", "ann"} {
		if exit, text := sh("", "keys", "new", "--out", at(k), "--comment", k+"@acme", "--no-passphrase"); exit != 0 {
			t.Fatal(text)
		}
	}
	if exit, text := sh("", "trust", "draft", "--fleet", "acme", "--root", "1:"+at("root.pub")+","+at("spare.pub"),
		"--channel", "acme/stable=1:"+at("ann.pub"), "--out", at("root-1.json")); exit != 0 {
		t.Fatal(text)
	}
	for _, answer := range []string{"\n", "n\n", "", "maybe\n"} {
		exit, text := sh(answer, "trust", "sign", at("root-1.json"), "--key", at("root"))
		if exit != 130 || !strings.Contains(text, `Sign root 1 of "acme"? [y/N]`) || !strings.Contains(text, "nothing was signed") {
			t.Errorf("answer %q: exit %d, %s", answer, exit, text)
		}
		if _, err := os.Stat(at("root-1.json.root@acme.sig")); err == nil {
			t.Fatalf("answer %q signed", answer)
		}
	}
	if exit, text := sh("yes\n", "trust", "sign", at("root-1.json"), "--key", at("root")); exit != 0 || !strings.Contains(text, "ann@acme") {
		t.Errorf("exit %d, %s", exit, text)
	}
	if _, err := os.Stat(at("root-1.json.root@acme.sig")); err != nil {
		t.Error(err)
	}
	// -q silences talk, not what somebody is about to sign.
	if _, text := sh("n\n", "trust", "sign", at("root-1.json"), "--key", at("root"), "-q"); !strings.Contains(text, "root: 1 of 2 keys must sign") {
		t.Errorf("with -q nothing was shown: %s", text)
	}
}
