package apply

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"shoal/internal/archive"
)

// listing is what a tree consists of, one line for each entry: what it is, its mode, the
// hash of its content or what the link says, and its name. The tree's hash is that of
// the sorted lines.
type listing struct {
	lines []string
	files map[string]file // those that were added, because hard links are as they are
}

type file struct {
	mode    fs.FileMode
	content digest
}

func (l *listing) add(e archive.Entry, content digest) {
	if l.files == nil {
		l.files = map[string]file{}
	}
	switch e.Type {
	case archive.Dir:
		l.line(fs.ModeDir|e.Mode, "", e.Name)
	case archive.Symlink:
		l.line(fs.ModeSymlink, filepath.FromSlash(e.Link), e.Name)
	case archive.Hardlink:
		f := l.files[e.Link]
		l.line(f.mode, f.content.String(), e.Name)
	default:
		l.files[e.Name] = file{e.Mode, content}
		l.line(e.Mode, content.String(), e.Name)
	}
}

func (l *listing) line(mode fs.FileMode, content, name string) {
	kind := "f"
	switch {
	case mode.IsDir():
		kind = "d"
	case mode&fs.ModeSymlink != 0:
		kind, mode = "l", 0 // its own mode means nothing
	}
	if runtime.GOOS == "windows" {
		mode = 0 // it has no such thing
	}
	l.lines = append(l.lines, fmt.Sprintf("%s %o %s\x00%s", kind, mode.Perm(), content, name))
}

func (l *listing) sum() digest {
	slices.Sort(l.lines)
	h := sha256.New()
	for _, line := range l.lines {
		fmt.Fprintf(h, "%s\n", line)
	}
	return digest(h.Sum(nil))
}

// list reads the version in dir and returns its hash.
func (t *tree) list(dir string) (digest, error) {
	in, err := t.fs.OpenTree(dir)
	if err != nil {
		return digest{}, err
	}
	defer in.Close()
	var l listing
	fsys := in.FS()
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "." || name == completeFile {
			return nil
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		mode, content := i.Mode(), ""
		switch mode.Type() {
		case fs.ModeDir:
		case 0:
			h := sha256.New()
			f, err := fsys.Open(name)
			if err != nil {
				return err
			}
			err = copyAll(h, struct{ fs.File }{f})
			f.Close()
			if err != nil {
				return err
			}
			content = digest(h.Sum(nil)).String()
			mode &= metaBits
			if mode != mode.Perm() {
				return fmt.Errorf("%q has become %v", name, i.Mode())
			}
		case fs.ModeSymlink:
			if content, err = fs.ReadLink(fsys, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%q has become %v", name, i.Mode())
		}
		l.line(mode, content, name)
		return nil
	})
	return l.sum(), err
}

// notDir reports whether err says that there is no directory where one was to be.
func notDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
