package fleet

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"shoal/internal/durable"
)

const (
	maxKeyFile = 4 << 10 // a key is a line; the rest is comments
	maxKeys    = 2       // the old and the new one

	keyLen    = 32
	keyPrefix = "shoal-fleet-1:"
	lanInfo   = "shoal.fleet.lan.v1"

	// CredentialName is what the key file is called where a service manager hands it over.
	CredentialName = "fleet.key"
)

// ErrExposed says that a key file could be read or changed by others than its owner.
var ErrExposed = errors.New("others than its owner can read or change it")

// base64url is strict: one spelling for one key.
var base64url = base64.RawURLEncoding.Strict()

// Keys are the fleet keys a machine holds: one, or two while the key is being replaced.
// The first is presented, all are accepted. Printing them prints their ids.
type Keys struct{ keys []key }

type key struct {
	secret [keyLen]byte
	ca     authority    // what follows from it
	lan    [keyLen]byte // and for announcements on the LAN
}

func newKey(secret [keyLen]byte) (key, error) {
	ca, err := deriveCA(secret)
	if err != nil {
		return key{}, err
	}
	lan, err := hkdf.Key(sha256.New, secret[:], nil, lanInfo, keyLen)
	if err != nil {
		return key{}, fmt.Errorf("deriving the key for announcements: %w", err)
	}
	return key{secret, ca, [keyLen]byte(lan)}, nil
}

// Generate returns one new key.
func Generate() (*Keys, error) {
	var secret [keyLen]byte
	rand.Read(secret[:]) // never fails
	one, err := newKey(secret)
	return &Keys{keys: []key{one}}, err
}

// Parse reads the text of a key file.
func Parse(text []byte) (*Keys, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("fleet key file is larger than %d bytes", maxKeyFile)
	}
	k := new(Keys)
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.Trim(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		coded, ok := strings.CutPrefix(line, keyPrefix)
		if !ok {
			return nil, fmt.Errorf("line %d does not begin with %s", number, keyPrefix) // and may be a secret of another kind
		}
		secret, err := base64url.DecodeString(coded)
		if err != nil || len(secret) != keyLen {
			return nil, fmt.Errorf("line %d: after %s there must be 43 characters of base64url", number, keyPrefix)
		}
		if len(k.keys) == 1 && k.keys[0].secret == [keyLen]byte(secret) {
			return nil, fmt.Errorf("line %d: the same key twice", number)
		}
		if len(k.keys) == maxKeys {
			return nil, fmt.Errorf("line %d: a third key, and two are the most: the old and the new one", number)
		}
		one, err := newKey([keyLen]byte(secret))
		if err != nil {
			return nil, err
		}
		k.keys = append(k.keys, one)
	}
	if len(k.keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return k, nil
}

// Read reads the key file at path. Unless only its owner can read it, the error is
// ErrExposed.
func Read(path string) (*Keys, error) { return read(path, 0o077) }

// Load reads the machine's key: from the directory in which a service manager hands over
// credentials if there is one in it, else from file. Both may be empty; without a key it
// returns nil.
func Load(file, credentials string) (*Keys, error) {
	if credentials != "" {
		// systemd lets the service's user read it by an access list, which shows as
		// permission for the group.
		k, err := read(filepath.Join(credentials, CredentialName), 0o037)
		if !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	if file == "" {
		return nil, nil
	}
	return Read(file)
}

func read(path string, refused fs.FileMode) (*Keys, error) {
	b, err := readSecret(path, refused)
	if err != nil {
		return nil, fmt.Errorf("reading fleet key: %w", err)
	}
	k, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading fleet key %q: %w", path, err)
	}
	return k, nil
}

// readSecret reads a file that nobody with one of the refused permissions may exist for.
func readSecret(path string, refused fs.FileMode) ([]byte, error) {
	// Asked before opening: a pipe would block.
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err = f.Stat(); err != nil {
		return nil, err
	}
	// Windows has no such bits: there the directory's access list protects the key.
	if fi.Mode().Perm()&refused != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%q has mode %04o: %w; if it is still secret, run: chmod 600 %q", path, fi.Mode().Perm(), ErrExposed, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%q is larger than %d bytes", path, maxKeyFile)
	}
	return b, err
}

// Write creates a key file at path, durably and with mode 0600. What is there already is
// an error that matches [fs.ErrExist].
func (k *Keys) Write(path string) error {
	if err := durable.WriteNew(path, k.text(), 0o600); err != nil {
		return fmt.Errorf("writing fleet key %q: %w", path, err)
	}
	return nil
}

func (k *Keys) text() []byte {
	var b bytes.Buffer
	b.WriteString("# A fleet key of Shoal. Whoever has it can read the fleet's releases and meet its machines.\n")
	for _, one := range k.keys {
		b.WriteString(keyPrefix + base64url.EncodeToString(one.secret[:]) + "\n")
	}
	return b.Bytes()
}

// Equal reports whether both hold the same keys in the same order.
func (k *Keys) Equal(o *Keys) bool {
	return slices.EqualFunc(k.keys, o.keys, func(a, b key) bool { return a.secret == b.secret })
}

// IDs returns a name for each key that is not secret: the beginning of the SHA-256 of the
// authority's public key.
func (k *Keys) IDs() []string {
	ids := make([]string, len(k.keys))
	for i := range k.keys {
		ids[i] = k.keys[i].ca.id()
	}
	return ids
}

// String returns the ids.
func (k *Keys) String() string { return strings.Join(k.IDs(), ", ") }

// Format implements [fmt.Formatter], so that no verb prints a secret.
func (k *Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }
