package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"shoal/internal/fault"
)

const (
	spareBytes  = 1 << 20 // asked for besides the file itself
	sparePart   = 20      // and one part in so many of it
	spareInodes = 8
)

// errTargetChanged is somebody else at work on the same file: a package manager, an
// operator. What they did is left as it is.
var errTargetChanged = errors.New("somebody else changed the program meanwhile")

// place is a target and what lies beside it. It is what all kinds have in common.
type place struct {
	fs FS
	names
	// at tells which artifact is at path, by the hash it was published with, and how
	// long that was. The hash is zero when there is nothing.
	at       at
	stagedID [2]uint64 // of the staged name that verify saw
	oldID    [2]uint64 // of the target that unchanged saw; zero for none
}

// at is how it is told which artifact is at a path.
type at func(path string) (digest, int64, error)

func (p *place) through(wrap func(at) at) { p.at = wrap(p.at) }

func (p *place) current() (digest, error) {
	d, _, err := p.at(p.target)
	return d, err
}

func (p *place) identity(path string) (digest, int64, error) { return p.at(path) }

// Room is how many bytes must be free beside a target for an artifact of length bytes.
func Room(length int64) int64 { return length + length/sparePart + spareBytes }

func (p *place) room(size, files int64) error {
	s, err := p.fs.Space(p.dir())
	if err != nil {
		return err
	}
	if need := uint64(Room(size)); s.Bytes < need {
		return fault.New(fault.NoSpace, "not enough disk space beside %q", p.target).
			Line("%q needs %d bytes, has %d", p.dir(), need, s.Bytes).
			Do("free space there, or lower keep: previous versions are kept beside the program").
			Fact("dir", p.dir()).Fact("need", need).Fact("have", s.Bytes)
	}
	if s.Inodes && s.Files < uint64(files)+spareInodes {
		return fault.New(fault.NoSpace, "no free inodes beside %q", p.target).
			Line("the file system of %q has %d left", p.dir(), s.Files).
			Do("remove small files there").Fact("dir", p.dir()).Fact("inodes", s.Files)
	}
	return nil
}

// unchanged fails unless what is at the target is still what j.Backup keeps.
func (p *place) unchanged(j *journal) error {
	var err error
	if p.oldID, err = p.id(p.target); err != nil {
		return err
	}
	now, err := p.current()
	if err != nil {
		return err
	}
	if now != j.From {
		return errTargetChanged
	}
	if j.From.absent() {
		return nil
	}
	same, err := p.sameFile(p.target, j.Backup)
	if err != nil || same {
		return err
	}
	kept, _, err := p.at(j.Backup)
	if err == nil && kept != j.From {
		err = errTargetChanged
	}
	return err
}

func (p *place) sameFile(path, other string) (bool, error) {
	one, err := p.fs.Lstat(path)
	if err != nil {
		return false, err
	}
	two, err := p.fs.Lstat(other)
	return one.ID == two.ID, err
}

// id tells the file at path from every other; it is zero when there is none.
func (p *place) id(path string) ([2]uint64, error) {
	i, err := p.fs.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [2]uint64{}, nil
	}
	return i.ID, err
}

// restore renames the backup over the target: one step that needs no space, no
// second link and leaves nothing behind.
func (p *place) restore(_ context.Context, j *journal) error {
	now, err := p.current()
	if err != nil && !notOurs(err) {
		return err
	}
	switch {
	case now == j.From && err == nil: // a crash came after the rename
	case j.From.absent():
		if now == j.To {
			if err := p.fs.Remove(p.target); err != nil {
				return err
			}
		}
	default:
		kept, _, err := p.at(j.Backup)
		if err != nil {
			return err
		}
		if kept.absent() {
			return fmt.Errorf("the previous version %q is gone", j.Backup)
		}
		if kept != j.From {
			return fmt.Errorf("the previous version %q is spoilt: expected sha256 %s, found %s", j.Backup, j.From, kept)
		}
		if err := p.fs.Rename(j.Backup, p.target); err != nil {
			return err
		}
	}
	return p.fs.SyncDir(p.dir())
}

// remove removes files that may be gone already, durably.
func (p *place) remove(paths ...string) error {
	any := false
	for _, path := range paths {
		err := p.fs.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		any = any || err == nil
	}
	if !any {
		return nil
	}
	return p.fs.SyncDir(p.dir())
}

// previous is a previous version that is kept.
type previous struct {
	n    int
	path string
}

// previous returns the previous versions of the target, latest first.
func (n names) kept(fsys FS) ([]previous, error) {
	list, err := fsys.ReadDir(n.dir())
	if err != nil {
		return nil, err
	}
	var kept []previous
	for _, name := range list {
		path := filepath.Join(n.dir(), name)
		if i, ok := n.isPrevious(path); ok {
			kept = append(kept, previous{i, path})
		}
	}
	slices.SortFunc(kept, func(a, b previous) int { return b.n - a.n })
	return kept, nil
}

func (p *place) prune(keep int) error {
	now, err := p.current()
	if err != nil {
		return err
	}
	all, err := p.kept(p.fs)
	if err != nil {
		return err
	}
	seen := []digest{now} // a previous version with the same content is none
	var drop []string
	for _, v := range all {
		d, _, err := p.at(v.path)
		if err != nil { // a bad disk, or none of ours: it must not stop all updates to come
			continue
		}
		if len(seen) > keep || slices.Contains(seen, d) {
			drop = append(drop, v.path)
			continue
		}
		seen = append(seen, d)
	}
	return p.remove(drop...)
}

func (p *place) opaque() *Installer { return nil }

func (p *place) leftovers() ([]string, error) { return p.litter(p.fs) }

func (p *place) sweep(leftovers []string) error { return p.remove(leftovers...) }
