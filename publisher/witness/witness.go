// Package witness asks the other places that serve a repository what they have.
//
// A repository that was put back from a backup does not know what it published after
// the backup was made, and would give the same numbers out again; machines that saw both
// would report an attack. Its mirrors still know. None of them is believed: only what
// the fleet's own keys have signed counts, so that a broken or lying mirror can neither
// stop a release nor hide behind one.
package witness

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// maxAhead bounds the roots that are followed past our own: one is enough to refuse, and
// the manifest behind a few is worth the look.
const maxAhead = 16

// View is what one place has of a fleet, next to what is known here.
type View struct {
	Place string
	// Root is set, with the code equivocation, when the fleet's root keys have signed
	// another root than ours, or one that follows it.
	Root     error
	RootHash manifest.Digest // payload of the first of its roots that is not ours
	// Manifest is the channel's manifest there when its keys have signed it and it is
	// higher than ours or has the same number and other content; nil otherwise.
	Manifest *manifest.Manifest
	Hash     manifest.Digest // of Manifest's payload
	// Problem is why the place could not be compared, or not wholly: it does not answer,
	// or has something that is not this fleet's.
	Problem error
}

// Look compares every place with ours, all at once. With a zero channel it compares the
// roots alone. Web servers are asked over via, as in [Open].
func Look(ctx context.Context, via http.RoundTripper, places []string, ours *manifest.Trust, ch manifest.Channel) []View {
	views := make([]View, len(places))
	snap := ours.Snapshot()
	var wg sync.WaitGroup
	for i, place := range places {
		wg.Go(func() {
			views[i] = View{Place: place}
			read, err := Open(ctx, via, place)
			if err == nil {
				err = views[i].look(read, snap, ch)
			}
			views[i].Problem = err
		})
	}
	wg.Wait()
	return views
}

// Compare compares the tree that read reads, at a place of any kind, with ours.
func Compare(read repo.Reader, place string, ours *manifest.Trust, ch manifest.Channel) View {
	v := View{Place: place}
	v.Problem = v.look(read, ours.Snapshot(), ch)
	return v
}

func (v *View) look(read repo.Reader, snap manifest.Snapshot, ch manifest.Channel) error {
	t, err := load(snap)
	if err != nil {
		return err
	}
	rerr := v.roots(read, snap, t)
	if ch == (manifest.Channel{}) {
		return rerr
	}
	merr := v.manifest(read, snap, t, ch)
	if rerr != nil {
		return rerr
	}
	return merr
}

// load is a Trust to which dates mean nothing: what ran out was still signed.
func load(snap manifest.Snapshot) (*manifest.Trust, error) {
	t, _, err := manifest.Load(snap, manifest.Options{Clock: func() time.Time { return time.Unix(0, 0) }, AllowExpired: true})
	return t, err
}

// roots looks for another root under our number and for one above it, which t follows.
func (v *View) roots(read repo.Reader, snap manifest.Snapshot, t *manifest.Trust) error {
	last := t.RootVersion()
	own, err := hashOf(snap.Roots[last-1])
	if err != nil {
		return err
	}
	theirs, err := read(tree.Root(last), manifest.MaxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return v.behind(read, snap)
	}
	if err != nil {
		return err
	}
	hash, err := hashOf(theirs)
	switch {
	case err != nil:
		return err
	case hash == own:
		return v.above(read, t)
	case last == 1:
		return fault.New(fault.WrongTarget, "%s serves another fleet, %s", v.Place, hash.Prefixed())
	}
	before, err := load(manifest.Snapshot{Roots: snap.Roots[:last-1], State: manifest.State{V: snap.State.V, Repo: snap.State.Repo}})
	if err != nil {
		return err
	}
	if _, err := before.UpdateRoot(theirs); err != nil {
		return err
	}
	v.RootHash = hash
	v.Root = fault.New(fault.Equivocation, "%s has another root %d than this repository, and the root keys have signed both", v.Place, last).
		Line("Here: payload %s. There: %s.", own, hash).
		Fact("here", own.String()).Fact("there", hash.String())
	return nil
}

// behind is for a place that has not got our newest root yet: it must be of this fleet.
func (v *View) behind(read repo.Reader, snap manifest.Snapshot) error {
	first, err := read(tree.Root(1), manifest.MaxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an empty mirror: nothing was pushed there yet
	}
	if err != nil {
		return err
	}
	hash, err := hashOf(first)
	if err == nil && manifest.FleetID(hash) != snap.State.Repo {
		err = fault.New(fault.WrongTarget, "%s serves another fleet, %s", v.Place, hash.Prefixed())
	}
	return err
}

func (v *View) above(read repo.Reader, t *manifest.Trust) error {
	last := t.RootVersion()
	for range maxAhead {
		next, err := read(tree.Root(t.RootVersion()+1), manifest.MaxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err == nil {
			_, err = t.UpdateRoot(next)
		}
		if err == nil && v.RootHash.IsZero() {
			v.RootHash, err = hashOf(next)
		}
		if err != nil {
			return err
		}
	}
	if now := t.RootVersion(); now > last {
		v.Root = fault.New(fault.Equivocation, "%s has root %d, this repository only root %d", v.Place, now, last).
			Fact("here", last).Fact("there", now)
	}
	return nil
}

// manifest compares the channel's manifest there with ours. t may have followed the
// place's roots past ours.
func (v *View) manifest(read repo.Reader, snap manifest.Snapshot, t *manifest.Trust, ch manifest.Channel) error {
	env, err := read(tree.Manifest(ch), manifest.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	got, err := opened(env, snap, t, ch)
	if err != nil {
		return err
	}
	ours := snap.State.Channels[ch]
	switch is := got.Manifest.Order().Compare(ours.Order()); {
	case is < 0: // not pushed there yet
	case is == 0 && got.Hash == ours.ManifestSHA256:
	default:
		v.Manifest, v.Hash = got.Manifest, got.Hash
	}
	return nil
}

// opened opens a manifest under the newest root, or else the one before, and so on: when
// keys were replaced since, what they signed in their day was given out all the same, and
// its number is used up.
func opened(env []byte, snap manifest.Snapshot, newest *manifest.Trust, ch manifest.Channel) (*manifest.Verified, error) {
	// Without its channels the state holds nothing against a manifest but its signatures.
	bare := manifest.Snapshot{Roots: newest.Snapshot().Roots, State: manifest.State{V: snap.State.V, Repo: snap.State.Repo}}
	var first error
	for n := len(bare.Roots); n > 0; n-- {
		bare.Roots = bare.Roots[:n]
		t, err := load(bare)
		if err != nil {
			return nil, err
		}
		cycle, err := t.Begin()
		if err != nil {
			return nil, err
		}
		got, _, err := cycle.Manifest(ch, env)
		if err == nil {
			return got, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func hashOf(root []byte) (manifest.Digest, error) {
	e, err := manifest.ParseEnvelope(root, manifest.TypeRoot)
	if err != nil {
		return manifest.Digest{}, err
	}
	return e.PayloadHash(), nil
}

// Refuse says, with the code equivocation, which place has what a document of ch under
// the number next, with the payload hash, must not be signed or published beside.
// last is the highest order known here. A jump is a number that somebody chose on purpose
// to be above all that is out there.
func Refuse(views []View, ch manifest.Channel, last, next manifest.Order, hash manifest.Digest, jump bool) error {
	for _, v := range views {
		if v.Root != nil {
			return explain(v.Root, v.Place)
		}
	}
	var worst *View
	for i := range views {
		v := &views[i]
		if v.Manifest == nil || v.Hash == hash || jump && v.Manifest.Order().Compare(next) < 0 {
			continue
		}
		if worst == nil || v.Manifest.Order().Compare(worst.Manifest.Order()) > 0 {
			worst = v
		}
	}
	if worst == nil {
		return nil
	}
	there := worst.Manifest.Order()
	f := fault.New(fault.Equivocation, "%s has %s %s %s, this repository only %s", worst.Place, ch, worst.Manifest.Release.Version, there, last)
	if there.Compare(last) <= 0 {
		f = fault.New(fault.Equivocation, "%s has another %s %s than this repository, and the release keys have signed both", worst.Place, ch, there)
	}
	f.Line("There it is version %s, payload %s.", worst.Manifest.Release.Version, worst.Hash).
		Fact("there", there.String()).Fact("payload_sha256", worst.Hash.String()).Fact("here", last.String())
	return explain(f, worst.Place).(*fault.Error).
		Do("or go on above it, with a number nobody has used: --sequence %d", max(there.Sequence, last.Sequence)+1)
}

func explain(err error, place string) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	return f.Line("A repository put back from a backup looks like this, and so does a second publisher.").
		Line("Nothing was signed and nothing was published.").
		Do("put the newest repository back, or copy what is missing from %s", place).
		Fact("place", place)
}

// Warnings says of which places nothing is known, one line each.
func Warnings(views []View) []string {
	var lines []string
	for _, v := range views {
		if v.Problem != nil {
			lines = append(lines, "could not compare with "+v.Place+": "+v.Problem.Error())
		}
	}
	return slices.Clip(lines)
}
