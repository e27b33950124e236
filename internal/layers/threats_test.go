package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// attacks is how many there are in the threat model.
const attacks = 44

// TestThreatModelNamesTests checks that every attack has a row, and that every test
// which the table names is there: a renamed test must not leave a promise behind.
func TestThreatModelNamesTests(t *testing.T) {
	base := root(t)
	text, err := os.ReadFile(filepath.Join(base, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "## Attacks and their tests")
	if !ok {
		t.Fatal("the threat model has no table of attacks")
	}
	rows := map[string]string{}
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, " | ")
		if id := strings.TrimPrefix(cells[0], "| "); len(cells) == 4 && regexp.MustCompile(`^T[0-9]+[a-z]?$`).MatchString(id) {
			rows[id] = cells[3]
		}
	}
	for n := 1; n <= attacks; n++ {
		id := fmt.Sprintf("T%d", n)
		if rows[id] == "" && (rows[id+"a"] == "" || rows[id+"b"] == "") {
			t.Errorf("%s has no row", id)
		}
	}
	tests := testsOf{base: base, known: map[string]*testFiles{}}
	quoted := regexp.MustCompile("`([^`]+)`")
	for id, cell := range rows {
		names := quoted.FindAllStringSubmatch(cell, -1)
		if len(names) == 0 && !strings.Contains(cell, "comes with") {
			t.Errorf("%s has neither a test nor a word on what it comes with", id)
		}
		for _, name := range names {
			if err := tests.find(name[1]); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
}

// testsOf reads packages' test files once.
type testsOf struct {
	base  string
	known map[string]*testFiles
}

type testFiles struct {
	functions map[string]bool
	texts     []string
}

// find looks for "package.TestName" or "package.TestName/subtest", where the subtest may
// be the beginning of several.
func (o testsOf) find(name string) error {
	pkg, rest, _ := strings.Cut(name, ".Test")
	function, sub, _ := strings.Cut("Test"+rest, "/")
	files, err := o.read(pkg)
	if err != nil {
		return err
	}
	if !files.functions[function] {
		return fmt.Errorf("%s has no %s", pkg, function)
	}
	if sub == "" {
		return nil
	}
	if function == "TestScripts" {
		_, err := os.Stat(filepath.Join(o.base, pkg, "testdata", "script", sub+".txtar"))
		return err
	}
	for _, text := range files.texts {
		if text == sub || strings.HasSuffix(sub, "-") && strings.HasPrefix(text, sub) {
			return nil
		}
	}
	return fmt.Errorf("%s: %s has no row %q", pkg, function, sub)
}

func (o testsOf) read(pkg string) (*testFiles, error) {
	if f := o.known[pkg]; f != nil {
		return f, nil
	}
	names, err := filepath.Glob(filepath.Join(o.base, filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there are no tests in %q", pkg)
	}
	f := &testFiles{functions: map[string]bool{}}
	for _, name := range names {
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				f.functions[n.Name.Name] = true
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					f.texts = append(f.texts, text)
				}
			}
			return true
		})
	}
	o.known[pkg] = f
	return f, nil
}
