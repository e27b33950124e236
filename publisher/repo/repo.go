// Package repo keeps a publisher's releases on disk as a tree of static files.
//
// Whoever reads the tree at any instant, after a crash too, finds each channel's old
// release whole or its new one: everything a manifest names is on the disk before the
// manifest is, and every file gets its name when it is complete. One process writes at
// a time; readers need no lock.
//
//	STORE/tree/      what is served: see package tree for its names
//	STORE/history/   a copy of every manifest ever published, for people
//	STORE/tmp/       files in the making; emptied by the next writer
//	STORE/lock       held while publishing
package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

const (
	treeDir    = "tree"
	historyDir = "history"
	tmpDir     = "tmp"
	lockFile   = "lock"

	maxRoots = 1024 // as many as an agent follows in one cycle
)

// Repo is a repository on disk.
type Repo struct{ dir string }

// Create makes a repository whose fleet starts with the root envelope rootV1. The
// directory may exist; a repository in it is never overwritten.
func Create(dir string, rootV1 []byte) (*Repo, error) {
	r := &Repo{dir: dir}
	for _, d := range []string{treeDir + "/root", tmpDir} {
		if err := mkdirAll(filepath.Join(dir, d)); err != nil {
			return nil, failure("making the repository", err)
		}
	}
	if err := durable.WriteNew(r.path(tree.Root(1)), rootV1, 0o644); err != nil {
		return nil, failure("writing the first root", err)
	}
	return r, nil
}

// Open returns the repository in dir.
func Open(dir string) (*Repo, error) {
	r := &Repo{dir: dir}
	if _, err := os.Stat(r.path(tree.Root(1))); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "there is no repository in %q", dir).
				Line("Its first root, %s, is not there.", filepath.Join(treeDir, filepath.FromSlash(tree.Root(1)))).
				Do("make one: shoal init --app APP --channel CHANNEL").
				Do("or say where it is: store in publisher.yaml, or --config FILE")
		}
		return nil, failure("opening the repository", err)
	}
	return r, nil
}

// Tree is the directory of static files.
func (r *Repo) Tree() string { return TreeDir(r.dir) }

// TreeDir is the directory of static files of a repository in dir.
func TreeDir(dir string) string { return filepath.Join(dir, treeDir) }

// path is where a file of the tree is on the disk.
func (r *Repo) path(name string) string {
	return filepath.Join(r.dir, treeDir, filepath.FromSlash(name))
}

// read returns the file name of the tree, at most limit bytes of it.
func (r *Repo) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(r.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.TooLarge, "%q in the repository is larger than %d bytes", name, limit)
	}
	return b, nil
}

// State is what a repository holds, every document of it verified.
type State struct {
	Trust    *manifest.Trust
	Channels []Channel // in root's order
}

// Channel is one channel of a repository.
type Channel struct {
	Name     manifest.Channel
	Spec     *manifest.ChannelSpec // of the newest root
	Held     *manifest.Verified    // the manifest that root's keys stand for today, or nil
	Envelope []byte                // Held as stored, or nil
	Latest   *manifest.Manifest    // the newest one that root's keys of its day stood for, or nil
	Last     manifest.Order        // the highest order ever published; zero: none
	LastHash manifest.Digest       // payload of the manifest there
	Stored   []byte                // the envelope of Latest, or nil
	Err      error                 // why a manifest that is there cannot be believed, or nil
}

// Channel returns what the state says of ch.
func (s *State) Channel(ch manifest.Channel) (*Channel, error) {
	for i := range s.Channels {
		if s.Channels[i].Name == ch {
			return &s.Channels[i], nil
		}
	}
	return nil, fault.New(fault.ChannelGone, "root version %d has no channel %s", s.Trust.RootVersion(), ch)
}

// Read reads the repository and verifies every root and manifest in it. Expiry is not
// held against them: what ran out yesterday is still what was published last. A
// manifest that does not verify is an error of its channel alone.
func (r *Repo) Read() (*State, error) {
	return ReadTree(r.read, nil, "the repository")
}

// Reader returns the file name of a tree, at most limit bytes of it. A file that is not
// there matches fs.ErrNotExist.
type Reader func(name string, limit int64) ([]byte, error)

// ReadTree is [Repo.Read] for a tree that is anywhere; where says so in messages. pin is
// the fleet id; nil takes the tree's first root at its word.
func ReadTree(read Reader, pin *manifest.Digest, where string) (*State, error) {
	first, err := read(tree.Root(1), manifest.MaxRoot)
	if err != nil {
		return nil, failure("reading the first root", err)
	}
	env, err := manifest.ParseEnvelope(first, manifest.TypeRoot)
	if err != nil {
		return nil, broken(where, tree.Root(1), err)
	}
	if pin == nil {
		own := env.PayloadHash()
		pin = &own
	}
	// With a clock that never was, time is what the documents themselves say.
	opts := manifest.Options{Clock: func() time.Time { return time.Unix(0, 0) }, AllowExpired: true}
	t, _, err := manifest.Pin(first, *pin, opts)
	if errors.Is(err, fault.PinMismatch) {
		return nil, err
	}
	if err != nil {
		return nil, broken(where, tree.Root(1), err)
	}
	in := reading{read: read, where: where, taken: map[manifest.Channel]*taken{}, errs: map[manifest.Channel]error{}}
	for version := int64(1); ; version++ {
		// A manifest counts by the root of its day: when a key was replaced since, what it
		// signed is no longer given to anyone, and yet the next sequence must be above it.
		in.offer(t)
		next, err := read(tree.Root(version+1), manifest.MaxRoot)
		if errors.Is(err, fs.ErrNotExist) || version == maxRoots {
			break
		}
		if err != nil {
			return nil, failure("reading a root", err)
		}
		if _, err := t.UpdateRoot(next); err != nil {
			return nil, broken(where, tree.Root(version+1), err)
		}
	}
	return in.state(t), nil
}

// reading is what is known of the stored manifests while the roots are walked.
type reading struct {
	read  Reader
	where string
	taken map[manifest.Channel]*taken
	errs  map[manifest.Channel]error
}

type taken struct {
	verified *manifest.Verified
	envelope []byte
}

// offer shows t every stored manifest of its root's channels that it has not taken yet.
func (in reading) offer(t *manifest.Trust) {
	cycle, err := t.Begin()
	for _, spec := range t.Root().Channels {
		ch := spec.Name()
		if in.taken[ch] != nil {
			continue
		}
		if err != nil {
			in.errs[ch] = err
			continue
		}
		env, rerr := in.read(tree.Manifest(ch), manifest.MaxManifest)
		if errors.Is(rerr, fs.ErrNotExist) {
			continue
		}
		var v *manifest.Verified
		if rerr == nil {
			v, _, rerr = cycle.Manifest(ch, env)
		}
		if rerr != nil {
			in.errs[ch] = broken(in.where, tree.Manifest(ch), rerr)
			continue
		}
		in.taken[ch] = &taken{v, env}
		delete(in.errs, ch)
	}
}

func (in reading) state(t *manifest.Trust) *State {
	s := &State{Trust: t}
	orders := t.Snapshot().State.Channels
	root := t.Root()
	for i := range root.Channels {
		spec := &root.Channels[i]
		c := Channel{Name: spec.Name(), Spec: spec, Err: in.errs[spec.Name()]}
		if o, ok := orders[c.Name]; ok {
			c.Last, c.LastHash = o.Order(), o.ManifestSHA256
		}
		if got := in.taken[c.Name]; got != nil {
			c.Latest, c.Stored = got.verified.Manifest, got.envelope
			if v, ok := t.Held(c.Name); ok {
				c.Held, c.Envelope = v, got.envelope
			}
		}
		s.Channels = append(s.Channels, c)
	}
	return s
}

// Root returns the newest root, verified.
func (r *Repo) Root() (*manifest.Root, error) {
	s, err := r.Read()
	if err != nil {
		return nil, err
	}
	return s.Trust.Root(), nil
}

// Stamp changes whenever a document of the tree does. It is cheap: nothing is opened.
func (r *Repo) Stamp() (string, error) {
	var stamp []byte
	for _, dir := range []string{"root", "m", "b"} {
		err := filepath.WalkDir(filepath.Join(r.Tree(), dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreGone(err)
			}
			fi, err := d.Info()
			if err != nil {
				return ignoreGone(err)
			}
			stamp = fmt.Appendf(stamp, "%s %d %d\n", path, fi.Size(), fi.ModTime().UnixNano())
			return nil
		})
		if err != nil {
			return "", failure("looking at the repository", err)
		}
	}
	return string(stamp), nil
}

// ignoreGone is for a file that another process replaced while we looked.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// broken says that a document of the tree that is kept in where cannot be believed.
func broken(where, name string, err error) error {
	return fault.New(fault.CodeOf(err), "%s's own %s is not good: %w", where, name, err).
		Line("Somebody or something changed it. Nothing was changed now.").
		Do("put the tree back from a mirror or a backup").Fact("file", name)
}

// failure gives an error of the operating system the code a person can act on.
func failure(doing string, err error) error {
	var coded *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.NoSpace, "%s: %w", doing, err).Line("Nothing was published; what was published before is whole.")
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Permission, "%s: %w", doing, err)
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "%s: %w", doing, err)
	}
	return fault.New(fault.IO, "%s: %w", doing, err)
}

// StoredBeacon returns the envelope of ch's beacon. Where there is none the error matches
// fs.ErrNotExist.
func (r *Repo) StoredBeacon(ch manifest.Channel) ([]byte, error) {
	return r.read(tree.Beacon(ch), manifest.MaxBeacon)
}

// PutBeacon makes env the beacon of ch. It takes no lock: who holds the beacon's key is
// alone in writing it, and publishing goes on meanwhile.
func (r *Repo) PutBeacon(ch manifest.Channel, env []byte) error {
	const doing = "storing a beacon"
	path := r.path(tree.Beacon(ch))
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return failure(doing, err)
	}
	// Nothing but whole files is ever in the tree, and what is in tmp is a publish's.
	next := filepath.Join(r.dir, "beacon-"+ch.App+"-"+ch.Name)
	if err := durable.WriteFile(next, env, 0o644); err != nil {
		return failure(doing, err)
	}
	return failure(doing, durable.Rename(next, path))
}

// FleetID returns the hash of the first root's payload, which is the fleet's name in
// every document.
func (r *Repo) FleetID() (manifest.FleetID, error) {
	b, err := r.read(tree.Root(1), manifest.MaxRoot)
	if err != nil {
		return manifest.FleetID{}, failure("reading the first root", err)
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeRoot)
	if err != nil {
		return manifest.FleetID{}, broken("the repository", tree.Root(1), err)
	}
	return manifest.FleetID(env.PayloadHash()), nil
}
