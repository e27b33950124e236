package lookcmd

import (
	"strings"
	"testing"

	"shoal/internal/fault"
)

func TestEveryCodeHasAPageAndEveryPageACode(t *testing.T) {
	for _, row := range fault.Table {
		text, err := explanation(row.Code)
		if err != nil {
			t.Errorf("code %q has no page: %v", row.Code, err)
		} else if len(text) < 60 {
			t.Errorf("the page of %q says next to nothing: %q", row.Code, text)
		}
		for line := range strings.SplitSeq(text, "\n") {
			if len(line) > 100 {
				t.Errorf("the page of %q has a line of %d characters: %q", row.Code, len(line), line)
			}
		}
	}
	entries, err := explanations.ReadDir("explain")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		code, _ := strings.CutSuffix(e.Name(), ".md")
		if _, ok := fault.Lookup(fault.Code(code)); !ok {
			t.Errorf("page %q is of no code", e.Name())
		}
	}
}
