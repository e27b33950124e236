package keys_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"shoal/keys"
)

// The test binary is also the program behind cmd:, told by this variable to be one.
const actAsSigner = "SHOAL_TEST_SIGNER"

func TestMain(m *testing.M) {
	if os.Getenv(actAsSigner) != "" {
		os.Exit(signingProgram(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func signingProgram(args []string) int {
	private := keystestPrivate()
	answer := func(b []byte) int {
		os.Stdout.Write(b)
		return 0
	}
	switch strings.Join(args, " ") {
	case "exit-0":
		return 0
	case "complain":
		fmt.Fprintln(os.Stderr, "the HSM is locked")
		return 3
	case "flood":
		return answer(make([]byte, 1<<20))
	case "flood-stderr":
		os.Stderr.Write(bytes.Repeat([]byte("x"), 1<<20))
		return 3
	case "hang":
		io.Copy(io.Discard, os.Stdin)
		fmt.Fprintln(os.Stderr, "waiting")
		if f, err := os.OpenFile(os.Getenv("SHOAL_TEST_FIFO"), os.O_WRONLY, 0); err == nil {
			f.Close() // tells the test that it got here
		}
		select {}
	}
	toBeSigned, err := io.ReadAll(io.LimitReader(os.Stdin, 4<<10))
	if err != nil {
		return 1
	}
	good := wireKey(plain, ed25519.Sign(private, toBeSigned))
	switch strings.Join(args, " ") {
	case "sign --slot 9":
		return answer(good)
	case "then-fail":
		answer(good)
		return 1
	case "raw":
		return answer(ed25519.Sign(private, toBeSigned))
	case "line-end":
		return answer(append(good, '\n'))
	case "other-key":
		return answer(wireKey(plain, ed25519.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), toBeSigned)))
	case "sshsig":
		return answer(append([]byte("SSHSIG"), ssh.Marshal(parts{Version: 1})...))
	}
	return 64
}

// commandRef is a cmd: reference to the test binary.
func commandRef(t *testing.T, args string) (string, keys.PublicKey) {
	t.Helper()
	t.Setenv(actAsSigner, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.FromCrypto(keystestPrivate(), "in the hsm")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hsm.pub")
	if err := keys.WritePublic(path, s.Public()); err != nil {
		t.Fatal(err)
	}
	return "cmd:" + path + "=" + program + " " + args, s.Public()
}

func TestCommand(t *testing.T) {
	ref, pub := commandRef(t, "sign  --slot 9")
	s := mustOpen(t, ref, nil)
	checkSigner(t, s, pub)
	if s.Public() != pub {
		t.Errorf("public key %s, want %s", s.Public(), pub)
	}
}

func TestCommandThatFails(t *testing.T) {
	for _, tt := range []struct {
		args, want string
	}{
		{"exit-0", "wire form"},
		{"complain", "the HSM is locked"},
		{"flood", "too long"},
		{"flood-stderr", "exit status 3"},
		{"then-fail", "exit status 1"},
		{"raw", "wire form"},
		{"line-end", "not of the form"},
		{"other-key", "does not fit"},
		{"sshsig", "wire form"},
		{"misspelt", "exit status 64"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			ref, _ := commandRef(t, tt.args)
			sig, err := mustOpen(t, ref, nil).Sign(context.Background(), namespace, msg)
			if err == nil || sig != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("signature %x, error %v, want one with %q", sig, err, tt.want)
			}
			if len(err.Error()) > 4<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestCommandIsNoShell(t *testing.T) {
	ref, pub := commandRef(t, "")
	file, _, _ := strings.Cut(strings.TrimPrefix(ref, "cmd:"), "=")
	witness := filepath.Join(t.TempDir(), "witness")
	for _, program := range []string{"./nothing-here", "true;touch " + witness, "$(touch " + witness + ")"} {
		if s, err := keys.Open(context.Background(), "cmd:"+file+"="+program, nil); err == nil {
			t.Errorf("%q: %v for %s", program, s, pub.ID())
		}
	}
	if _, err := os.Stat(witness); err == nil {
		t.Error("a shell ran")
	}
}

func TestWaitingForACommandEndsWithTheContext(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "here")
	makeFIFO(t, fifo)
	t.Setenv("SHOAL_TEST_FIFO", fifo)
	ref, _ := commandRef(t, "hang")
	s := mustOpen(t, ref, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		if f, err := os.Open(fifo); err == nil { // waits for the program to get there
			f.Close()
		}
	}()
	if _, err := s.Sign(ctx, namespace, msg); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
