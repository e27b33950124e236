package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxKeyFile bounds every key file, variable and stream: an ed25519 key has about 500
// bytes.
const maxKeyFile = 64 << 10

// Errors of [Open] that a caller may want to act on.
var (
	// ErrPassphraseNeeded: the key is protected and nobody could be asked.
	ErrPassphraseNeeded = errors.New("the key needs a passphrase")
	// ErrWrongPassphrase: the passphrase given does not open the key.
	ErrWrongPassphrase = errors.New("wrong passphrase")
	// ErrExposed: others can read the private key file.
	ErrExposed = errors.New("others than its owner can use the private key file")
	// ErrNoAgent: no ssh-agent answers at SSH_AUTH_SOCK.
	ErrNoAgent = errors.New("no ssh-agent")
	// ErrNotInAgent: the ssh-agent does not hold the key.
	ErrNotInAgent = errors.New("the ssh-agent does not hold the key")
)

// PassphraseFunc returns the passphrase of a key; what says which, for the person who
// is asked. No passphrase and no error means that there is nobody to ask.
type PassphraseFunc func(ctx context.Context, what string) ([]byte, error)

// Open returns the signer that ref names. It asks for a passphrase, once, when the key
// has one; ask may be nil.
//
//	file:PATH                    an OpenSSH private key that only its owner can use; a bare
//	                             PATH is the same
//	agent:SHA256:…               the key with that fingerprint in the ssh-agent
//	agent:PATH.pub               the key of that public key file in the ssh-agent
//	env:NAME                     an OpenSSH private key in a variable, unset after reading
//	stdin:                       an OpenSSH private key on standard input
//	cmd:PATH.pub=PROGRAM ARGS    a program that signs with the key of that public key file
//
// The agent is the one at the Unix socket SSH_AUTH_SOCK; FIDO2 keys sign through it.
//
// A program of cmd: signs with a key that is elsewhere, in a KMS or an HSM. It is started
// for every signature, without a shell: what follows the first "=" is split at white
// space, with no quoting. It reads the bytes to be signed from standard input until the
// end (about 110 bytes, [ToBeSigned]), writes the signature in SSH wire form to standard
// output (the string "ssh-ed25519", then the 64 bytes, each after its length in 4 bytes
// big endian) and exits with 0. What it writes to standard error is shown when it fails.
func Open(ctx context.Context, ref string, ask PassphraseFunc) (Signer, error) {
	s, err := openRef(ctx, ref, ask)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func openRef(ctx context.Context, ref string, ask PassphraseFunc) (*signer, error) {
	if strings.Contains(ref, "PRIVATE KEY") || len(ref) > maxLine {
		return nil, errors.New("a key reference like file:PATH or env:NAME is wanted, not a key itself (not repeated here)")
	}
	kind, rest, found := strings.Cut(ref, ":")
	switch {
	case ref == "":
		return nil, errors.New("empty key reference")
	case !found || len(kind) < 2 || strings.ContainsAny(kind, `/\.`): // one letter: a Windows drive
		return openFile(ctx, ref, ask)
	case kind == "file":
		return openFile(ctx, rest, ask)
	case kind == "agent":
		return openAgent(ctx, rest)
	case kind == "env":
		return openEnv(ctx, rest, ask)
	case kind == "stdin" && rest == "":
		return openStdin(ctx, ask)
	case kind == "cmd":
		return openCommand(rest)
	}
	return nil, fmt.Errorf("key reference %q is none of file: agent: env: stdin: cmd: (a file of that name is file:PATH)", ref)
}

func openEnv(ctx context.Context, name string, ask PassphraseFunc) (*signer, error) {
	value, ok := os.LookupEnv(name)
	if !ok || value == "" {
		return nil, fmt.Errorf("variable %q is not set, or its key was taken already", name)
	}
	// Programs started from here on, and whoever reads their environment, get no key.
	if err := os.Unsetenv(name); err != nil {
		return nil, fmt.Errorf("unsetting %q: %w", name, err)
	}
	if len(value) > maxKeyFile {
		return nil, fmt.Errorf("variable %q is longer than %d bytes", name, maxKeyFile)
	}
	return parsePrivate(ctx, []byte(value), fmt.Sprintf("the key in variable %q", name), ask)
}

func openStdin(ctx context.Context, ask PassphraseFunc) (*signer, error) {
	b, err := readLimited(os.Stdin)
	if err != nil {
		return nil, fmt.Errorf("reading the key on standard input: %w", err)
	}
	return parsePrivate(ctx, b, "the key on standard input", ask)
}

func readLimited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("longer than %d bytes", maxKeyFile)
	}
	return b, err
}
