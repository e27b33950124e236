package hook

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// run runs a program with that input. Its error ends with what the program said.
func run(cmd *exec.Cmd, input []byte) error {
	var said tail
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended well, and has left something running that holds its standard error
	}
	if words := said.String(); err != nil && words != "" {
		err = fmt.Errorf("%w: it said %q", err, words)
	}
	return err
}

// tail keeps the last maxSaid bytes of what is written to it.
type tail struct {
	b   []byte
	cut bool // there was more
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-maxSaid):]...)
	if over := len(t.b) - maxSaid; over > 0 || len(p) > maxSaid {
		t.b, t.cut = append(t.b[:0], t.b[max(0, over):]...), true
	}
	return len(p), nil
}

// String is valid UTF-8, without the space around it.
func (t *tail) String() string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(t.b), "\uFFFD"))
	if t.cut {
		s = "... " + s
	}
	return s
}
