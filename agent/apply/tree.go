package apply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"shoal/internal/archive"
	"shoal/internal/fault"
)

const (
	versionsDir  = "versions"
	completeFile = archive.Reserved
	maxComplete  = 4 << 10
	maxLabel     = 64 // of a version in a directory's name
	blockBytes   = 4 << 10
	treeSchema   = 1
)

// tree is a directory of versions and a link to one of them:
//
//	current                    -> versions/2.4.1-9f2c31ab; this is the target
//	versions/2.4.1-9f2c31ab/   what was unpacked, and .complete
//	.current.shoal-TX.new      the next link, until it is renamed over current
//	.current.shoal-prev-N      the links that were replaced
//
// A version gets its name only once it is complete and durable, so all that can ever be
// half done is a directory whose name begins with ".shoal-". The links are to a tree
// what the file and its second names are to a binary; a version that none of them
// leads to is removed.
type tree struct {
	place
	fresh string // the version that this process has unpacked, if it has
}

func newTree(fsys FS, target string) *tree {
	t := &tree{place: place{fs: fsys, names: names{target}}}
	t.at = t.read
	return t
}

// complete is the last file that is written into a version.
type complete struct {
	Schema  int    `json:"schema"`
	SHA256  digest `json:"sha256"` // of the archive
	Length  int64  `json:"length"` // of the archive
	Tree    digest `json:"tree"`   // of what was unpacked; see listing
	Version string `json:"version"`
}

func (t *tree) through(func(at) at) {} // it reads a link and a note

func (t *tree) versions() string { return filepath.Join(t.dir(), versionsDir) }

// version returns the directory that a link saying to leads to, if it is one of ours.
func (t *tree) version(to string) (dir string, ok bool) {
	name, ok := strings.CutPrefix(filepath.ToSlash(to), versionsDir+"/")
	if !ok || name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, `/\`) {
		return "", false
	}
	return filepath.Join(t.versions(), name), true
}

// read tells which artifact the link at path leads to. The hash of a link that somebody
// else made is one of what it says: no artifact's, and enough to put it back.
func (t *tree) read(path string) (digest, int64, error) {
	to, err := t.link(path)
	if err != nil || to == "" {
		return digest{}, 0, err
	}
	if dir, ok := t.version(to); ok {
		c, err := t.complete(dir)
		if err != nil {
			return digest{}, 0, err
		}
		if c != nil {
			return c.SHA256, c.Length, nil
		}
	}
	return sha256.Sum256([]byte("a link to\n" + to)), 0, nil
}

// link returns what the link at path says, nothing when there is none.
func (t *tree) link(path string) (string, error) {
	i, err := t.fs.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if i.Mode.Type() != linkType {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: errNotLink}
	}
	return t.fs.Readlink(path)
}

// complete reads the note in a version, nil when there is none that can be believed.
func (t *tree) complete(dir string) (*complete, error) {
	b, err := readFile(t.fs, filepath.Join(dir, completeFile), maxComplete)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooLong) || notOurs(err) || notDir(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := new(complete)
	if json.Unmarshal(b, c) != nil || c.Schema != treeSchema || c.SHA256.absent() || c.Tree.absent() || c.Length <= 0 {
		return nil, nil
	}
	return c, nil
}

func (t *tree) stage(ctx context.Context, j *journal, src io.ReaderAt, kept string) error {
	if kept != "" {
		to, err := t.link(kept)
		if err != nil {
			return err
		}
		return t.fs.Symlink(to, j.Staged)
	}
	// Read once before anything is written: what is not safe or does not fit costs nothing.
	sum, err := archive.Walk(reading(ctx, src, j.ToRelease.Length), func(archive.Entry, io.Reader) error { return nil })
	if err != nil {
		return err
	}
	if err := t.room(sum.Bytes+int64(sum.Entries)*blockBytes, int64(sum.Entries)); err != nil {
		return err
	}
	if err := t.makeVersions(); err != nil {
		return err
	}
	making := filepath.Join(t.versions(), ".shoal-"+j.Tx+".new")
	if err := t.unpack(ctx, j, src, making); err != nil {
		return err
	}
	name, err := t.freeName(j)
	if err != nil {
		return err
	}
	t.fresh = filepath.Join(t.versions(), name)
	if err := t.fs.Rename(making, t.fresh); err != nil {
		return err
	}
	if err := t.fs.SyncDir(t.versions()); err != nil {
		return err
	}
	return t.fs.Symlink(filepath.Join(versionsDir, name), j.Staged)
}

func (t *tree) makeVersions() error {
	i, err := t.fs.Lstat(t.versions())
	if errors.Is(err, fs.ErrNotExist) {
		if err = t.fs.Mkdir(t.versions()); err == nil {
			err = t.fs.SyncDir(t.dir())
		}
		return err
	}
	if err == nil && !i.Mode.IsDir() {
		err = fault.New(fault.UnsafePath, "%q is not a directory", t.versions()).Do("move it away, or choose another directory as the target")
	}
	return err
}

// freeName names the version in j: its label and the beginning of its hash, for people.
func (t *tree) freeName(j *journal) (string, error) {
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_+.", r) {
			return r
		}
		return '_'
	}, j.ToRelease.Version)
	label = strings.TrimLeft(label[:min(len(label), maxLabel)], ".")
	base := fmt.Sprintf("%s-%.8s", cmp.Or(label, "0"), j.To)
	for n := 1; ; n++ {
		name := base
		if n > 1 { // an earlier copy may have been changed since: it is not built upon
			name = fmt.Sprintf("%s-%d", base, n)
		}
		_, err := t.fs.Lstat(filepath.Join(t.versions(), name))
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
	}
}

// unpack makes the directory dir from the archive in src, durable but for its name.
func (t *tree) unpack(ctx context.Context, j *journal, src io.ReaderAt, dir string) (err error) {
	out, err := t.fs.MakeTree(dir)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	whole := sha256.New()
	in := io.TeeReader(reading(ctx, src, j.ToRelease.Length), whole)
	var made listing
	_, err = archive.Walk(in, func(e archive.Entry, r io.Reader) error {
		var content digest
		var err error
		switch e.Type {
		case archive.Dir:
			err = out.Mkdir(e.Name, e.Mode)
		case archive.Symlink:
			err = out.Symlink(e.Link, e.Name)
		case archive.Hardlink:
			err = out.Link(e.Link, e.Name)
		default:
			content, err = unpackFile(out, e, r)
		}
		made.add(e, content)
		return err
	})
	if err == nil {
		err = copyAll(io.Discard, in) // what may come after the archive's end was signed too
	}
	if err != nil {
		return err
	}
	if got := digest(whole.Sum(nil)); got != j.To {
		return fault.New(fault.ContentMismatch, "the downloaded file is not the signed one").
			Line("expected sha256 %s, unpacked %s", j.To, got)
	}
	b, err := json.Marshal(complete{
		Schema: treeSchema, SHA256: j.To, Length: j.ToRelease.Length, Tree: made.sum(), Version: j.ToRelease.Version,
	})
	if err != nil {
		return err
	}
	if _, err := unpackFile(out, archive.Entry{Name: completeFile, Mode: 0o644}, strings.NewReader(string(b)+"\n")); err != nil {
		return err
	}
	return out.Sync()
}

func unpackFile(out Tree, e archive.Entry, r io.Reader) (digest, error) {
	f, err := out.Create(e.Name, e.Mode)
	if err != nil {
		return digest{}, err
	}
	h := sha256.New()
	err = copyAll(io.MultiWriter(f, h), r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return digest(h.Sum(nil)), err
}

func (t *tree) backup(j *journal) error {
	if !j.From.absent() {
		to, err := t.link(t.target)
		if err == nil && to == "" {
			err = errTargetChanged
		}
		if err == nil {
			err = t.fs.Symlink(to, j.Backup)
		}
		if err != nil {
			return err
		}
	}
	return t.fs.SyncDir(t.dir()) // also for the staged link
}

// verify reads again what this process has unpacked. A previous version may have been
// written to while it ran; it comes back as it was left.
func (t *tree) verify(j *journal) error {
	to, err := t.link(j.Staged)
	if err != nil {
		return err
	}
	dir, ours := t.version(to)
	if t.fresh != "" {
		var c *complete
		if ours && dir == t.fresh {
			if c, err = t.complete(dir); err != nil {
				return err
			}
		}
		if c == nil || c.SHA256 != j.To {
			return fault.New(fault.ContentMismatch, "the staged version %q was replaced", t.fresh)
		}
		got, err := t.list(dir)
		if err != nil {
			return err
		}
		if got != c.Tree {
			return fault.New(fault.ContentMismatch, "the staged version %q was changed after it was unpacked", dir).
				Line("expected the tree %s, found %s", c.Tree, got)
		}
	}
	if d, _, err := t.at(j.Staged); err != nil || d != j.To {
		return cmp.Or(err, error(fault.New(fault.ContentMismatch, "the staged link %q leads somewhere else", j.Staged)))
	}
	t.stagedID, err = t.id(j.Staged)
	return err
}

func (t *tree) swap(_ context.Context, j *journal) error {
	staged, err := t.id(j.Staged)
	if err == nil && (staged == [2]uint64{} || staged != t.stagedID) {
		err = fault.New(fault.ContentMismatch, "the staged link %q was replaced after it was checked", j.Staged)
	}
	if err != nil {
		return err
	}
	if now, err := t.id(t.target); err != nil || now != t.oldID {
		return cmp.Or(err, errTargetChanged)
	}
	if err := t.fs.Rename(j.Staged, t.target); err != nil {
		return err
	}
	return t.fs.SyncDir(t.dir())
}

func (t *tree) swapped(j *journal) (bool, error) {
	_, err := t.fs.Lstat(j.Staged)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

func (t *tree) clean(j *journal, keepBackup bool) error {
	paths := []string{j.Staged}
	if !keepBackup && j.Backup != "" {
		paths = append(paths, j.Backup)
	}
	if err := t.remove(paths...); err != nil {
		return err
	}
	unused, err := t.unused()
	if err != nil {
		return err
	}
	return t.discard(unused)
}

func (t *tree) prune(keep int) error {
	if err := t.place.prune(keep); err != nil {
		return err
	}
	unused, err := t.unused()
	if err != nil {
		return err
	}
	return t.discard(unused)
}

// unused returns what in versions no link leads to: versions that are over, and what an
// interrupted transaction was making. What carries no note of ours is left alone.
func (t *tree) unused() ([]string, error) {
	list, err := t.fs.ReadDir(t.versions())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	links, err := t.kept(t.fs)
	if err != nil {
		return nil, err
	}
	for _, path := range append([]previous{{path: t.target}}, links...) {
		to, err := t.link(path.path)
		if err != nil && !notOurs(err) {
			return nil, nil // it cannot be told what is used: nothing goes
		}
		if dir, ok := t.version(to); ok {
			used[dir] = true
		}
	}
	var unused []string
	for _, name := range list {
		dir := filepath.Join(t.versions(), name)
		if strings.HasPrefix(name, ".shoal-") {
			unused = append(unused, dir)
			continue
		}
		if used[dir] || strings.HasPrefix(name, ".") {
			continue
		}
		if c, err := t.complete(dir); err == nil && c != nil {
			unused = append(unused, dir)
		}
	}
	return unused, nil
}

// discard removes directories. Each loses its name first, so that a version is never
// there in part.
func (t *tree) discard(dirs []string) error {
	for _, dir := range dirs {
		gone := dir
		if name := filepath.Base(dir); !strings.HasPrefix(name, ".shoal-") {
			gone = filepath.Join(t.versions(), ".shoal-"+name+".old")
			if err := t.fs.RemoveAll(gone); err != nil {
				return err
			}
			if err := t.fs.Rename(dir, gone); err != nil {
				return err
			}
		}
		if err := t.fs.RemoveAll(gone); err != nil {
			return err
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	return t.fs.SyncDir(t.versions())
}

func (t *tree) leftovers() ([]string, error) {
	links, err := t.litter(t.fs)
	if err != nil {
		return nil, err
	}
	unused, err := t.unused()
	return append(links, unused...), err
}

func (t *tree) sweep(leftovers []string) error {
	var links, dirs []string
	for _, path := range leftovers {
		if filepath.Dir(path) == t.versions() {
			dirs = append(dirs, path)
		} else {
			links = append(links, path)
		}
	}
	if err := t.remove(links...); err != nil {
		return err
	}
	return t.discard(dirs)
}
