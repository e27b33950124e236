package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestCodeOf(t *testing.T) {
	cause := New(Rollback, "sequence 41 is older than 42")
	rows := []struct {
		name string
		err  error
		want Code
	}{
		{"nil-is-ok", nil, OK},
		{"wrapped-error-keeps-its-code", fmt.Errorf("checking: %w", cause), Rollback},
		{"outermost-code-wins", &Error{Code: ApplyFailed, Err: cause}, ApplyFailed},
		{"bare-code-is-an-error", fmt.Errorf("x: %w", Held), Held},
		{"unknown-error-is-io", fs.ErrNotExist, IO},
		{"cancelled-context-is-interrupted", fmt.Errorf("x: %w", context.Canceled), Interrupted},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if got := CodeOf(r.err); got != r.want {
				t.Errorf("CodeOf = %q, want %q", got, r.want)
			}
		})
	}
}

func TestErrorIs(t *testing.T) {
	err := fmt.Errorf("a: %w", New(NoSpace, "staging: %w", fs.ErrPermission))
	if !errors.Is(err, NoSpace) || errors.Is(err, Permission) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("errors.Is does not see the code and the cause of %v", err)
	}
}

func TestTableHasEachCodeOnce(t *testing.T) {
	seen := map[Code]bool{}
	for _, r := range Table {
		if seen[r.Code] {
			t.Errorf("%q is in the table twice", r.Code)
		}
		seen[r.Code] = true
		if r.Meaning == "" {
			t.Errorf("%q has no meaning", r.Code)
		}
	}
}
