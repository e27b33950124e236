package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	maxAnswer    = maxSignature // what a program may write to standard output
	maxComplaint = 1 << 10      // how much of its standard error is kept

	// pipeGrace is how long children that a program left behind may hold its pipes.
	pipeGrace = 2 * time.Second
)

// openCommand makes a signer of "PATH.pub=PROGRAM ARGS".
func openCommand(spec string) (*signer, error) {
	file, line, _ := strings.Cut(spec, "=")
	argv := strings.Fields(line)
	if file == "" || len(argv) == 0 {
		return nil, fmt.Errorf("key reference %q is not of the form cmd:PATH.pub=PROGRAM ARGS", "cmd:"+spec)
	}
	pub, err := ReadPublic(file)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("finding the signing program: %w", err)
	}
	return &signer{pub: pub, raw: func(ctx context.Context, toBeSigned []byte) (ssh.Signature, error) {
		answer, err := runSigner(ctx, program, argv[1:], toBeSigned)
		if err != nil {
			return ssh.Signature{}, fmt.Errorf("running %q: %w", program, err)
		}
		return parseRaw(pub, answer)
	}}, nil
}

func runSigner(ctx context.Context, program string, args []string, toBeSigned []byte) ([]byte, error) {
	answer := &head{max: maxAnswer}
	complaint := &head{max: maxComplaint}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(toBeSigned)
	cmd.Stdout = answer
	cmd.Stderr = complaint
	cmd.WaitDelay = pipeGrace
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if said := bytes.TrimSpace(complaint.kept); len(said) > 0 {
			return nil, fmt.Errorf("%w: it said %q", err, said)
		}
		return nil, err
	}
	if answer.cut {
		return nil, errors.New("its answer is too long")
	}
	return answer.kept, nil
}

// head keeps the first max bytes written to it and takes the rest, so that a program
// that says too much ends as it would have.
type head struct {
	max  int
	kept []byte
	cut  bool
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.max-len(h.kept))
	h.kept = append(h.kept, p[:n]...)
	h.cut = h.cut || n < len(p)
	return len(p), nil
}
