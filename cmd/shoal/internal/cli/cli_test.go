package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"shoal/internal/fault"
)

// newTestCLI returns an invocation without a terminal and what it writes.
func newTestCLI(t *testing.T) (c *CLI, out, errOut *bytes.Buffer) {
	t.Helper()
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	c = New(Streams{In: strings.NewReader(""), Out: out, Err: errOut})
	c.Getenv = func(string) string { return "" }
	return c, out, errOut
}

func TestErrorsSayWhatIsWrongAndWhatToDo(t *testing.T) {
	err := fmt.Errorf("updating: %w", fault.New(fault.Threshold, "not signed by enough keys").
		Line("acme/stable 2.4.1 has 1 of 2 signatures").Do("wait for the second").Fact("have", 1))
	c, out, errOut := newTestCLI(t)
	if exit := c.fail(err); exit != 2 {
		t.Errorf("exit status %d, want 2", exit)
	}
	want := `error: updating: not signed by enough keys                                      [threshold]
  acme/stable 2.4.1 has 1 of 2 signatures
  Next: wait for the second
  More: shoal explain threshold                                                 exit 2
`
	if errOut.String() != want || out.Len() != 0 {
		t.Errorf("printed\n%swant\n%s(and on standard output %q)", errOut, want, out)
	}
	c, out, errOut = newTestCLI(t)
	c.flags.output = formatJSONL
	c.fail(err)
	wantJSON := `{"schema":"shoal.error/v1","code":"threshold","message":"updating: not signed by enough keys",` +
		`"detail":{"have":1},"lines":["acme/stable 2.4.1 has 1 of 2 signatures"],"next":["wait for the second"],"exit":2}` + "\n"
	if out.String() != wantJSON || errOut.Len() != 0 {
		t.Errorf("printed %s\nwant %s", out, wantJSON)
	}
}

// What comes from a hostile document must not drive the terminal it is shown on.
func TestOutsideTextCannotDriveTheTerminal(t *testing.T) {
	c, _, errOut := newTestCLI(t)
	c.fail(fault.New(fault.IO, "reading \x1b]0;owned\x07\x1b[2J").Line("\u202egnp.exe\r"))
	c.Say("got %s", "\x1b[31m")
	for _, bad := range []string{"\x1b", "\x07", "\r", "\u202e"} {
		if strings.Contains(errOut.String(), bad) {
			t.Errorf("%q reached the terminal: %q", bad, errOut)
		}
	}
	if !strings.Contains(errOut.String(), `\u001b]0;owned`) {
		t.Errorf("%q does not show what was there", errOut)
	}
}

func TestExitStatus(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	rows := []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"fine", t.Context(), nil, 0},
		{"no-code-is-one", t.Context(), errors.New("disk on fire"), 1},
		{"code-decides", t.Context(), fault.New(fault.Rollback, "older"), 3},
		{"status-without-words", t.Context(), ExitStatus(10), 10},
		{"restart-me", t.Context(), fmt.Errorf("wrapped: %w", ExitStatus(75)), 75},
		{"interrupt", cancelled, context.Canceled, 130},
		{"whatever-fails-after-an-interrupt", cancelled, errors.New("connection reset"), 130},
		{"clean-end-after-an-interrupt", cancelled, nil, 0},
		{"a-code-that-is-no-failure-still-fails", t.Context(), fault.New(fault.Same, "already so"), 1},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c, out, errOut := newTestCLI(t)
			root := &cobra.Command{Use: "shoal"}
			root.AddCommand(&cobra.Command{Use: "probe", RunE: func(*cobra.Command, []string) error { return r.err }})
			c.Frame(root)
			if got := c.Execute(r.ctx, root, []string{"probe"}); got != r.want {
				t.Errorf("exit status %d, want %d (%s)", got, r.want, errOut)
			}
			var status ExitStatus
			if silent := r.err == nil || errors.As(r.err, &status); silent && (out.Len() > 0 || errOut.Len() > 0) {
				t.Errorf("said %q %q, want silence", out, errOut)
			}
		})
	}
}

func TestQuestionsNeedATerminalOrAFlag(t *testing.T) {
	c, _, _ := newTestCLI(t)
	_, err := c.Confirm("really?")
	if fault.CodeOf(err) != fault.Usage || !strings.Contains(newFailure(err).Next[0], "--yes") {
		t.Errorf("confirm without a terminal: %v, want a usage error that names --yes", err)
	}
	c.flags.yes = true
	if yes, err := c.Confirm("really?"); !yes || err != nil {
		t.Errorf("confirm with --yes = %v, %v", yes, err)
	}
}

func TestColoursNeedATerminalThatWantsThem(t *testing.T) {
	rows := []struct {
		name        string
		tty, flag   bool
		env, envVal string
		want        bool
	}{
		{"terminal", true, false, "", "", true},
		{"no-terminal", false, false, "", "", false},
		{"no-color-flag", true, true, "", "", false},
		{"no-color-variable", true, false, "NO_COLOR", "1", false},
		{"dumb-terminal", true, false, "TERM", "dumb", false},
	}
	for _, r := range rows {
		c, _, _ := newTestCLI(t)
		c.flags.noColor = r.flag
		c.Getenv = func(k string) string {
			if k == r.env {
				return r.envVal
			}
			return ""
		}
		if got := c.Fancy(r.tty); got != r.want {
			t.Errorf("%s: fancy = %v, want %v", r.name, got, r.want)
		}
	}
}
