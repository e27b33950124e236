package keys_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"shoal/keys"
	"shoal/keys/keystest"
)

// answer is a person who types the same passphrase whatever is asked.
type answer struct {
	passphrase string
	err        error
	asked      []string
}

func (a *answer) ask(_ context.Context, what string) ([]byte, error) {
	a.asked = append(a.asked, what)
	return []byte(a.passphrase), a.err
}

func generate(t *testing.T, comment string) keys.Signer {
	t.Helper()
	s, err := keys.Generate(comment)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpen(t *testing.T, ref string, ask keys.PassphraseFunc) keys.Signer {
	t.Helper()
	s, err := keys.Open(context.Background(), ref, ask)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkSigner signs with s and verifies as want.
func checkSigner(t *testing.T, s keys.Signer, want keys.PublicKey) {
	t.Helper()
	if s.Public().ID() != want.ID() {
		t.Errorf("key %s, want %s", s.Public().ID(), want.ID())
	}
	if err := keys.Verify(want, namespace, msg, sign(t, s, namespace, msg)); err != nil {
		t.Error(err)
	}
}

func TestWritePrivateReadsBack(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		t.Run(fmt.Sprintf("passphrase-%q", passphrase), func(t *testing.T) {
			s := generate(t, "release-alice@acme")
			path := filepath.Join(t.TempDir(), "alice")
			if err := keys.WritePrivate(path, s, []byte(passphrase)); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]fs.FileMode{path: 0o600, path + ".pub": 0o644} {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().Perm(); got != want && runtime.GOOS != "windows" {
					t.Errorf("%s has mode %04o, want %04o", name, got, want)
				}
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 2 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
			person := &answer{passphrase: passphrase}
			read := mustOpen(t, path, person.ask)
			checkSigner(t, read, s.Public())
			if got := read.Public().Comment(); got != "release-alice@acme" {
				t.Errorf("comment %q", got)
			}
			if asked := len(person.asked) > 0; asked != (passphrase != "") {
				t.Errorf("asked for %q", person.asked)
			}
			if pub, err := keys.ReadPublic(path + ".pub"); err != nil || pub != s.Public() {
				t.Errorf("public key %v, %v", pub, err)
			}
		})
	}
}

func TestWrongAndMissingPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice")
	if err := keys.WritePrivate(path, generate(t, "alice"), []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("terminal is gone")
	for _, tt := range []struct {
		name string
		ask  keys.PassphraseFunc
		want error
	}{
		{"nobody-to-ask", nil, keys.ErrPassphraseNeeded},
		{"no-answer", (&answer{}).ask, keys.ErrPassphraseNeeded},
		{"wrong", (&answer{passphrase: "correct house"}).ask, keys.ErrWrongPassphrase},
		{"asking-fails", (&answer{err: gone}).ask, gone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := keys.Open(context.Background(), "file:"+path, tt.ask)
			if !errors.Is(err, tt.want) || s != nil {
				t.Errorf("signer %v, error %v, want %v", s, err, tt.want)
			}
		})
	}
}

func TestKeyFilesAreNeverOverwritten(t *testing.T) {
	s := generate(t, "new")
	other := generate(t, "old").Public()
	const old = "somebody's only copy"
	t.Run("private-key-there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "alice")
		writeFile(t, path, old, 0o600)
		if err := keys.WritePrivate(path, s, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("error %v, want ErrExist", err)
		}
		if got := string(readFile(t, path)); got != old {
			t.Errorf("now holds %q", got)
		}
		if _, err := os.Lstat(path + ".pub"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a .pub file was left: %v", err)
		}
	})
	t.Run("dangling-symlink-there", func(t *testing.T) {
		dir := t.TempDir()
		path, victim := filepath.Join(dir, "alice"), filepath.Join(dir, "victim")
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
		if err := keys.WritePrivate(path, s, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("error %v, want ErrExist", err)
		}
		if _, err := os.Lstat(victim); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the key was written through the link: %v", err)
		}
	})
	t.Run("public-key-of-another-there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "alice")
		if err := keys.WritePublic(path+".pub", other); err != nil {
			t.Fatal(err)
		}
		if err := keys.WritePrivate(path, s, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("error %v, want ErrExist", err)
		}
		if got, err := keys.ReadPublic(path + ".pub"); err != nil || got != other {
			t.Errorf("public key now %v, %v", got, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a private key was left: %v", err)
		}
	})
	t.Run("public-key-of-this-there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "alice")
		for range 2 {
			if err := keys.WritePublic(path+".pub", s.Public()); err != nil {
				t.Fatal(err)
			}
		}
		if err := keys.WritePrivate(path, s, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestWritePrivateNeedsThePrivateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice")
	remote, err := keys.FromCrypto(remoteKey{keystestPrivate()}, "kms")
	if err != nil {
		t.Fatal(err)
	}
	checkSigner(t, remote, remote.Public())
	for name, s := range map[string]keys.Signer{"kms": remote, "fido2": keystest.NewSK(t, "alice")} {
		if err := keys.WritePrivate(path, s, nil); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func writeFile(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestPrivateKeyOpenToOthersIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	path := filepath.Join(t.TempDir(), "alice")
	s := generate(t, "alice")
	if err := keys.WritePrivate(path, s, nil); err != nil {
		t.Fatal(err)
	}
	for mode, exposed := range map[fs.FileMode]bool{
		0o600: false, 0o400: false,
		0o640: true, 0o604: true, 0o660: true, 0o644: true, 0o620: true, 0o601: true, 0o777: true,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := keys.Open(context.Background(), path, nil)
		if errors.Is(err, keys.ErrExposed) != exposed || err != nil != exposed {
			t.Errorf("mode %04o: error %v", mode, err)
		}
		if exposed && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: error %q does not say how to fix it", mode, err)
		}
	}
}

func TestUnusablePrivateKeyFiles(t *testing.T) {
	pemOf := func(blockType string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: b}))
	}
	private := keystestPrivate()
	block, err := ssh.MarshalPrivateKey(private, "x")
	if err != nil {
		t.Fatal(err)
	}
	good := block.Bytes
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	// The public half stands in the file three times.
	point := []byte(private.Public().(ed25519.PublicKey))
	stranger := keystest.New(t, "stranger").Public().Point()
	if bytes.Count(good, point) != 3 {
		t.Fatalf("the public key is in the file %d times", bytes.Count(good, point))
	}
	inFile := func(n int) []byte {
		parts := bytes.SplitN(good, point, 4)
		out := parts[0]
		for i, part := range parts[1:] {
			if i == n {
				out = append(append(out, stranger[:]...), part...)
			} else {
				out = append(append(out, point...), part...)
			}
		}
		return out
	}
	container := func(cipher string, pub []byte) []byte {
		return append([]byte("openssh-key-v1\x00"), ssh.Marshal(struct {
			Cipher, KDF, Options string
			N                    uint32
			Pub, Priv            []byte
		}{cipher, "none", "", 1, pub, make([]byte, 64)})...)
	}
	const openssh = "OPENSSH PRIVATE KEY"
	for _, tt := range []struct {
		name, content, want string
	}{
		{"sound", pemOf(openssh, good), ""},
		{"empty", "", "no \"OPENSSH PRIVATE KEY\" block"},
		{"public-key", keystest.New(t, "alice").Public().String(), "no \"OPENSSH PRIVATE KEY\" block"},
		{"pkcs8", pemOf("PRIVATE KEY", pkcs8), "no \"OPENSSH PRIVATE KEY\" block"},
		{"other-content", pemOf(openssh, []byte("junk")), "damaged"},
		{"cut-short", pemOf(openssh, good[:len(good)-8]), "damaged"},
		{"rsa", pemOf(openssh, container("none", wireKey("ssh-rsa", []byte{1, 0, 1}, make([]byte, 256)))), "not supported"},
		{"rsa-with-passphrase", pemOf(openssh, container("aes256-ctr", wireKey("ssh-rsa", []byte{1, 0, 1}, make([]byte, 256)))), "not supported"},
		{"fido2", pemOf(openssh, container("none", wireKey(sk, point, "ssh:"))), "ssh-agent"},
		{"fido2-with-passphrase", pemOf(openssh, container("aes256-ctr", wireKey(sk, point, "ssh:"))), "ssh-agent"},
		{"private-part-empty", pemOf(openssh, container("none", wireKey(plain, point))), "unhandled key type"},
		{"outer-public-key-of-another", pemOf(openssh, inFile(0)), "do not fit"},
		{"signing-half-of-another", pemOf(openssh, inFile(2)), "do not fit"},
		{"huge", pemOf(openssh, make([]byte, 64<<10)), "longer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			writeFile(t, path, tt.content, 0o600)
			person := &answer{passphrase: "x"}
			_, err := keys.Open(context.Background(), path, person.ask)
			if len(person.asked) > 0 {
				t.Error("a passphrase was asked for in vain")
			}
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		if _, err := keys.Open(context.Background(), t.TempDir(), nil); err == nil || errors.Is(err, keys.ErrExposed) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("absent", func(t *testing.T) {
		_, err := keys.Open(context.Background(), filepath.Join(t.TempDir(), "none"), nil)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want ErrNotExist", err)
		}
	})
}

// The comment of a key is taken from its own .pub file and from no other.
func TestPubFileOfAnotherKeyIsIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice")
	s := generate(t, "alice")
	if err := keys.WritePrivate(path, s, nil); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path+".pub", keystest.New(t, "mallory").Public().String(), 0o644)
	read := mustOpen(t, path, nil)
	checkSigner(t, read, s.Public())
	if got := read.Public().Comment(); got != "" {
		t.Errorf("comment %q", got)
	}
}
