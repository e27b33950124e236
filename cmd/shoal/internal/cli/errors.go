package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

// codeColumn is where the code of an error stands when its message is shorter.
const codeColumn = 78

// failure is an error as programs read it.
type failure struct {
	Code    fault.Code     `json:"code"`
	Message string         `json:"message"`
	Detail  map[string]any `json:"detail"`
	Lines   []string       `json:"lines,omitempty"`
	Next    []string       `json:"next"`
	Exit    int            `json:"exit"`
}

func newFailure(err error) failure {
	code := fault.CodeOf(err)
	f := failure{Code: code, Message: err.Error(), Detail: map[string]any{}, Next: []string{}, Exit: code.Exit()}
	if f.Exit == 0 { // a code that is no failure was returned as one
		f.Exit = fault.IO.Exit()
	}
	var e *fault.Error
	if errors.As(err, &e) {
		if len(e.Facts) > 0 {
			f.Detail = e.Facts
		}
		f.Lines = e.Detail
		f.Next = append(f.Next, e.Next...)
	}
	return f
}

// fail tells of err and returns its exit status. Text goes to standard error. In the
// machine-readable forms standard output carries exactly one answer: the error, when
// no result was printed before it.
func (c *CLI) fail(err error) int {
	f := newFailure(err)
	if !c.ForPeople() {
		raw, merr := marshal(f)
		if merr == nil {
			raw, merr = render(c.flags.output, "shoal.error/v1", raw)
		}
		if merr == nil {
			w := c.Std.Out
			if c.printed {
				w = c.Std.Err
			}
			w.Write(raw)
			return f.Exit
		}
	}
	f.writeText(c.Std.Err)
	return f.Exit
}

// writeText lays the error out for a person: what is wrong and its code, what was
// expected and found, what to do next.
func (f failure) writeText(w io.Writer) {
	var b strings.Builder
	head := "error: " + words.Printable(f.Message)
	fmt.Fprintf(&b, "%s  [%s]\n", pad(head, codeColumn), f.Code)
	for _, line := range f.Lines {
		b.WriteString("  " + indent(words.Printable(line)) + "\n")
	}
	for _, line := range f.Next {
		b.WriteString("  Next: " + indent(words.Printable(line)) + "\n")
	}
	more := "More: shoal explain " + string(f.Code)
	fmt.Fprintf(&b, "  %s  exit %d\n", pad(more, codeColumn-2), f.Exit)
	io.WriteString(w, b.String())
}

func indent(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// pad fills the last line of s with spaces up to column.
func pad(s string, column int) string {
	last := s[strings.LastIndexByte(s, '\n')+1:]
	if n := column - utf8.RuneCountInString(last); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}
