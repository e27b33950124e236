package apply

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"shoal/internal/fault"
)

// The two ways of swapping one file for another. Both keep the promise; see newSwapper.
const (
	SwapRename     = "rename"     // one rename over the target; there is a target at every instant
	SwapSelfupdate = "selfupdate" // minio/selfupdate's two renames; recovery closes the gap between them
)

// swapper is what one kind of artifact needs done on disk. The engine decides the
// order, and writes the journal before each step whose effect a hash cannot tell.
// Every method may be called again after a crash in the middle of it.
type swapper interface {
	// current returns the hash of the artifact at the target: the truth, whatever a
	// journal says.
	current() (digest, error)
	// through has at go through wrap, if it is costly: for what is only shown.
	through(wrap func(at) at)
	// identity returns the same of a previous version, and the artifact's length.
	identity(path string) (digest, int64, error)
	// room fails with fault.NoSpace unless that much more fits beside the target.
	room(size, files int64) error
	// stage puts the new version beside the target: from src, or from the previous
	// version kept there, if that is not empty.
	stage(ctx context.Context, j *journal, src io.ReaderAt, kept string) error
	// backup keeps what is at the target under j.Backup, durably.
	backup(j *journal) error
	// verify is the last look before the swap: what was staged is the signed one.
	verify(j *journal) error
	// unchanged fails unless what is at the target is still what j.Backup keeps.
	unchanged(j *journal) error
	// swap puts what was staged in the target's place, durably. After an error the
	// target can be the old one, the new one or missing: current tells.
	swap(ctx context.Context, j *journal) error
	// swapped reports whether a target that has the new version's hash has it by swap.
	swapped(j *journal) (bool, error)
	// restore puts the old version back, durably; where there was none, nothing.
	restore(ctx context.Context, j *journal) error
	// clean removes what the transaction left besides the target, and the backup too
	// unless it is to be kept.
	clean(j *journal, keepBackup bool) error
	// prune removes the oldest previous versions beyond keep.
	prune(keep int) error
	// opaque returns the commands of a kind that is swapped and restored by commands,
	// whose effect no hash tells; else nil.
	opaque() *Installer
	// leftovers returns what only an interrupted transaction can have left.
	leftovers() ([]string, error)
	// sweep removes leftovers.
	sweep(leftovers []string) error
}

// newSwapper returns the swapper for artifacts of that kind at target, which swaps how.
func newSwapper(fsys FS, kind, how, target string) (swapper, error) {
	switch {
	case kind == KindTree && how == SwapRename:
		return newTree(fsys, target), nil
	case kind == KindTree:
		return nil, fault.New(fault.Config, "a tree is swapped by renaming a link, not by %q", how).Do("leave swap out")
	case kind == KindInstaller && how == SwapRename:
		return &installer{binary: newBinary(fsys, target)}, nil
	case kind == KindInstaller:
		return nil, fault.New(fault.Config, "a package is swapped by its installer, not by %q", how).Do("leave swap out")
	case kind != KindBinary:
		return nil, fault.New(fault.Policy, "kind %q is none that this agent can install", kind).
			Line("it installs %q, %q and %q", KindBinary, KindTree, KindInstaller)
	case how == SwapRename:
		return &renamer{newBinary(fsys, target)}, nil
	case how == SwapSelfupdate:
		return &selfupdater{newBinary(fsys, target), newPatient()}, nil
	}
	return nil, fault.New(fault.Config, "there is no way of swapping called %q", how).Do("use %q or %q", SwapRename, SwapSelfupdate)
}

// names are the files that belong to a target, all in its directory, so that a
// rename between them is atomic.
type names struct{ target string }

func (n names) dir() string { return filepath.Dir(n.target) }

func (n names) beside(suffix string) string {
	return filepath.Join(n.dir(), "."+filepath.Base(n.target)+suffix)
}

func (n names) staged(tx string) string { return n.beside(".shoal-" + tx + ".new") }
func (n names) old(tx string) string    { return n.beside(".shoal-" + tx + ".old") }
func (n names) bad(tx string) string    { return n.beside(".shoal-" + tx + ".bad.old") }
func (n names) lock() string            { return n.beside(".shoal-lock") }
func (n names) selfupdate() string      { return n.beside(".new") } // the name CommitBinary insists on
func (n names) previous(i int) string   { return n.beside(".shoal-prev-" + strconv.Itoa(i)) }

// isPrevious returns the number of a previous version. The highest is the latest.
func (n names) isPrevious(path string) (int, bool) {
	digits, ok := strings.CutPrefix(path, n.beside(".shoal-prev-"))
	i, err := strconv.Atoi(digits)
	return i, ok && err == nil && i > 0 && path == n.previous(i)
}

// litter returns what lies beside the target and is litter.
func (n names) litter(fsys FS) ([]string, error) {
	list, err := fsys.ReadDir(n.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, name := range list {
		if path := filepath.Join(n.dir(), name); n.isLitter(path) {
			all = append(all, path)
		}
	}
	return all, err
}

// isLitter reports whether path is what an interrupted transaction can leave.
func (n names) isLitter(path string) bool {
	return strings.HasPrefix(path, n.beside(".shoal-")) && (strings.HasSuffix(path, ".new") || strings.HasSuffix(path, ".old"))
}
