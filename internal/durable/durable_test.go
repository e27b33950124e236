package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWriteFileReplacesWholeAndKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, content := range []string{"a much longer first version", "second"} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	assertOnly(t, path)
}

// What is written can be secret, and a directory for everybody's temporary files is no
// place to put it together.
func TestWriteFileLeavesTempDirAlone(t *testing.T) {
	dir := t.TempDir()
	shared := filepath.Join(dir, "tmp") // on the same filesystem
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", shared)
	long := time.Unix(1e9, 0)
	if err := os.Chtimes(shared, long, long); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "state.json"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(shared); err != nil || !fi.ModTime().Equal(long) {
		t.Errorf("a file was made in TMPDIR: changed %v, %v", fi.ModTime(), err)
	}
}

func TestWriteNewNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := WriteNew(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second WriteNew: %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first" {
		t.Errorf("content %q, want the first one", got)
	}
	assertOnly(t, path)
}

func TestWriteExclusiveNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := writeExclusive(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeExclusive(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first" {
		t.Errorf("content %q, want the first one", got)
	}
}

// assertOnly fails when anything but path is left in its directory.
func assertOnly(t *testing.T, path string) {
	t.Helper()
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0].Name() != filepath.Base(path) {
		t.Errorf("directory holds %v, want only %s", names, filepath.Base(path))
	}
}
