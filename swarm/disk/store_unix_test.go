//go:build unix

package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOpenRefuses(t *testing.T) {
	l, data := newContent()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, link), syscall.Mkfifo(pipe, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, dir, filepath.Join(dir, "absent", "f")} {
		if s, err := OpenFetch(t.Context(), l, path); err == nil {
			s.Close()
			t.Errorf("downloading to %s is possible", filepath.Base(path))
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the file behind a link is %q now, %v", b, err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "absent")} {
		if s, err := OpenSeed(t.Context(), l, path); err == nil {
			s.Close()
			t.Errorf("seeding %s is possible", filepath.Base(path))
		}
	}
	if _, err := OpenSeed(t.Context(), l, victim); !errors.Is(err, ErrContent) {
		t.Errorf("seeding something else: %v, want ErrContent", err)
	}
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	if err := os.WriteFile(victim, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSeed(t.Context(), l, victim); !errors.Is(err, ErrContent) {
		t.Errorf("seeding a changed file: %v, want ErrContent", err)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if _, err := OpenSeed(ctx, l, victim); !errors.Is(err, over) {
		t.Errorf("seeding after the end: %v, want its cause", err)
	}
}
