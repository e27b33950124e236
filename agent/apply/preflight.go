package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"shoal/internal/fault"
)

// Preflight says whether to could be installed at t as things are now, before a byte of
// it is fetched: it asks what Apply will ask, and tries beside the target what Apply
// will do there, with an empty file. It changes nothing and recovers nothing.
func (e *Engine) Preflight(t Target, to Release) error {
	t, err := t.defaults()
	if err != nil {
		return err
	}
	s := &session{e: e, fs: e.o.FS, p: Program{Target: t}}
	if s.target, err = t.resolve(s.fs); err != nil {
		return explain("looking at the target", t.Path, err)
	}
	if s.sw, err = newSwapper(s.fs, t.Kind, t.Swap, s.target); err != nil {
		return err
	}
	from, err := s.sw.current()
	if err != nil {
		return explain("looking at the installed program", s.target, err)
	}
	if err := s.preflight(from, to); err != nil {
		return err
	}
	if err := s.free(); err != nil {
		return explain("looking for another process at work", s.target, err)
	}
	err = s.rehearse(from, to)
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return cannotReplace(s.fs, s.target, err)
	}
	return explain("trying to replace "+strconv.Quote(s.target), s.target, err)
}

// free fails if another process is at work on the target.
func (s *session) free() error {
	lock := names{s.target}.lock()
	if _, err := s.fs.Lstat(lock); err != nil {
		return nil // nobody ever was
	}
	l, err := takeLock(s.fs, lock)
	if err != nil {
		return err
	}
	return l.Close()
}

// rehearse makes a file beside the target, and gives it what the new one has to have.
// Names as these are swept away if a crash comes between.
func (s *session) rehearse(from digest, to Release) (err error) {
	tx := "preflight-" + s.newTx()
	n := names{s.target}
	probe, second := n.staged(tx), n.staged(tx+"-2")
	f, err := s.fs.Create(probe)
	if err != nil {
		return err
	}
	defer func() {
		if gone := errors.Join(f.Close(), s.fs.Remove(probe)); err == nil {
			err = gone // else the next recovery sweeps it away
		}
	}()
	if s.p.Target.Kind != KindBinary || from.absent() {
		return nil
	}
	old, err := s.fs.Open(s.target)
	if err != nil {
		return err
	}
	defer old.Close()
	m, err := old.Meta()
	if err != nil {
		return err
	}
	b := newBinary(s.fs, s.target)
	if err := b.setMeta(f, m); err != nil {
		return err
	}
	// The old version is kept by a second name. Where it cannot have one it is copied.
	err = s.fs.Link(s.target, second)
	if cannotLink(err) {
		i, err := old.Stat()
		if err != nil {
			return err
		}
		return s.sw.room(to.Length+i.Size, 2)
	}
	if err != nil {
		return err
	}
	return s.fs.Remove(second)
}

// cannotReplace says who may not write which directory.
func cannotReplace(fsys FS, target string, err error) error {
	dir := filepath.Dir(target)
	who := userName(-1)
	e := fault.New(fault.Permission, "cannot replace %s: %w", target, err)
	if i, err := fsys.Lstat(dir); err == nil {
		e.Line("The agent runs as %q; the directory %s belongs to %s (%04o).", who, dir, userName(i.UID), i.Mode.Perm())
	}
	return e.Line("A rename needs the *directory*, not the file. Nothing was changed.").
		Do("chown %s %s    or, under systemd, add ReadWritePaths=%s to the unit", who, dir, dir).
		Fact("dir", dir).Fact("user", who)
}

// userName is the name of a user, -1 for this process's, as it may stand in a command.
func userName(uid int) string {
	u, err := user.Current()
	if uid >= 0 {
		u, err = user.LookupId(strconv.Itoa(uid))
	}
	if err != nil || strings.ContainsFunc(u.Username, func(r rune) bool { return r <= ' ' || r > '~' }) {
		if uid < 0 {
			return "the agent's user"
		}
		return fmt.Sprint(uid)
	}
	return u.Username
}
