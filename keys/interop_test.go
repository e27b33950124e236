package keys_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"shoal/keys"
	"shoal/keys/keystest"
)

// openssh returns the path of one of its programs. That stock tools can sign and check
// is a promise, so without them the tests fail unless told otherwise.
func openssh(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("SHOAL_TEST_NO_OPENSSH") != "" {
		t.Skipf("%s is not installed and SHOAL_TEST_NO_OPENSSH is set", program)
	}
	t.Fatalf("%v: install OpenSSH, or set SHOAL_TEST_NO_OPENSSH=1 to leave out the tests that need it", err)
	return ""
}

func run(t *testing.T, stdin []byte, program string, args ...string) string {
	t.Helper()
	out, err := runErr(t, stdin, program, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return out
}

func runErr(t *testing.T, stdin []byte, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(openssh(t, program), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var documents = []string{"shoal.root.v1", "shoal.manifest.v1", "shoal.beacon.v1"}

func TestKeysOfSSHKeygen(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		path := filepath.Join(t.TempDir(), "alice")
		run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "root-alice@acme", "-f", path)
		pub, err := keys.ReadPublic(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		if out := run(t, nil, "ssh-keygen", "-l", "-f", path+".pub"); !strings.Contains(out, string(pub.ID())) {
			t.Errorf("ID %s; ssh-keygen says %s", pub.ID(), out)
		}
		s := mustOpen(t, path, (&answer{passphrase: passphrase}).ask)
		checkSigner(t, s, pub)
		if s.Public() != pub {
			t.Errorf("public key %q, want %q", s.Public(), pub)
		}
		if passphrase == "" {
			continue
		}
		if _, err := keys.Open(context.Background(), path, nil); !errors.Is(err, keys.ErrPassphraseNeeded) {
			t.Errorf("no passphrase: %v", err)
		}
		if _, err := keys.Open(context.Background(), path, (&answer{passphrase: "x"}).ask); !errors.Is(err, keys.ErrWrongPassphrase) {
			t.Errorf("wrong passphrase: %v", err)
		}
		// More bcrypt rounds, as root keys should have.
		run(t, nil, "ssh-keygen", "-q", "-p", "-a", "20", "-P", passphrase, "-N", "other", "-f", path)
		checkSigner(t, mustOpen(t, path, (&answer{passphrase: "other"}).ask), pub)
	}
}

func TestKeysReadBySSHKeygen(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		path, pub := newKeyFile(t, passphrase)
		fields := strings.Fields(pub.String())
		out := run(t, nil, "ssh-keygen", "-y", "-P", passphrase, "-f", path)
		if !strings.HasPrefix(out, fields[0]+" "+fields[1]) {
			t.Errorf("ssh-keygen reads the key as %s, want %s", out, pub)
		}
		if passphrase != "" {
			if out, err := runErr(t, nil, "ssh-keygen", "-y", "-P", "x", "-f", path); err == nil {
				t.Errorf("ssh-keygen opens the key with another passphrase: %s", out)
			}
		}
	}
}

func TestSignaturesOfSSHKeygen(t *testing.T) {
	path, pub := newKeyFile(t, "")
	for _, ns := range documents {
		file := filepath.Join(t.TempDir(), "document.json")
		writeFile(t, file, string(msg), 0o600)
		run(t, nil, "ssh-keygen", "-Y", "sign", "-n", ns, "-f", path, file)
		sig, err := keys.ParseSignature(readFile(t, file+".sig"))
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Verify(pub, ns, msg, sig); err != nil {
			t.Errorf("%s: %v", ns, err)
		}
		// ed25519 is deterministic: both make the very same signature.
		if ours := sign(t, mustOpen(t, path, nil), ns, msg); !bytes.Equal(ours, sig) {
			t.Errorf("%s: ours is %x, theirs %x", ns, ours, sig)
		}
	}
}

func TestSignaturesCheckedBySSHKeygen(t *testing.T) {
	token := keystest.NewSK(t, "token")
	untouched := keystest.NewSK(t, "token")
	untouched.Flags = 0
	for _, tt := range []struct {
		name   string
		signer keys.Signer
		ours   bool
	}{
		{"plain", generate(t, "alice"), true},
		{"fido2", token, true},
		{"fido2-not-touched", untouched, false}, // ssh-keygen does not look
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			allowed, file := filepath.Join(dir, "allowed"), filepath.Join(dir, "sig")
			writeFile(t, allowed, "alice "+tt.signer.Public().String()+"\n", 0o600)
			for _, ns := range documents {
				sig := sign(t, tt.signer, ns, msg)
				writeFile(t, file, string(sig.Armor()), 0o600)
				verify := func(ns string, msg []byte) error {
					out, err := runErr(t, msg, "ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "alice", "-n", ns, "-s", file)
					if err == nil && !strings.Contains(out, "Good") {
						t.Errorf("ssh-keygen says %s", out)
					}
					return err
				}
				if err := verify(ns, msg); err != nil {
					t.Errorf("%s: ssh-keygen says %v", ns, err)
				}
				if err := keys.Verify(tt.signer.Public(), ns, msg, sig); (err == nil) != tt.ours {
					t.Errorf("%s: keys says %v", ns, err)
				}
				if verify("file", msg) == nil || verify(ns, []byte("other")) == nil {
					t.Errorf("%s: ssh-keygen accepts another namespace or message", ns)
				}
			}
		})
	}
}
