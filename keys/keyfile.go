package keys

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/crypto/ssh"
)

const pemType = "OPENSSH PRIVATE KEY"

func openFile(ctx context.Context, path string, ask PassphraseFunc) (*signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening private key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening private key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening private key %q: not a regular file (stdin: reads one from a pipe)", path)
	}
	// Windows has no such bits: there the directory's access list protects the key.
	if mode := info.Mode(); mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("opening private key %q: %w (mode %04o): if it is still secret, run: chmod 600 %q", path, ErrExposed, mode.Perm(), path)
	}
	b, err := readLimited(f)
	if err != nil {
		return nil, fmt.Errorf("reading private key %q: %w", path, err)
	}
	s, err := parsePrivate(ctx, b, fmt.Sprintf("key file %q", path), ask)
	if err != nil {
		return nil, err
	}
	// The key's comment is in its .pub file, if that is still there.
	if pub, err := ReadPublic(path + ".pub"); err == nil && pub.same(s.pub) {
		s.pub = pub
	}
	return s, nil
}

// parsePrivate reads an OpenSSH private key. Other PEM forms are refused, so that how
// a key is protected never depends on which of them it happens to be in.
func parsePrivate(ctx context.Context, text []byte, what string, ask PassphraseFunc) (*signer, error) {
	pub, protected, err := parseContainer(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	var parsed any
	if protected {
		if ask == nil {
			return nil, fmt.Errorf("opening %s: %w", what, ErrPassphraseNeeded)
		}
		passphrase, err := ask(ctx, what)
		if err != nil {
			return nil, fmt.Errorf("asking for the passphrase of %s: %w", what, err)
		}
		if len(passphrase) == 0 {
			return nil, fmt.Errorf("opening %s: %w", what, ErrPassphraseNeeded)
		}
		parsed, err = ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, fmt.Errorf("opening %s: %w", what, ErrWrongPassphrase)
		}
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", what, err)
		}
	} else if parsed, err = ssh.ParseRawPrivateKey(text); err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	private, ok := parsed.(*ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading %s: it holds a %T, want an ed25519 key", what, parsed)
	}
	s, err := newSigner(*private, "")
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	if !s.pub.same(pub) {
		return nil, fmt.Errorf("reading %s: its public and its private key do not fit each other", what)
	}
	return s, nil
}

// parseContainer reads the part of a private key file that no passphrase protects: whose
// it is and whether one is needed, so that nobody types one in vain.
func parseContainer(text []byte) (pub PublicKey, protected bool, err error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return pub, false, fmt.Errorf("no %q block in it", pemType)
	}
	var c struct {
		Cipher, KDF, KDFOptions string
		Keys                    uint32
		Public, Private         []byte
	}
	body, ok := bytes.CutPrefix(block.Bytes, []byte("openssh-key-v1\x00"))
	if !ok || ssh.Unmarshal(body, &c) != nil {
		return pub, false, errors.New("damaged OpenSSH private key")
	}
	pub, err = parseWireKey(c.Public)
	if err == nil && pub.algo == algoSKEd25519 {
		err = errors.New("a FIDO2 key signs through the ssh-agent: ssh-add it, then name it agent:PATH.pub")
	}
	return pub, c.Cipher != "none", err
}

// WritePrivate writes the key of s, made by [Generate] or read from a file, as an OpenSSH
// private key to path (mode 0600) and its public key to path with ".pub". An empty
// passphrase writes it unprotected. Nothing is ever overwritten: what is there already
// is an error that matches [fs.ErrExist], but for a .pub file of this same key.
func WritePrivate(path string, s Signer, passphrase []byte) error {
	own, ok := s.(*signer)
	if !ok || own.private == nil {
		return fmt.Errorf("writing private key %q: the key is not in this process", path)
	}
	var block *pem.Block
	var err error
	if len(passphrase) > 0 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(own.private, own.pub.comment, passphrase)
	} else {
		block, err = ssh.MarshalPrivateKey(own.private, own.pub.comment)
	}
	if err != nil {
		return fmt.Errorf("writing private key %q: %w", path, err)
	}
	if err := writeNew(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("writing private key %q: %w", path, err)
	}
	if err := WritePublic(path+".pub", own.pub); err != nil {
		return errors.Join(err, os.Remove(path)) // ours: writeNew has just made it
	}
	return nil
}

// WritePublic writes the line of k to path (mode 0644). A file that holds the key
// already is left as it is; any other is an error that matches [fs.ErrExist].
func WritePublic(path string, k PublicKey) error {
	err := writeNew(path, []byte(k.String()+"\n"), 0o644)
	if errors.Is(err, fs.ErrExist) {
		if there, readErr := ReadPublic(path); readErr == nil && there.same(k) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("writing public key %q: %w", path, err)
	}
	return nil
}

// ReadPublic reads a public key file, one line as [ParsePublicKey] takes it.
func ReadPublic(path string) (PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return PublicKey{}, fmt.Errorf("opening public key: %w", err)
	}
	defer f.Close()
	b, err := readLimited(f)
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading public key %q: %w", path, err)
	}
	k, err := ParsePublicKey(string(b))
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading public key %q: %w", path, err)
	}
	return k, nil
}

// writeNew creates path, durable and never partly there: the bytes are written under
// another name, then linked, which unlike renaming replaces nothing.
func writeNew(path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, ".new-key-"+rand.Text())
	if err := create(temp, data, perm); err != nil {
		return err
	}
	defer os.Remove(temp)
	err := os.Link(temp, path)
	if errors.Is(err, fs.ErrExist) {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if err != nil { // no hard links on this filesystem, as on a FAT stick
		if err := create(path, data, perm); err != nil {
			return err
		}
	}
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be opened for syncing there; NTFS journals its names
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// create writes and syncs a file that was not there, or leaves none.
func create(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
