package ceremony

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/witness"
)

// Source says where a fleet's roots and last releases are to be learnt. The first of
// Roots, Tree and Store that is set is used.
type Source struct {
	// Roots are files with root envelopes, in any order. Without the first one the
	// lowest is taken at the word of who names it.
	Roots []string
	// Previous are files with manifest envelopes: what the channels released last. They
	// go with Roots.
	Previous []string
	// Tree is a copy of a repository's tree, a directory or a base URL.
	Tree string
	// Store is a publisher's repository, and Places are where else it is served.
	Store  string
	Places []string
	// Transport reaches those that are web servers, and Tree; nil trusts what the system
	// trusts.
	Transport http.RoundTripper
	// Pin is the fleet id that must be found; nil takes any.
	Pin *manifest.Digest
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
}

// Fleet is what is known of a fleet, all of it verified.
type Fleet struct {
	ID    manifest.Digest
	Root  *manifest.Root  // the newest
	Hash  manifest.Digest // of the newest root's payload
	state *repo.State

	now    time.Time
	where  string       // for people
	writer *repo.Writer // the repository's lock, where there is one
	repo   *repo.Repo
	places []string
	via    http.RoundTripper
	// given are the channels whose last release is known where no tree says it; nil
	// where a tree does.
	given map[manifest.Channel]bool
}

// Open reads and verifies the fleet. A repository is locked until Close when lock is
// set, so that two people cannot give one number to two releases.
func (s Source) Open(ctx context.Context, lock bool) (_ *Fleet, err error) {
	f := &Fleet{now: s.time(), places: s.Places, via: s.Transport}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	switch {
	case len(s.Roots) > 0:
		f.where = "the root files"
		err = f.fromFiles(s)
	case s.Tree != "":
		f.where = s.Tree
		err = f.fromTree(ctx, s)
	case s.Store != "":
		f.where = s.Store
		err = f.fromStore(ctx, s, lock)
	default:
		err = fault.New(fault.Usage, "which fleet is it?").
			Line("There is no repository here, and no root was named.").
			Do("name its roots: --root FILE, and what was released last: --previous FILE").
			Do("or a copy of its tree: --tree DIR")
	}
	if err != nil {
		return nil, err
	}
	f.Root, f.ID = f.state.Trust.Root(), f.state.Trust.Repo()
	roots := f.state.Trust.Snapshot().Roots
	f.Hash, err = rootHash(roots[len(roots)-1])
	if err == nil && s.Pin != nil && *s.Pin != f.ID {
		err = fault.New(fault.PinMismatch, "%s is of another fleet", f.where).
			Line("Wanted %s, found %s.", s.Pin.Prefixed(), f.ID.Prefixed()).
			Fact("want", s.Pin.Prefixed()).Fact("found", f.ID.Prefixed())
	}
	return f, err
}

// OpenFrom is Open for the fleet whose newest root is in the files roots. Where the
// repository of s is of that fleet it is used instead, since it knows the releases too;
// when it has a newer root than was named, the code is root_behind.
func (s Source) OpenFrom(ctx context.Context, roots []string, lock bool) (*Fleet, error) {
	named, err := Source{Roots: roots, Pin: s.Pin, Clock: s.Clock}.Open(ctx, false)
	if err != nil || s.Store == "" {
		return named, err
	}
	f, err := s.Open(ctx, lock)
	switch {
	case errors.Is(err, fault.Locked):
		return nil, err
	case err != nil || f.ID != named.ID || f.Root.Version < named.Root.Version:
		f.Close()
		return named, nil
	}
	if err := f.Includes(named); err != nil {
		f.Close()
		return nil, err
	}
	if f.Root.Version > named.Root.Version {
		f.Close()
		return nil, fault.New(fault.RootBehind, "root %d is not the newest: %s has root %d", named.Root.Version, s.Store, f.Root.Version).
			Line("A root follows the newest one, or no machine takes it.").
			Do("name the newest root").Fact("want", f.Root.Version).Fact("found", named.Root.Version)
	}
	return f, nil
}

func (s Source) time() time.Time {
	if s.Clock == nil {
		return time.Now().UTC().Truncate(time.Second)
	}
	return s.Clock().UTC().Truncate(time.Second)
}

// Close gives the repository's lock back. It may be called on a nil Fleet, and twice.
func (f *Fleet) Close() {
	if f != nil && f.writer != nil {
		f.writer.Close()
		f.writer = nil
	}
}

func (f *Fleet) fromStore(ctx context.Context, s Source, lock bool) (err error) {
	if f.repo, err = repo.Open(s.Store); err != nil {
		var e *fault.Error
		if errors.As(err, &e) && e.Code == fault.NotFound {
			e.Do("or name roots and last release: --root FILE --previous FILE, or a copy of the tree: --tree DIR")
		}
		return err
	}
	if lock {
		if f.writer, err = f.repo.Lock(ctx, nil); err != nil {
			return err
		}
	}
	f.state, err = f.repo.Read()
	return err
}

func (f *Fleet) fromTree(ctx context.Context, s Source) error {
	read, err := witness.Open(ctx, s.Transport, s.Tree)
	if err != nil {
		return err
	}
	f.state, err = repo.ReadTree(read, s.Pin, s.Tree)
	return err
}

// fromFiles reads files as the tree they would be.
func (f *Fleet) fromFiles(s Source) error {
	type root struct {
		version int64
		env     []byte
	}
	var roots []root
	files := map[string][]byte{}
	for _, path := range s.Roots {
		env, err := readFile(path, manifest.MaxRoot)
		if err != nil {
			return err
		}
		r, _, err := parseRootFile(path, env)
		if err != nil {
			return err
		}
		name := tree.Root(r.Version)
		if files[name] != nil {
			return fault.New(fault.Usage, "%q is another root %d", path, r.Version).Do("name each version once")
		}
		files[name] = env
		roots = append(roots, root{r.Version, env})
	}
	slices.SortFunc(roots, func(a, b root) int { return cmp.Compare(a.version, b.version) })
	f.given = map[manifest.Channel]bool{}
	manifests := map[manifest.Channel][]byte{}
	for _, path := range s.Previous {
		env, err := readFile(path, manifest.MaxManifest)
		if err != nil {
			return err
		}
		d, err := parseManifestFile(path, env)
		if err != nil {
			return err
		}
		if d.Envelope == nil {
			return fault.New(fault.Usage, "%q is a draft, not what was released last", path).Do("--previous takes a signed envelope")
		}
		ch := d.Manifest.Name()
		f.given[ch], manifests[ch], files[tree.Manifest(ch)] = true, env, env
	}
	for i := range roots[1:] {
		if roots[i+1].version != roots[i].version+1 {
			return fault.New(fault.Usage, "root %d is missing between those that were named", roots[i].version+1).Do("--root FILE for each version")
		}
	}
	var err error
	if roots[0].version == 1 {
		f.state, err = repo.ReadTree(func(name string, _ int64) ([]byte, error) {
			if b := files[name]; b != nil {
				return b, nil
			}
			return nil, fs.ErrNotExist
		}, nil, "what was named")
	} else {
		var envs [][]byte
		for _, r := range roots {
			envs = append(envs, r.env)
		}
		f.state, err = stateOf(envs, manifests)
	}
	if err != nil {
		return err
	}
	for ch := range f.given {
		c, err := f.state.Channel(ch)
		if err == nil {
			err = c.Err
		}
		if err == nil && c.Latest == nil {
			err = fault.New(fault.RootBehind, "the roots that were named say nothing of the %s that was", ch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stateOf is repo.ReadTree for a chain that begins later than at the first root.
func stateOf(roots [][]byte, manifests map[manifest.Channel][]byte) (*repo.State, error) {
	// With a clock that never was, time is what the documents themselves say.
	t, err := manifest.FromRoot(roots[0], manifest.Options{Clock: func() time.Time { return time.Unix(0, 0) }, AllowExpired: true})
	if err != nil {
		return nil, err
	}
	for _, env := range roots[1:] {
		if _, err := t.UpdateRoot(env); err != nil {
			return nil, err
		}
	}
	s := &repo.State{Trust: t}
	cycle, err := t.Begin()
	if err != nil {
		return nil, err
	}
	root := t.Root()
	for i := range root.Channels {
		c := repo.Channel{Name: root.Channels[i].Name(), Spec: &root.Channels[i]}
		if env := manifests[c.Name]; env != nil {
			v, _, err := cycle.Manifest(c.Name, env)
			if c.Err = err; err == nil {
				c.Held, c.Latest, c.Envelope, c.Stored = v, v.Manifest, env, env
				c.Last, c.LastHash = v.Manifest.Order(), v.Hash
			}
		}
		s.Channels = append(s.Channels, c)
	}
	return s, nil
}

// channel is what is known of ch and what it released last.
func (f *Fleet) channel(ch manifest.Channel) (*repo.Channel, error) {
	c, err := f.state.Channel(ch)
	if err == nil {
		err = c.Err
	}
	return c, err
}

// readFile reads a small file that somebody else may have written; "-" is not special.
func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "there is no file %q", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.New(fault.Permission, "cannot read %q: %w", path, err)
	case err != nil:
		return nil, fault.New(fault.IO, "reading %q: %w", path, err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, fault.New(fault.IO, "reading %q: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.TooLarge, "%q is larger than %d bytes", path, limit)
	}
	return b, nil
}

func rootHash(env []byte) (manifest.Digest, error) {
	e, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		return manifest.Digest{}, err
	}
	return e.PayloadHash(), nil
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// span is a validity as people count it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return d.String()
}

// Key is the key of the newest root that name means: its fingerprint, its comment, or
// the part of that before the "@".
func (f *Fleet) Key(name string) (keys.PublicKey, bool) {
	e := &editor{root: f.Root}
	id, err := e.find(name)
	if err != nil {
		return keys.PublicKey{}, false
	}
	k, err := keys.ParsePublicKey(f.Root.Keys[id])
	return k, err == nil
}

// Includes checks that f's chain has the newest root of named.
func (f *Fleet) Includes(named *Fleet) error {
	have, err := f.rootHash(named.Root.Version)
	if err == nil && have != named.Hash {
		err = fault.New(fault.RootChain, "%s has not got the root %d that was named", f.where, named.Root.Version).
			Line("The one that was named has payload %s.", named.Hash).Fact("want", named.Hash.String())
	}
	return err
}
