package self

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/internal/durable"
)

// KeepGuard makes the guard the file that program is now: a second name of it, or a
// copy where there are no hard links. There is a whole guard at every instant, the old
// one or the new one. It is to be called only when program is confirmed.
func KeepGuard(program string) error {
	guard := Guard(program)
	now, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("keeping the guard: %w", err)
	}
	old, err := os.Lstat(guard)
	if err == nil && !old.Mode().IsRegular() {
		return fmt.Errorf("keeping the guard: %q is not a file of ours", guard)
	}
	if err == nil && (os.SameFile(old, now) || isCopy(old, now)) {
		return nil
	}
	tmp := guard + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the guard: %w", err)
	}
	if os.Link(program, tmp) != nil {
		if err := copyFile(program, tmp, now); err != nil {
			os.Remove(tmp)
			return fmt.Errorf("keeping the guard: %w", err)
		}
	}
	if err := durable.Rename(tmp, guard); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("keeping the guard: %w", err)
	}
	return nil
}

// isCopy reports whether guard is the copy that copyFile made of program: it has its
// time, to the nanosecond, and its size.
func isCopy(guard, program fs.FileInfo) bool {
	return guard.ModTime().Equal(program.ModTime()) && guard.Size() == program.Size()
}

func copyFile(from, to string, info fs.FileInfo) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Chtimes(to, info.ModTime(), info.ModTime())
		}
	}()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return dst.Sync()
}

// DropGuard removes the guard, when nothing calls it any more.
func DropGuard(program string) error {
	err := os.Remove(Guard(program))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the guard: %w", err)
	}
	return durable.SyncDir(filepath.Dir(program))
}
