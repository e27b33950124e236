package apply

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// memFS is a file system in memory that knows what has been made durable, so that
// its power can be cut. It follows what is sure on ext4, xfs and btrfs: content and
// metadata of a file last from its Sync on, names in a directory from its SyncDir
// on. What was not synced may be there after a power cut, or not.
type memFS struct {
	mu      sync.Mutex
	nextIno uint64
	dirs    map[string]*memDir
	locks   map[string]bool
	noLinks bool // like FAT
	space   Space
	writes  int // changes made, to see that something did nothing
	wrapped FS  // what CommitBinary works through: this, or a faultFS around it
}

type memDir struct {
	mode           fs.FileMode
	uid, gid       int
	names, durable map[string]*memNode
}

type memNode struct {
	ino        uint64
	link       string // a symbolic link's
	content    []byte
	meta       Meta
	synced     []byte
	syncedMeta Meta
}

func newMemFS(dirs ...string) *memFS {
	m := &memFS{dirs: map[string]*memDir{}, locks: map[string]bool{}, space: Space{Bytes: 1 << 40}}
	m.wrapped = m
	for _, d := range append(dirs, "/") {
		m.dirs[d] = newMemDir()
	}
	return m
}

func newMemDir() *memDir {
	return &memDir{mode: fs.ModeDir | 0o755, names: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// put makes a durable file.
func (m *memFS) put(path, content string, meta Meta) {
	m.nextIno++
	n := &memNode{ino: m.nextIno, content: []byte(content), meta: meta, synced: []byte(content), syncedMeta: meta}
	d := m.dirs[filepath.Dir(path)]
	d.names[filepath.Base(path)], d.durable[filepath.Base(path)] = n, n
}

// symlink makes a durable symbolic link.
func (m *memFS) symlink(to, path string) {
	m.nextIno++
	n := &memNode{ino: m.nextIno, link: to}
	d := m.dirs[filepath.Dir(path)]
	d.names[filepath.Base(path)], d.durable[filepath.Base(path)] = n, n
}

// content returns what a reader would see at path.
func (m *memFS) content(path string) (content string, meta Meta, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.dirs[filepath.Dir(path)].names[filepath.Base(path)]
	if n == nil {
		return "", Meta{}, false
	}
	return string(n.content), n.meta, true
}

// list returns the names in dir, sorted, without lock files.
func (m *memFS) list(dir string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(m.dirs[dir].names)), func(n string) bool {
		return strings.HasSuffix(n, "lock")
	})
	return names
}

// powerCut says what survives of what was not synced.
type powerCut struct {
	name      string
	keepNames func(dir string) bool // whether the latest names of dir are on disk
	keepData  bool                  // whether the latest content of files is
	inPlace   bool                  // names that were there lead to the latest files; new and removed names are as they were
}

var powerCuts = []powerCut{
	{"kill", func(string) bool { return true }, true, false},
	{"nothing-unsynced-survives", func(string) bool { return false }, false, false},
	{"names-survive-but-not-contents", func(string) bool { return true }, false, false},
	{"replaced-names-survive-but-not-new-ones", func(string) bool { return false }, false, true},
	{"only-names-beside-the-target", func(d string) bool { return d == memTargetDir }, false, false},
	{"only-names-of-the-state", func(d string) bool { return d != memTargetDir }, false, false},
}

// cut returns the file system as it is found after the power was cut.
func (m *memFS) cut(p powerCut) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	after.noLinks, after.space, after.nextIno = m.noLinks, m.space, m.nextIno
	nodes := map[*memNode]*memNode{}
	for path, d := range m.dirs {
		names := d.durable
		if p.keepNames(path) {
			names = d.names
		}
		if p.inPlace {
			names = maps.Clone(names)
			for name := range names {
				if n := d.names[name]; n != nil {
					names[name] = n
				}
			}
		}
		nd := newMemDir()
		nd.mode = d.mode
		for name, n := range names {
			if nodes[n] == nil {
				c := *n
				if !p.keepData {
					// A file that was never synced is there with its name and no content.
					c.content, c.meta = bytes.Clone(n.synced), n.syncedMeta
				}
				c.content = bytes.Clone(c.content)
				c.synced, c.syncedMeta = bytes.Clone(c.content), c.meta
				nodes[n] = &c
			}
			nd.names[name], nd.durable[name] = nodes[n], nodes[n]
		}
		after.dirs[path] = nd
	}
	return after
}

func pathErr(op, path string, err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }

// at returns the directory of path and what is there.
func (m *memFS) at(op, path string) (*memDir, string, *memNode, error) {
	d := m.dirs[filepath.Dir(path)]
	if d == nil {
		return nil, "", nil, pathErr(op, path, syscall.ENOENT)
	}
	base := filepath.Base(path)
	return d, base, d.names[base], nil
}

func (m *memFS) Resolve(path string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		_, _, n, err := m.at("resolve", path)
		if err != nil || n == nil || n.link == "" {
			return path, err
		}
		path = n.link
	}
}

func (m *memFS) Readlink(path string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.at("readlink", path)
	if err == nil && (n == nil || n.link == "") {
		err = pathErr("readlink", path, syscall.EINVAL)
	}
	if err != nil {
		return "", err
	}
	return n.link, nil
}

func (m *memFS) Lstat(path string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.dirs[path]; d != nil {
		return Info{Mode: d.mode, UID: d.uid, GID: d.gid}, nil
	}
	_, _, n, err := m.at("lstat", path)
	if err == nil && n == nil {
		err = pathErr("lstat", path, syscall.ENOENT)
	}
	if err != nil {
		return Info{}, err
	}
	return n.info(), nil
}

func (n *memNode) info() Info {
	i := Info{Mode: n.meta.Mode, Size: int64(len(n.content)), UID: n.meta.UID, GID: n.meta.GID, ID: [2]uint64{1, n.ino}}
	if n.link != "" {
		i.Mode |= fs.ModeSymlink
	}
	return i
}

func (m *memFS) ReadDir(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[dir]
	if d == nil {
		return nil, pathErr("open", dir, syscall.ENOENT)
	}
	names := slices.Collect(maps.Keys(d.names))
	for other := range m.dirs {
		if filepath.Dir(other) == dir {
			names = append(names, filepath.Base(other))
		}
	}
	return names, nil
}

func (m *memFS) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	for ; m.dirs[dir] == nil; dir = filepath.Dir(dir) {
		m.dirs[dir] = newMemDir()
	}
	return nil
}

func (m *memFS) Open(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.at("open", path)
	switch {
	case m.dirs[path] != nil:
		return nil, pathErr("open", path, errNotRegular)
	case err != nil:
		return nil, err
	case n == nil:
		return nil, pathErr("open", path, syscall.ENOENT)
	case n.link != "":
		return nil, pathErr("open", path, errNotRegular)
	}
	return &memFile{m, n}, nil
}

func (m *memFS) Create(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n, err := m.at("open", path)
	if err == nil && n != nil {
		err = pathErr("open", path, syscall.EEXIST)
	}
	if err != nil {
		return nil, err
	}
	m.nextIno++
	m.writes++
	n = &memNode{ino: m.nextIno, meta: Meta{Mode: 0o600}}
	d.names[base] = n
	return &memFile{m, n}, nil
}

func (m *memFS) Link(name, second string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noLinks {
		return pathErr("link", second, syscall.EPERM)
	}
	_, _, n, err := m.at("link", name)
	if err == nil && n == nil {
		err = pathErr("link", name, syscall.ENOENT)
	}
	if err != nil {
		return err
	}
	d, base, there, err := m.at("link", second)
	if err == nil && there != nil {
		err = pathErr("link", second, syscall.EEXIST)
	}
	if err != nil {
		return err
	}
	m.writes++
	d.names[base] = n
	return nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fd, fbase, n, err := m.at("rename", from)
	if err == nil && n == nil {
		err = pathErr("rename", from, syscall.ENOENT)
	}
	if err != nil {
		return err
	}
	td, tbase, there, err := m.at("rename", to)
	if err != nil {
		return err
	}
	if there == n {
		return nil // two names of one file: both stay
	}
	m.writes++
	delete(fd.names, fbase)
	td.names[tbase] = n
	return nil
}

func (m *memFS) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n, err := m.at("remove", path)
	if err == nil && n == nil {
		err = pathErr("remove", path, syscall.ENOENT)
	}
	if err != nil {
		return err
	}
	m.writes++
	delete(d.names, base)
	return nil
}

// Trees are tried on real file systems: what is new about them is there.
func (m *memFS) Symlink(string, string) error  { return errors.ErrUnsupported }
func (m *memFS) Mkdir(string) error            { return errors.ErrUnsupported }
func (m *memFS) MakeTree(string) (Tree, error) { return nil, errors.ErrUnsupported }
func (m *memFS) OpenTree(string) (Tree, error) { return nil, errors.ErrUnsupported }
func (m *memFS) RemoveAll(string) error        { return errors.ErrUnsupported }

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[dir]
	if d == nil {
		return pathErr("open", dir, syscall.ENOENT)
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (m *memFS) Lock(path string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n, err := m.at("open", path)
	if err != nil {
		return nil, err
	}
	if n == nil {
		m.nextIno++
		d.names[base] = &memNode{ino: m.nextIno}
	}
	if m.locks[path] {
		return nil, errLocked
	}
	m.locks[path] = true
	return closerFunc(func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.locks, path)
		return nil
	}), nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func (m *memFS) Space(string) (Space, error) { return m.space, nil }

// CommitBinary does what minio/selfupdate v0.6.0 does, call by call, so that it can
// be stopped between any two. TestCommitBinaryModel holds it against the real one.
func (m *memFS) CommitBinary(target, old string) error {
	return commitBinaryModel(m.wrapped, target, old)
}

func commitBinaryModel(fsys FS, target, old string) error {
	offered := names{target}.selfupdate()
	_ = fsys.Remove(old)
	if err := fsys.Rename(target, old); err != nil {
		return err
	}
	err := fsys.Rename(offered, target)
	if err == nil {
		return nil
	}
	return errors.Join(err, fsys.Rename(old, target))
}

// memFile is an open file of a memFS.
type memFile struct {
	m *memFS
	n *memNode
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return bytes.NewReader(f.n.content).ReadAt(p, off)
}

func (f *memFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.writes++
	f.n.content = append(f.n.content, p...)
	return len(p), nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Stat() (Info, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.n.info(), nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.synced, f.n.syncedMeta = bytes.Clone(f.n.content), f.n.meta
	return nil
}

func (f *memFile) Meta() (Meta, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.n.meta, nil
}

func (f *memFile) SetMeta(m Meta) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.writes++
	f.n.meta = m
	return nil
}

var _ FS = (*memFS)(nil)

func TestPowerCutForgetsWhatWasNotSynced(t *testing.T) {
	m := newMemFS("/d")
	f, err := m.Create("/d/a")
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("synced"))
	f.Sync()
	m.SyncDir("/d")
	f.Write([]byte(" and not"))
	m.Rename("/d/a", "/d/b")
	for _, p := range powerCuts {
		after := m.cut(p)
		name, want := "/d/b", "synced and not"
		if !p.keepNames("/d") {
			name = "/d/a"
		}
		if !p.keepData {
			want = "synced"
		}
		if got, _, ok := after.content(name); !ok || got != want || len(after.list("/d")) != 1 {
			t.Errorf("%s: %q %v in %v, want %q in %s", p.name, got, ok, after.list("/d"), want, name)
		}
	}
}
