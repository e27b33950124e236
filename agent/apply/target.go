package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"shoal/internal/fault"
)

// The kinds of artifacts this engine installs.
const (
	KindBinary = "binary" // one executable file, at Target.Path
	// KindTree is a tar, plain or compressed with zstd. Target.Path is a directory; the
	// tar is unpacked to Path/versions/VERSION-HASH, and the link Path/current leads there.
	// On Windows, where links take a privilege, the file Path/current.txt says so instead.
	KindTree = "tree"
	// KindInstaller is a package that Target.Installer's commands install. Target.Path is
	// where the package that was installed last is kept: its hash tells which it is.
	KindInstaller = "installer"
)

const (
	defaultKeep = 2
	maxLinks    = 40 // symbolic links followed for one target, as Linux has it
)

// Target is where a machine has an app installed.
type Target struct {
	App  string // the app's name, for messages and hooks
	Path string // absolute; a symbolic link is resolved, and what it leads to is replaced
	Kind string // of the artifacts it takes; empty means KindBinary, an unknown one is refused with fault.Policy
	// Keep is how many previous versions stay beside the target once a new one is
	// confirmed; zero means 2, negative none.
	Keep int
	// AllowInstall lets Apply make a target that is not there.
	AllowInstall bool
	// AllowInsecureDir accepts a directory in which other users could replace files.
	AllowInsecureDir bool
	// Swap is SwapRename or SwapSelfupdate; empty means the one that suits the system.
	Swap string
	// Installer has the commands of KindInstaller.
	Installer Installer
}

// defaults returns t with its zeros filled in, or what is wrong with it.
func (t Target) defaults() (Target, error) {
	if t.Kind == "" {
		t.Kind = KindBinary
	}
	if !filepath.IsAbs(t.Path) {
		return t, fault.New(fault.Config, "the target of %s must be an absolute path, not %q", t.name(), t.Path)
	}
	t.Path = filepath.Clean(t.Path)
	if t.Swap == "" {
		t.Swap = SwapRename
		if t.Kind == KindBinary {
			t.Swap = defaultSwap
		}
	}
	if _, err := newSwapper(nil, t.Kind, t.Swap, t.Path); err != nil {
		return t, err
	}
	if t.Kind == KindInstaller {
		var err error
		if t.Installer, err = t.Installer.defaults(); err != nil {
			return t, err
		}
	}
	switch {
	case t.Keep == 0:
		t.Keep = defaultKeep
	case t.Keep < 0:
		t.Keep = 0
	}
	return t, nil
}

func (t Target) name() string {
	if t.App != "" {
		return t.App
	}
	return filepath.Base(t.Path)
}

// checkWay fails with fault.UnsafePath if somebody else could decide what the target is.
func (t Target) checkWay(fsys FS, target string) error {
	if t.Kind != KindTree {
		return checkWay(fsys, t.Path, target, target)
	}
	// What is unpacked belongs to this process's user, and so must the places it goes to:
	// that the version before is somebody else's is no reason to trust them.
	err := checkWay(fsys, t.Path, target, "")
	versions := filepath.Join(filepath.Dir(target), versionsDir)
	if _, serr := fsys.Lstat(versions); err == nil && !errors.Is(serr, fs.ErrNotExist) {
		err = checkDir(fsys, filepath.Join(versions, "any"), "")
	}
	return err
}

// checkWay fails with fault.UnsafePath if somebody else could decide which file the
// target's path leads to, or replace it there: target is the real file, and every
// directory with a link that is followed on the way to it counts as well. The owner of
// program may own them all.
func checkWay(fsys FS, path, target, program string) error {
	done, todo := "/", strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		i, err := fsys.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) && len(todo) == 0 {
			break // a first install
		}
		if err != nil {
			return err
		}
		if i.Mode&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
		}
		if err := checkDir(fsys, next, program); err != nil {
			return err
		}
		to, err := fsys.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(to) {
			done = "/"
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	return checkDir(fsys, target, program)
}

// checkDir fails with fault.UnsafePath if somebody else could replace files in the
// directory of path, or one of the directories that lead to it: whoever can do that
// decides what runs there, whatever was signed.
func checkDir(fsys FS, path, program string) error {
	if runtime.GOOS == "windows" {
		return nil // its rights are access control lists, which modes do not show
	}
	me, group := os.Geteuid(), os.Getegid()
	for dir, last := filepath.Dir(path), path; dir != last; dir, last = filepath.Dir(dir), dir {
		i, err := fsys.Lstat(dir)
		if err != nil {
			return err
		}
		if !i.Mode.IsDir() {
			return fault.New(fault.UnsafePath, "%q is not a directory", dir)
		}
		own := dir == filepath.Dir(path)
		why := ""
		switch {
		case i.UID != 0 && i.UID != me && !ownerOf(fsys, program, i.UID):
			why = fmt.Sprintf("belongs to user %d", i.UID)
		case i.Mode&fs.ModeSticky != 0 && !own:
			// Others can make files here, but not replace what belongs to us.
		case i.Mode&0o002 != 0:
			why = "can be written by everybody"
		case i.Mode&0o020 != 0 && i.GID != 0 && i.GID != group:
			why = fmt.Sprintf("can be written by group %d", i.GID)
		}
		if why != "" {
			return fault.New(fault.UnsafePath, "others could replace %q", path).
				Line("the directory %q (%v) %s", dir, i.Mode, why).
				Do("chmod go-w %s, or give it to the agent's user", dir).
				Do("or set allow_insecure_dir for this app, and accept that they decide what runs")
		}
	}
	return nil
}

// ownerOf reports whether the program at path belongs to uid, who then decides what
// it is anyway.
func ownerOf(fsys FS, path string, uid int) bool {
	if path == "" {
		return false
	}
	i, err := fsys.Lstat(path)
	return err == nil && i.UID == uid
}

// checkRelease refuses what a manifest must not ask for.
func checkRelease(kind string, r Release) (Release, error) {
	if digest(r.SHA256).absent() || r.Length <= 0 {
		return r, fault.New(fault.Malformed, "an update without length or sha256")
	}
	switch {
	case kind == KindTree:
		r.Mode = 0 // what is in it has modes of its own
		return r, nil
	case kind == KindInstaller && r.Mode == 0o644:
		return r, nil
	}
	switch r.Mode {
	case 0:
		r.Mode = 0o755
	case 0o755, 0o555:
	default:
		return r, fault.New(fault.Policy, "a program cannot be installed with mode %v", r.Mode).Line("0755 and 0555 are allowed")
	}
	return r, nil
}

// locate returns what is replaced: the real file that the target's path leads to, or a
// tree's link. Neither need be there, but the directory it is in must.
func (t Target) locate(fsys FS) (string, error) {
	real, err := fsys.Resolve(t.Path)
	if err != nil || t.Kind != KindTree {
		return real, err
	}
	i, err := fsys.Lstat(real)
	if err == nil && !i.Mode.IsDir() {
		err = fault.New(fault.UnsafePath, "%q is not a directory", real).
			Line("the target of a tree is the directory that holds %q and %q", currentName, versionsDir)
	}
	return filepath.Join(real, currentName), err
}

// resolve is locate for whoever needs the directory.
func (t Target) resolve(fsys FS) (string, error) {
	target, err := t.locate(fsys)
	if errors.Is(err, fs.ErrNotExist) {
		dir := t.Path
		if t.Kind != KindTree {
			dir = filepath.Dir(t.Path)
		}
		return "", fault.New(fault.ApplyFailed, "the directory of %q is not there", t.Path).Do("make it: mkdir -p %s", dir)
	}
	return target, err
}
