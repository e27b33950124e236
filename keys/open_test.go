package keys_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/keys"
)

// newKeyFile writes a fresh key and returns its path.
func newKeyFile(t *testing.T, passphrase string) (string, keys.PublicKey) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alice")
	s := generate(t, "alice")
	if err := keys.WritePrivate(path, s, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	return path, s.Public()
}

func TestOpenRefuses(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	secret := "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA"
	for _, tt := range []struct {
		name, ref, want string
	}{
		{"empty", "", "empty key reference"},
		{"unknown-kind", "kms:alias/release", "none of file: agent: env: stdin: cmd:"},
		{"misspelt-kind", "evn:KEY", "none of file:"},
		{"file-of-nothing", "file:", "opening private key"},
		{"stdin-with-a-name", "stdin:x", "none of file:"},
		{"env-of-nothing", "env:", "not set"},
		{"env-not-set", "env:SHOAL_TEST_UNSET", "not set"},
		{"agent-without-socket", "agent:SHA256:abc", "SSH_AUTH_SOCK is not set"},
		{"agent-of-no-file", "agent:none.pub", "opening public key"},
		{"cmd-without-public-key", "cmd:kms-sign", "cmd:PATH.pub=PROGRAM"},
		{"cmd-without-program", "cmd:alice.pub=", "cmd:PATH.pub=PROGRAM"},
		{"cmd-of-no-file", "cmd:none.pub=kms-sign", "opening public key"},
		{"key-for-a-reference", secret, "not a key itself"},
		{"key-for-a-variable-name", "env:" + secret, "not a key itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := keys.Open(context.Background(), tt.ref, nil)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("signer %v, error %v, want one with %q", s, err, tt.want)
			}
			if strings.Contains(err.Error(), "b3BlbnNzaC1r") {
				t.Error("the error repeats the key")
			}
		})
	}
}

func TestOpenFile(t *testing.T) {
	path, pub := newKeyFile(t, "")
	t.Chdir(filepath.Dir(path))
	for _, ref := range []string{path, "file:" + path, "alice", "file:alice", "./alice"} {
		checkSigner(t, mustOpen(t, ref, nil), pub)
	}
	// A colon is part of a path where what is before it is one.
	if err := os.Rename("alice", "a:b"); err != nil {
		t.Fatal(err)
	}
	checkSigner(t, mustOpen(t, "./a:b", nil), pub)
	checkSigner(t, mustOpen(t, "file:a:b", nil), pub)
}

func TestOpenEnvUnsetsTheVariable(t *testing.T) {
	const name = "SHOAL_TEST_KEY"
	path, pub := newKeyFile(t, "")
	protected, protectedPub := newKeyFile(t, "correct horse")

	t.Setenv(name, string(readFile(t, path)))
	checkSigner(t, mustOpen(t, "env:"+name, nil), pub)
	if v, there := os.LookupEnv(name); there {
		t.Errorf("%s is still %q", name, v)
	}

	t.Setenv(name, string(readFile(t, protected)))
	person := &answer{passphrase: "correct horse"}
	checkSigner(t, mustOpen(t, "env:"+name, person.ask), protectedPub)
	if len(person.asked) != 1 || !strings.Contains(person.asked[0], name) {
		t.Errorf("asked for %q", person.asked)
	}

	for _, tt := range []struct{ name, value, want string }{
		{"junk", "junk", "no \"OPENSSH PRIVATE KEY\" block"},
		{"no-passphrase", string(readFile(t, protected)), "needs a passphrase"},
		{"huge", strings.Repeat("x", 64<<10+1), "longer"},
	} {
		t.Setenv(name, tt.value)
		if _, err := keys.Open(context.Background(), "env:"+name, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
		if _, there := os.LookupEnv(name); there {
			t.Errorf("%s: still set after the failure", tt.name)
		}
	}
}

func TestOpenStdin(t *testing.T) {
	path, pub := newKeyFile(t, "")
	stdin := func(path string) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		was := os.Stdin
		os.Stdin = f
		t.Cleanup(func() {
			os.Stdin = was
			f.Close()
		})
	}
	stdin(path)
	checkSigner(t, mustOpen(t, "stdin:", nil), pub)

	protected, _ := newKeyFile(t, "correct horse")
	stdin(protected)
	if _, err := keys.Open(context.Background(), "stdin:", nil); !errors.Is(err, keys.ErrPassphraseNeeded) {
		t.Errorf("error %v, want ErrPassphraseNeeded", err)
	}

	endless := filepath.Join(t.TempDir(), "endless")
	writeFile(t, endless, strings.Repeat("x", 64<<10+1), 0o600)
	stdin(endless)
	if _, err := keys.Open(context.Background(), "stdin:", nil); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("error %v, want one about the length", err)
	}
}
