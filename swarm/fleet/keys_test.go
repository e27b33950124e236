package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const (
	oneKey     = keyPrefix + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	anotherKey = keyPrefix + "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8"
)

func parse(t testing.TB, lines ...string) *Keys {
	t.Helper()
	k, err := Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParse(t *testing.T) {
	rows := []struct {
		name string
		text string
		keys int
		err  string
	}{
		{"one-key", oneKey, 1, ""},
		{"two-keys-comments-and-line-ends", "# old\r\n" + oneKey + "\r\n\r\n  # new\n\t" + anotherKey + "  \n", 2, ""},
		{"nothing", "", 0, "no key"},
		{"comments-alone", "# " + oneKey, 0, "no key"},
		{"twice", oneKey + "\n" + oneKey, 0, "line 2: the same key twice"},
		{"three", oneKey + "\n" + anotherKey + "\n" + keyPrefix + strings.Repeat("A", 43), 0, "line 3: a third key"},
		{"too-short", oneKey[:len(oneKey)-1], 0, "43 characters"},
		{"too-long", oneKey + "A", 0, "43 characters"},
		{"stray-bits", oneKey[:len(oneKey)-1] + "9", 0, "43 characters"},
		{"padded", oneKey + "=", 0, "43 characters"},
		{"other-alphabet", keyPrefix + strings.Repeat("+", 43), 0, "43 characters"},
		{"other-version", strings.Replace(oneKey, "-1:", "-2:", 1), 0, "does not begin with"},
		{"two-on-a-line", oneKey + " " + anotherKey, 0, "43 characters"},
		{"another-secret", "-----BEGIN OPENSSH PRIVATE KEY-----\nhush", 0, "line 1 does not begin with"},
		{"endless", oneKey + "\n" + strings.Repeat("#", maxKeyFile), 0, "larger than"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			k, err := Parse([]byte(r.text))
			if r.err != "" {
				if err == nil || !strings.Contains(err.Error(), r.err) {
					t.Fatalf("got %v, want an error with %q", err, r.err)
				}
				if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "AAECAwQ") {
					t.Errorf("the error tells the secret: %v", err)
				}
				return
			}
			if err != nil || len(k.IDs()) != r.keys {
				t.Fatalf("got %v, %v, want %d keys", k, err, r.keys)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(oneKey))
	f.Add([]byte("# comment\r\n" + oneKey + "\n\n" + anotherKey))
	f.Add([]byte(keyPrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(k.text())
		if err != nil || !again.Equal(k) {
			t.Errorf("%q is written as %q, which is %v, %v", text, k.text(), again, err)
		}
	})
}

func TestKeysAreNeverPrinted(t *testing.T) {
	k := parse(t, oneKey)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, k); s != k.IDs()[0] {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

func TestWriteNeverReplacesAndReadWantsSecrecy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || !got.Equal(k) {
		t.Fatalf("read %v, %v", got, err)
	}
	if err := parse(t, oneKey).Write(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over a key: %v", err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("skipped: files have no permission bits here")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o644, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestReadRefusesWhatIsNoFile(t *testing.T) {
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

func TestCredentialGoesBeforeTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "key")
	if err := parse(t, oneKey).Write(file); err != nil {
		t.Fatal(err)
	}
	load := func(file, credentials string) *Keys {
		t.Helper()
		k, err := Load(file, credentials)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if load("", "") != nil || load("", dir) != nil {
		t.Error("there is a key, from nowhere")
	}
	if !load(file, dir).Equal(parse(t, oneKey)) {
		t.Error("without a credential the file counts")
	}
	credential := filepath.Join(dir, CredentialName)
	if err := parse(t, anotherKey).Write(credential); err != nil {
		t.Fatal(err)
	}
	if !load(file, dir).Equal(parse(t, anotherKey)) {
		t.Error("the credential goes first")
	}
	if runtime.GOOS == "windows" {
		t.Skip("skipped: files have no permission bits here")
	}
	// As systemd makes it for a service with a user of its own.
	if err := os.Chmod(credential, 0o440); err != nil {
		t.Fatal(err)
	}
	if !load(file, dir).Equal(parse(t, anotherKey)) {
		t.Error("the credential of a service's user is not read")
	}
	if err := os.Chmod(credential, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, dir); !errors.Is(err, ErrExposed) {
		t.Errorf("a credential that everyone can read: %v", err)
	}
}
