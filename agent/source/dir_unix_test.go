//go:build unix

package source

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"shoal/internal/fault"
)

func TestDirRefuses(t *testing.T) {
	dir := tree(t, map[string]string{"inside/a": "x"})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, path string
		want       fault.Code
	}{
		{"path-that-climbs-out", "../" + filepath.Base(filepath.Dir(secret)) + "/secret", fault.Unreachable},
		{"absolute-path", secret, fault.Unreachable},
		{"link-that-leads-out", "link", fault.Unreachable},
		{"pipe-that-never-ends", "pipe", fault.Unreachable},
		{"directory", "inside", fault.Unreachable},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if b, err := Dir(dir).Document(t.Context(), r.path, limit); !errors.Is(err, r.want) {
				t.Errorf("Document(%q) = %q, %v; want %s", r.path, b, err, r.want)
			}
		})
	}
	if _, err := Dir(filepath.Join(dir, "unplugged")).Document(t.Context(), "x", limit); !errors.Is(err, fault.Unreachable) {
		t.Errorf("a directory that is not there: %v, want unreachable", err)
	}
}
