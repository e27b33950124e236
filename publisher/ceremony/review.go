package ceremony

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/ceremony/diff"
	"shoal/publisher/witness"
)

// maxAhead is how far in the future a root may be dated: clocks of two machines differ.
const maxAhead = 10 * time.Minute

// Review is what a person is shown before signing.
type Review struct {
	Document string           `json:"document"` // "root 2", "manifest acme/stable 1.43"
	FleetID  manifest.FleetID `json:"fleet_id"`
	Payload  manifest.Digest  `json:"payload_sha256"`
	Changes  []diff.Change    `json:"changes"`
	Warnings []string         `json:"warnings,omitempty"`
}

// Alarms counts what a person should ask about first.
func (r *Review) Alarms() int {
	n := 0
	for _, c := range r.Changes {
		if c.Alarm {
			n++
		}
	}
	return n
}

// SignRequest asks for signatures over one file.
type SignRequest struct {
	File string
	// Keys opens the keys that sign. It is asked once the file has been reviewed.
	Keys func(context.Context) ([]keys.Signer, error)
	// Show shows the review; Confirm asks whether to sign what was shown.
	Show    func(*Review)
	Confirm func(question string) (bool, error)

	// Of manifests alone. Sequence is the number the draft jumps to on purpose.
	// AllowVersionRegress lets the version fall. AllowElsewhere lets it offer content that
	// another channel or app has under another version.
	Sequence            int64
	AllowVersionRegress bool
	AllowElsewhere      bool
}

// Signed is what came of a SignRequest.
type Signed struct {
	Review
	Files []string `json:"files"` // one signature each
	Keys  []Key    `json:"keys"`
}

// SignManifest reviews the manifest in req.File against f and signs it. Codes: those of
// manifest.Review; equivocation when a place that serves the repository has something
// higher or different.
func (f *Fleet) SignManifest(ctx context.Context, req SignRequest) (*Signed, error) {
	d, err := ReadManifest(req.File)
	if err != nil {
		return nil, err
	}
	review, err := f.reviewManifest(ctx, d, req)
	if err != nil {
		return nil, err
	}
	spec, _ := f.Root.Channel(d.Manifest.Name())
	may := func(id keys.ID) (keys.PublicKey, error) {
		if slices.Contains(spec.Release.KeyIDs, id) {
			return keys.ParsePublicKey(f.Root.Keys[id])
		}
		return keys.PublicKey{}, notAllowed(id, "releases of "+d.Manifest.Name().String(), f.Root, spec.Release)
	}
	return sign(ctx, req, review, manifest.TypeManifest, d.Payload, may)
}

func notAllowed(id keys.ID, what string, r *manifest.Root, role manifest.RoleSpec) error {
	var may []Key
	for _, k := range role.KeyIDs {
		may = append(may, named(r, k))
	}
	return fault.New(fault.Policy, "the key %s may not sign %s", id, what).
		Line("Root %d lets %s sign them. Nothing was signed.", r.Version, namesOf(may)).
		Do("sign with one of those: --key REF").Fact("key", string(id)).Fact("allowed", may)
}

// sign shows the review, asks, and signs. may gives each key as root has it, whose comment
// is the name that everybody knows it by, or refuses it.
func sign(ctx context.Context, req SignRequest, review *Review, t manifest.Type, payload []byte, may func(keys.ID) (keys.PublicKey, error)) (*Signed, error) {
	if err := manifest.KnowsAll(t, payload); err != nil {
		return nil, inFile(req.File, err)
	}
	if req.Show != nil {
		req.Show(review)
	}
	signers, err := req.Keys(ctx)
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, fault.New(fault.Usage, "there is no key to sign with").Do("name one: --key file:PATH or agent:PATH.pub")
	}
	known := make([]keys.PublicKey, len(signers))
	for i, s := range signers {
		if known[i], err = may(s.Public().ID()); err != nil {
			return nil, err
		}
	}
	question := "Sign " + review.Document + "?"
	if n := review.Alarms(); n > 0 {
		question = fmt.Sprintf("Sign %s, with what is marked above (%d)?", review.Document, n)
	}
	yes, err := req.Confirm(question)
	if err != nil {
		return nil, err
	}
	if !yes {
		return nil, fault.New(fault.Interrupted, "nothing was signed: the answer was no")
	}
	res := &Signed{Review: *review}
	for i, s := range signers {
		k := known[i]
		sig, err := s.Sign(ctx, string(t), payload)
		if err != nil {
			return res, fault.New(codeOr(err, fault.IO), "signing with %s: %w", keyOf(k).Name, err).Line("This key has signed nothing.")
		}
		name, err := writeSignature(req.File, k, sig)
		if err != nil {
			return res, err
		}
		res.Files, res.Keys = append(res.Files, name), append(res.Keys, keyOf(k))
	}
	return res, nil
}

// reviewManifest refuses what a person would regret to have signed.
func (f *Fleet) reviewManifest(ctx context.Context, d *ManifestFile, req SignRequest) (*Review, error) {
	m, hash := d.Manifest, d.Hash()
	if m.Repo != f.ID {
		return nil, fault.New(fault.WrongTarget, "%q is for another fleet", d.Path).
			Line("It is for %s; %s has %s.", m.Repo.Prefixed(), f.where, f.ID.Prefixed()).Line("Nothing was signed.")
	}
	if !f.now.Before(f.Root.Expires) {
		return nil, fault.New(fault.RootExpired, "root %d of this fleet ran out of date on %s: no machine would believe a release", f.Root.Version, date(f.Root.Expires)).
			Line("Nothing was signed.").Do("root keepers: shoal trust draft --from ROOT --expires 2y")
	}
	ch, err := f.channel(m.Name())
	if err != nil {
		return nil, err
	}
	// Everything that a draft made here would have been refused for.
	if _, err := manifest.Draft(m, f.now); err != nil {
		return nil, unsigned(err)
	}
	views := f.look(ctx, m.Name())
	last := ch.Last
	if err := witness.Refuse(views, m.Name(), last, m.Order(), hash, req.Sequence == m.Sequence); err != nil {
		return nil, err
	}
	review := &Review{
		Document: "manifest " + m.Name().String() + " " + m.Order().String(), FleetID: manifest.FleetID(f.ID), Payload: hash,
		Warnings: witness.Warnings(views),
	}
	rules := manifest.Review{Root: f.Root, Repo: f.ID, Prev: ch.Latest, Now: f.now, AllowRegress: req.AllowVersionRegress}
	again := m.Order() == last && hash == ch.LastHash
	switch {
	case again: // root has replaced keys since, and the same payload gets new signatures
		rules.Prev, rules.AllowJump = nil, true
		review.Warnings = append(review.Warnings, "this is the release that is published already; signing it again changes nothing for machines")
	case ch.Latest == nil && f.given != nil && m.Sequence != 1:
		return nil, fault.New(fault.Usage, "what did %s release before %s?", m.Name(), m.Order()).
			Line("Without it nobody can tell whether this number, and this version, are the next. Nothing was signed.").
			Do("name the envelope of the last release: --previous FILE")
	case req.Sequence != 0 && req.Sequence != m.Sequence:
		return nil, fault.New(fault.Usage, "--sequence is %d, the draft has %d", req.Sequence, m.Sequence).Line("Nothing was signed.")
	case req.Sequence != 0:
		rules.AllowJump = true
	}
	if err := rules.Manifest(m, ""); err != nil {
		return nil, f.hint(err, m, last)
	}
	if !again && !req.AllowElsewhere {
		if err := f.elsewhere(m); err != nil {
			return nil, err
		}
	}
	review.Changes = diff.Manifests(ch.Latest, m)
	return review, nil
}

// hint adds the way on to what Review refuses.
func (f *Fleet) hint(err error, m *manifest.Manifest, last manifest.Order) error {
	var e *fault.Error
	if !errors.As(err, &e) {
		return err
	}
	switch next := (manifest.Order{Epoch: last.Epoch, Sequence: last.Sequence + 1}); {
	case e.Code == fault.Policy && m.Epoch == last.Epoch && m.Order().Compare(next) > 0:
		e.Do("draft it again; or if the jump is meant: --sequence %d", m.Sequence).Fact("last", last.String())
	case e.Code == fault.Rollback || e.Code == fault.Equivocation:
		e.Do("draft it again: shoal manifest draft").Fact("last", last.String())
	}
	return err
}

// elsewhere refuses content that another channel or app has under another version, or
// for another platform: a release is easily mistaken for the one it calls itself.
func (f *Fleet) elsewhere(m *manifest.Manifest) error {
	for i := range f.state.Channels {
		other := f.state.Channels[i]
		if other.Name == m.Name() {
			continue
		}
		known := []*manifest.Manifest{}
		if other.Latest != nil {
			known = append(known, other.Latest)
		}
		if f.repo != nil {
			past, err := f.repo.History(other.Name, other.Last)
			if err != nil {
				return err
			}
			for _, p := range past {
				known = append(known, p.Manifest)
			}
		}
		for _, k := range known {
			for j := range k.Artifacts {
				theirs := &k.Artifacts[j]
				for n := range m.Artifacts {
					ours := &m.Artifacts[n]
					if ours.SHA256 != theirs.SHA256 || k.App == m.App && k.Release.Version == m.Release.Version && ours.Platform() == theirs.Platform() {
						continue
					}
					return fault.New(fault.Policy, "the file for %s is not %s %s but %s %s", ours.Platform(), m.Name(), m.Release.Version, k.Name(), k.Release.Version).
						Line("%s was released there as %s for %s.", ours.SHA256, k.Release.Version, theirs.Platform()).
						Line("Nothing was signed.").
						Do("draft it from the right file, or if that is meant: --allow-elsewhere").
						Fact("sha256", ours.SHA256.String()).Fact("channel", k.Name().String()).Fact("version", k.Release.Version)
				}
			}
		}
	}
	return nil
}

// look asks the other places that serve the repository.
func (f *Fleet) look(ctx context.Context, ch manifest.Channel) []witness.View {
	if f.given != nil || len(f.places) == 0 {
		return nil
	}
	return witness.Look(ctx, f.via, f.places, f.state.Trust, ch)
}

// SignRoot reviews the root in req.File and signs it. f may be nil for a first root; for
// any other it is the fleet as it is, and the file must be the root that follows.
func SignRoot(ctx context.Context, f *Fleet, req SignRequest, now time.Time) (*Signed, error) {
	d, err := ReadRoot(req.File)
	if err != nil {
		return nil, err
	}
	warnings, err := manifest.CheckRoot(d.Root)
	if err != nil {
		return nil, unsigned(inFile(req.File, err))
	}
	switch {
	case !now.Before(d.Root.Expires):
		return nil, fault.New(fault.RootExpired, "%q would be out of date already: it expires on %s", req.File, date(d.Root.Expires)).Line("Nothing was signed.")
	case d.Root.Issued.After(now.Add(maxAhead)):
		return nil, fault.New(fault.Policy, "%q is dated %s, which is in the future: it is %s", req.File, date(d.Root.Issued), date(now)).
			Line("Nothing was signed.").Do("set the clock")
	}
	var prev *manifest.Root
	if d.Root.Version > 1 {
		if prev, err = f.precedes(d); err != nil {
			return nil, unsigned(err)
		}
	}
	review := &Review{
		Document: fmt.Sprintf("root %d of %q", d.Root.Version, d.Root.Fleet), FleetID: manifest.FleetID(d.FleetID()), Payload: d.Hash(),
		Changes: diff.Roots(prev, d.Root), Warnings: warnings,
	}
	if prev != nil {
		views := f.look(ctx, manifest.Channel{})
		for _, v := range views {
			if v.Root != nil && v.RootHash != d.Hash() {
				return nil, v.Root
			}
		}
		review.Warnings = append(review.Warnings, witness.Warnings(views)...)
	}
	may := func(id keys.ID) (keys.PublicKey, error) {
		switch {
		case slices.Contains(d.Root.Root.KeyIDs, id):
			return keys.ParsePublicKey(d.Root.Keys[id])
		case prev != nil && slices.Contains(prev.Root.KeyIDs, id):
			return keys.ParsePublicKey(prev.Keys[id])
		}
		return keys.PublicKey{}, notAllowed(id, "this root", d.Root, d.Root.Root)
	}
	return sign(ctx, req, review, manifest.TypeRoot, d.Payload, may)
}

// precedes checks that d is the root that follows the fleet's, and returns the latter.
func (f *Fleet) precedes(d *RootFile) (*manifest.Root, error) {
	r := d.Root
	if f == nil {
		return nil, fault.New(fault.Usage, "root %d follows root %d, which was not named", r.Version, r.Version-1).
			Do("name it: --from ROOT.env.json")
	}
	wrong := func(format string, args ...any) error {
		return fault.New(fault.RootChain, "%q is not the root that follows root %d", d.Path, f.Root.Version).
			Line(format, args...).Do("draft it from the newest root: shoal trust draft --from ROOT.env.json")
	}
	switch {
	case r.ID == nil || *r.ID != f.ID:
		return nil, wrong("It is of the fleet %s; this is %s.", d.FleetID().Prefixed(), f.ID.Prefixed())
	case r.Version != f.Root.Version+1:
		return nil, wrong("It has version %d; %d is next.", r.Version, f.Root.Version+1)
	case r.Prev == nil || *r.Prev != f.Hash:
		return nil, wrong("It was drafted from another root %d than %s.", f.Root.Version, f.Hash.Prefixed())
	}
	for i := range f.Root.Channels {
		was := &f.Root.Channels[i]
		if is, ok := r.Channel(was.Name()); ok && is.Epoch < was.Epoch {
			return nil, wrong("It takes %s back from epoch %d to %d; an epoch never falls.", was.Name(), was.Epoch, is.Epoch)
		}
	}
	return f.Root, nil
}

func unsigned(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		e.Detail = slices.DeleteFunc(e.Detail, func(s string) bool { return s == "Nothing was written." })
		e.Line("Nothing was signed.")
	}
	return err
}

// codeOr is the code err carries, or def when it carries none.
func codeOr(err error, def fault.Code) fault.Code {
	if c := fault.CodeOf(err); c != fault.IO {
		return c
	}
	return def
}
