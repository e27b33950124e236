package ceremony

import (
	"context"
	"errors"
	"fmt"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/repo"
	"shoal/publisher/witness"
)

// PublishedRoot is a root that is in the repository.
type PublishedRoot struct {
	FleetID  manifest.FleetID `json:"fleet_id"`
	Version  int64            `json:"version"`
	Store    string           `json:"store"`
	Created  bool             `json:"created"` // a first root: it made the repository
	Already  bool             `json:"already"` // it was there, and nothing was changed
	DryRun   bool             `json:"dry_run,omitempty"`
	Needs    []Need           `json:"needs"`
	Warnings []string         `json:"warnings,omitempty"`
}

// PublishRoot puts the root envelope in the file path into the repository of s, where it
// must follow the newest root. A first root makes the repository.
func PublishRoot(ctx context.Context, s Source, path string, dryRun bool) (*PublishedRoot, error) {
	d, err := ReadRoot(path)
	if err != nil {
		return nil, err
	}
	if d.Envelope == nil {
		return nil, fault.New(fault.Threshold, "%q is a draft: nobody has signed it", path).
			Line("Nothing was published.").Do("root keepers: shoal trust sign %s --key REF, then shoal trust assemble", path)
	}
	warnings, err := CheckRoot(d.Root, s.time())
	if err != nil {
		return nil, inFile(path, err)
	}
	env, err := readFile(path, manifest.MaxRoot)
	if err != nil {
		return nil, err
	}
	res := &PublishedRoot{
		FleetID: manifest.FleetID(d.FleetID()), Version: d.Root.Version, Store: s.Store, DryRun: dryRun, Needs: []Need{}, Warnings: warnings,
	}
	if _, err := repo.Open(s.Store); errors.Is(err, fault.NotFound) && d.Root.Version == 1 {
		return res, res.create(ctx, s, d, env)
	}
	f, err := Source{Store: s.Store, Places: s.Places, Transport: s.Transport, Clock: s.Clock}.Open(ctx, !dryRun)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if known, err := f.rootHash(d.Root.Version); err != nil || known == d.Hash() {
		res.Already = err == nil
		return res, err
	}
	if d.Root.Version == 1 {
		return nil, fault.New(fault.PinMismatch, "%q is the first root of another fleet than %s has", path, s.Store).
			Line("It is %s; the repository has %s. Nothing was published.", d.FleetID().Prefixed(), f.ID.Prefixed()).
			Do("make the new fleet elsewhere: another store in publisher.yaml").
			Fact("want", f.ID.Prefixed()).Fact("found", d.FleetID().Prefixed())
	}
	prev, err := f.precedes(d)
	if err != nil {
		return nil, unpublished(err)
	}
	views := f.look(ctx, manifest.Channel{})
	for _, v := range views {
		if v.Root != nil && v.RootHash != d.Hash() {
			return nil, v.Root
		}
	}
	res.Warnings = append(res.Warnings, witness.Warnings(views)...)
	if res.Needs, err = f.needs(d.Root); err != nil {
		return nil, err
	}
	if _, err := f.state.Trust.UpdateRoot(env); err != nil {
		return nil, unpublished(f.whoIsMissing(err, prev, d))
	}
	if dryRun {
		return res, nil
	}
	return res, f.writer.PublishRoot(d.Root.Version, env)
}

// create makes the repository of a new fleet.
func (res *PublishedRoot) create(ctx context.Context, s Source, d *RootFile, env []byte) error {
	if _, _, err := manifest.Pin(env, d.Hash(), manifest.Options{Clock: s.time}); err != nil {
		return unpublished(err)
	}
	for _, place := range s.Places {
		// A publisher that starts over where another one serves already is a mistake.
		read, err := witness.Open(ctx, s.Transport, place)
		if err != nil {
			return err
		}
		state, err := repo.ReadTree(read, nil, place)
		switch {
		case errors.Is(err, fault.NotFound):
		case err != nil:
			res.Warnings = append(res.Warnings, fmt.Sprintf("could not compare with %s: %v", place, err))
		case state.Trust.Repo() != d.FleetID() || state.Trust.RootVersion() > 1:
			return fault.New(fault.Equivocation, "%s serves the fleet %s at root %d already", place, state.Trust.Repo().Prefixed(), state.Trust.RootVersion()).
				Line("Nothing was published.").Do("put that repository back here, or take the place out of the configuration").Fact("place", place)
		}
	}
	res.Created = true
	if res.DryRun {
		return nil
	}
	_, err := repo.Create(s.Store, env)
	return err
}

// rootHash is the payload of root v as it is stored; zero when it is not there.
func (f *Fleet) rootHash(v int64) (manifest.Digest, error) {
	roots := f.state.Trust.Snapshot().Roots
	if v < 1 || v > int64(len(roots)) {
		return manifest.Digest{}, nil
	}
	return rootHash(roots[v-1])
}

// whoIsMissing makes the error of a root with too few signatures name both roles.
func (f *Fleet) whoIsMissing(err error, prev *manifest.Root, d *RootFile) error {
	if !errors.Is(err, fault.Threshold) {
		return err
	}
	var roles []Signers
	for _, r := range []*manifest.Root{prev, d.Root} {
		s, serr := signersOf(fmt.Sprintf("root %d", r.Version), r, r.Root, d.Envelope)
		if serr != nil {
			return err
		}
		roles = append(roles, s)
	}
	if few := missing(fmt.Sprintf("root %d", d.Root.Version), roles); few != nil {
		return few.Do("root keepers: shoal trust sign FILE --key REF, then shoal trust assemble")
	}
	return err
}

func unpublished(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		e.Line("Nothing was published.")
	}
	return err
}
