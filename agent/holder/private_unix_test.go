//go:build unix

package holder

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
)

// In a directory that many may write to, somebody may have prepared the one beside the
// file, to replace there what was verified.
func TestFetchRefusesADirectoryOfOthers(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"a-link": func(dir string) error { return os.Symlink(t.TempDir(), dir) },
		"writable-for-all": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
		},
		"a-file": func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Release(stable, 2, agenttest.Program("2", 0))
			if err := prepare(filepath.Join(filepath.Dir(b.out), ".acme.shoal-fetch")); err != nil {
				t.Fatal(err)
			}
			if _, err := b.fetch(t.Context()); fault.CodeOf(err) != fault.Permission {
				t.Errorf("%v, want permission", err)
			}
			b.want(nil)
		})
	}
}

// What is in the place of the file and is none is replaced, and not waited for.
func TestFetchReplacesAPipe(t *testing.T) {
	b := newBench(t)
	content := agenttest.Program("2", 0)
	b.Release(stable, 2, content)
	name := b.Artifact("acme", content).Name
	b.out = filepath.Dir(b.out)
	if err := syscall.Mkfifo(filepath.Join(b.out, name), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := b.fetch(t.Context())
	if err != nil || got.Already || filepath.Base(got.Out) != name {
		t.Fatalf("%+v, %v", got, err)
	}
	b.out = got.Out
	b.want(content)
}
