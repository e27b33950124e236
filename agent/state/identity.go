package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const (
	keyFile     = "agent.key"
	machineFile = "machine"
)

// Identity returns the agent's own key, whose fingerprint is the agent id, and makes
// it where there is none. A state directory that woke up on another machine, as one
// in a cloned disk image does, gets a key of its own: made is then true as well.
func (s *Store) Identity(ctx context.Context) (key keys.Signer, made bool, err error) {
	return s.identity(ctx, machineID())
}

// identity takes the machine's id as it is kept: a hash, or empty when not known.
func (s *Store) identity(ctx context.Context, machine string) (keys.Signer, bool, error) {
	keyPath, machinePath := filepath.Join(s.dir, keyFile), filepath.Join(s.dir, machineFile)
	stored, err := readFile(machinePath, 1<<10)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, failure(err, "reading %q", machinePath)
	}
	cloned := len(stored) > 0 && machine != "" && strings.TrimSpace(string(stored)) != machine
	if cloned {
		if err := removeAll(keyPath, keyPath+".pub"); err != nil {
			return nil, false, err
		}
	}
	key, err := keys.Open(ctx, "file:"+keyPath, nil)
	made := false
	if errors.Is(err, fs.ErrNotExist) {
		if err := removeAll(keyPath + ".pub"); err != nil {
			return nil, false, err
		}
		if key, err = keys.Generate("shoal agent"); err == nil {
			err = keys.WritePrivate(keyPath, key, nil)
		}
		made = true
	}
	if err != nil {
		return nil, false, failure(err, "opening the agent's key").
			Do("if it is damaged, move %q away: a new one is made, and the publisher approves it again", keyPath)
	}
	// Last, so that a crash before it makes another new key and never keeps a cloned one.
	if machine != "" && (cloned || len(stored) == 0) {
		if err := durable.WriteFile(machinePath, []byte(machine+"\n"), 0o600); err != nil {
			return nil, false, failure(err, "remembering the machine")
		}
	}
	return key, made, nil
}

func removeAll(paths ...string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure(err, "removing %q", p)
		}
	}
	return nil
}

// hashed keeps the id of a machine out of our files: other programs derive secrets from it.
func hashed(id string) string {
	id = strings.TrimSpace(id)
	if id == "" || id == "uninitialized" {
		return ""
	}
	return manifest.Sum([]byte("shoal machine " + id)).String()
}

// failure gives an error of the operating system its code.
func failure(err error, doing string, args ...any) *fault.Error {
	code := fault.IO
	if errors.Is(err, fs.ErrPermission) {
		code = fault.Permission
	}
	if isNoSpace(err) {
		code = fault.NoSpace
	}
	args = append(args, err)
	return fault.New(code, doing+": %w", args...)
}
