package manifest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	jsonexp "github.com/go-json-experiment/json"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest/strictjson"
)

// maxAhead is how far in the future a document may be dated when it is drafted: clocks
// of two machines differ.
const maxAhead = 10 * time.Minute

// Draft returns m as the file that is reviewed and then signed byte for byte. It
// refuses what an agent would refuse and what only a mistake would sign. Times are cut
// to whole seconds. What depends on the release before is for [Review].
func Draft(m *Manifest, now time.Time) ([]byte, error) {
	b := writeJSON(m.wire())
	read, err := ReadManifestDraft(b)
	if err != nil {
		return nil, err
	}
	const doc = "manifest draft"
	if err := fits(len(b), TypeManifest); err != nil {
		return nil, err
	}
	if read.Issued.After(now.Add(maxAhead)) {
		return nil, refuseDraft(fault.Policy, "%s is dated %s, which is in the future: it is %s", doc, at(read.Issued), at(now))
	}
	if !now.Before(read.Expires) {
		return nil, refuseDraft(fault.Expired, "%s would be out of date already: it expires at %s", doc, at(read.Expires))
	}
	if read.Repo.IsZero() {
		return nil, refuseDraft(fault.WrongTarget, "%s names no fleet", doc)
	}
	builds := make(map[Platform]bool, len(read.Artifacts))
	for i := range read.Artifacts {
		a := &read.Artifacts[i]
		if builds[a.Platform()] {
			return nil, refuseDraft(fault.AmbiguousArtifact, "%s has two artifacts for %s", doc, a.Platform())
		}
		builds[a.Platform()] = true
		if a.SHA256.IsZero() {
			return nil, refuseDraft(fault.Malformed, "%s: the artifact for %s has no digest", doc, a.Platform())
		}
		if _, ok := a.Usable(); !ok {
			return nil, refuseDraft(fault.NoArtifact, "%s: the artifact for %s has no payload of kind %s and codec %s", doc, a.Platform(), PayloadFull, CodecNone)
		}
		if err := blocked(read, a.SHA256); err != nil {
			return nil, refuseDraft(fault.Blocked, "%s offers what it blocks, the artifact for %s: %w", doc, a.Platform(), err)
		}
	}
	names := make(map[string]bool, len(read.Attachments))
	for _, a := range read.Attachments {
		if names[a.Name] {
			return nil, refuseDraft(fault.Malformed, "%s has two attachments with the name %q", doc, a.Name)
		}
		names[a.Name] = true
	}
	return b, nil
}

// ReadManifestDraft reads a manifest's payload that nobody has signed, or whose
// signatures nobody has checked: for review, comparison and signing only.
func ReadManifestDraft(payload []byte) (*Manifest, error) {
	const doc = "manifest draft"
	w, m, err := parseManifest(payload, doc)
	if err != nil {
		return nil, err
	}
	if err := w.readDates(m, doc); err != nil {
		return nil, err
	}
	for _, path := range w.Critical {
		if !knows(reflect.TypeFor[wireManifest](), path) {
			return nil, fault.New(fault.AgentTooOld, "%s calls %q critical, which this build does not know", doc, clip(path)).
				Do("use a newer shoal")
		}
	}
	if w.MinAgent != nil {
		if _, err := semver.StrictNewVersion(*w.MinAgent); err != nil {
			return nil, fault.New(fault.Malformed, "%s: min_agent is %q, a semantic version is wanted", doc, clip(*w.MinAgent))
		}
	}
	if err := w.readRest(m, doc); err != nil {
		return nil, err
	}
	return m, nil
}

// KnowsAll refuses the payload of a manifest or a root that has a member this build does
// not know. A machine passes over such a member; who signs must not, since another build
// may act on what nobody was shown. The code is agent_too_old.
func KnowsAll(t Type, payload []byte) error {
	var w any = new(wireManifest)
	if t == TypeRoot {
		w = new(wireRoot)
	}
	err := strictjson.Decode(payload, w, jsonexp.RejectUnknownMembers(true))
	var unknown *jsonexp.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown) && errors.Is(err, jsonexp.ErrUnknownName):
		member := strings.ReplaceAll(strings.TrimPrefix(clip(string(unknown.JSONPointer)), "/"), "/", ".")
		return refuseSign(fault.AgentTooOld, "the %s has a member that this build does not know: %q", t.word(), member).
			Line("What it means to the machines that know it cannot be shown here.").
			Do("use a newer shoal, or take it out of the draft").Fact("member", member)
	}
	return notJSON(t.word()+" draft", err)
}

// DraftRoot returns r as the file that is reviewed and then signed byte for byte. It
// refuses what an agent would refuse, and keys that have more than one power: see
// [CheckRoot].
func DraftRoot(r *Root) ([]byte, error) {
	b := writeJSON(r.wire())
	read, err := ReadRootDraft(b)
	if err != nil {
		return nil, err
	}
	if err := fits(len(b), TypeRoot); err != nil {
		return nil, err
	}
	if _, err := CheckRoot(read); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadRootDraft reads a root's payload that nobody has signed, or whose signatures
// nobody has checked: for review, comparison and signing only.
func ReadRootDraft(payload []byte) (*Root, error) {
	const doc = "root draft"
	r, err := parseRoot(payload, doc)
	if err != nil {
		return nil, err
	}
	if _, err := r.checkKeys(doc); err != nil {
		return nil, err
	}
	if err := r.checkStructure(doc, noFloor); err != nil {
		return nil, err
	}
	return r, nil
}

// CheckRoot looks at a root as its keepers should: it refuses one with which a single
// key has two powers, and warns of what may be meant.
func CheckRoot(r *Root) (warnings []string, err error) {
	const doc = "root"
	parsed, err := r.checkKeys(doc)
	if err != nil {
		return nil, err
	}
	if err := r.checkStructure(doc, noFloor); err != nil {
		return nil, err
	}
	if !r.Issued.Before(r.Expires) {
		return nil, refuseDraft(fault.Malformed, "%s: expires (%s) is not after issued (%s)", doc, at(r.Expires), at(r.Issued))
	}
	if r.Version < 1 || r.Version == 1 && (r.ID != nil || r.Prev != nil) {
		return nil, refuseDraft(fault.RootChain, "%s: version is %d; a first root has version 1 and neither id nor prev", doc, r.Version)
	}
	roles := make(map[keys.ID][]string)
	_ = r.eachRole(func(name string, s RoleSpec) error {
		for _, id := range s.KeyIDs {
			roles[id] = append(roles[id], name)
		}
		return nil
	})
	for i := range r.Channels {
		if c := &r.Channels[i]; c.MaxValidity == 0 {
			return nil, refuseDraft(fault.Policy, "%s: %s has max_validity 0s, so that no manifest could be valid", doc, c.Name())
		}
	}
	prefixes := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(parsed)) {
		comment := parsed[id].Comment()
		who := strings.TrimSpace(comment + " (" + string(id) + ")")
		powers := roles[id]
		switch {
		case len(powers) == 0:
			warnings = append(warnings, who+" is in no role")
		case len(powers) > 1 && !slices.ContainsFunc(powers, func(p string) bool { return !strings.HasSuffix(p, " release") }):
			warnings = append(warnings, who+" signs for "+strings.Join(powers, " and "))
		case len(powers) > 1:
			return nil, refuseDraft(fault.Policy, "%s: %s is in the roles %s; a root or beacon key must have no other", doc, who, strings.Join(powers, " and "))
		}
		// alice@laptop and alice@token are likely one person.
		prefix, _, _ := strings.Cut(comment, "@")
		if first, twice := prefixes[prefix]; twice && prefix != "" {
			warnings = append(warnings, fmt.Sprintf("%s and %s may belong to one person: a threshold counts keys, not people", first, who))
		}
		prefixes[prefix] = who
	}
	return warnings, nil
}

// DraftBeacon returns b as the bytes that are signed.
func DraftBeacon(b *Beacon) ([]byte, error) {
	out := writeJSON(b.wire())
	read, err := parseBeacon(out, "beacon draft")
	if err != nil {
		return nil, err
	}
	if _, err := ParseChannel(read.Name().String()); err != nil {
		return nil, err
	}
	if read.Wave < 0 || read.Wave > maxWaves {
		return nil, refuseDraft(fault.Malformed, "beacon draft: wave is %d, 0 to %d is wanted", read.Wave, maxWaves)
	}
	if err := fits(len(out), TypeBeacon); err != nil {
		return nil, err
	}
	return out, nil
}

// fits leaves room in the envelope for as many signatures as it may have.
func fits(payload int, t Type) error {
	const perSignature = 640 // the base64 of a FIDO2 signature, its keyid, and space
	room := t.MaxSize() - 1024
	if t == TypeRoot || t == TypeManifest {
		room -= maxSignatures * perSignature
	}
	if most := room / 4 * 3; payload > most {
		return refuseDraft(fault.TooLarge, "%s draft has %d bytes, at most %d fit its envelope", t.word(), payload, most).
			Fact("limit", most)
	}
	return nil
}

func refuseDraft(c fault.Code, format string, args ...any) *fault.Error {
	return fault.New(c, format, args...).Line("Nothing was written.")
}

// Review is what a signer's machine asks before a key touches a draft. It guards people
// against being handed something else than they think they sign.
type Review struct {
	Root *Root     // the fleet's last root
	Repo Digest    // the fleet id
	Prev *Manifest // the channel's last manifest; nil when there is none
	Now  time.Time
	// AllowJump lets the sequence skip numbers, AllowRegress the version be lower than
	// the one before.
	AllowJump, AllowRegress bool
}

// Manifest reviews a draft that signer is to sign; an empty signer is not looked at.
// Codes: wrong_target, channel_gone, root_expired, rollback, root_behind, equivocation,
// policy, blocked.
func (r Review) Manifest(m *Manifest, signer keys.ID) error {
	if m.Repo != r.Repo {
		return refuseSign(fault.WrongTarget, "the draft is for the fleet %s, this is %s", m.Repo.Prefixed(), r.Repo.Prefixed())
	}
	if !r.Now.Before(r.Root.Expires) {
		return refuseSign(fault.RootExpired, "root %d ran out of date at %s", r.Root.Version, at(r.Root.Expires)).
			Do("root keepers: shoal trust draft --from the last root, with a later expiry")
	}
	spec, ok := r.Root.Channel(m.Name())
	if !ok {
		return refuseSign(fault.ChannelGone, "root %d has no channel %q", r.Root.Version, clip(m.Name().String()))
	}
	if err := rightEpoch("the draft", m.Epoch, spec); err != nil {
		return err
	}
	if signer != "" && !slices.Contains(spec.Release.KeyIDs, signer) {
		return refuseSign(fault.Policy, "%s is no release key of %s", signer, m.Name())
	}
	if valid := m.Expires.Sub(m.Issued); valid > spec.MaxValidity {
		return refuseSign(fault.Policy, "the draft is valid for %s, root allows %s", formatDuration(valid), formatDuration(spec.MaxValidity))
	}
	if m.Issued.After(r.Now.Add(maxAhead)) {
		return refuseSign(fault.Policy, "the draft is dated %s, which is in the future: it is %s", at(m.Issued), at(r.Now))
	}
	if !r.Now.Before(m.Expires) {
		return refuseSign(fault.Expired, "the draft ran out of date at %s", at(m.Expires))
	}
	return r.follows(m)
}

// follows compares a draft with the manifest before it.
func (r Review) follows(m *Manifest) error {
	first := Order{m.Epoch, 1}
	p := r.Prev
	if p == nil {
		p = &Manifest{App: m.App, Channel: m.Channel}
	}
	if p.Name() != m.Name() {
		return refuseSign(fault.WrongTarget, "the draft is for %s, the release before it for %s", m.Name(), p.Name())
	}
	want := first
	if p.Epoch >= m.Epoch {
		want = Order{p.Epoch, p.Sequence + 1}
	}
	switch is := m.Order(); {
	case is == p.Order():
		return refuseSign(fault.Equivocation, "the draft has the number of the release before it, %s", is)
	case is.Compare(want) < 0:
		return refuseSign(fault.Rollback, "the draft is %s, older than the release before it, %s", is, p.Order())
	case is != want && !r.AllowJump:
		return refuseSign(fault.Policy, "the draft is %s, the next release is %s", is, want)
	}
	if m.Issued.Before(p.Issued) {
		return refuseSign(fault.Policy, "the draft is dated %s, before the release it follows, %s", at(m.Issued), at(p.Issued))
	}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		for _, by := range []*Manifest{m, p} {
			if err := blocked(by, a.SHA256); err != nil {
				return refuseSign(fault.Blocked, "the draft offers content for %s that is blocked: %w", a.Platform(), err)
			}
		}
	}
	is, err1 := semver.NewVersion(m.Release.Version)
	was, err2 := semver.NewVersion(p.Release.Version)
	if err1 == nil && err2 == nil && is.LessThan(was) && !r.AllowRegress {
		return refuseSign(fault.Policy, "the draft is version %s, the release before it is %s", m.Release.Version, p.Release.Version).
			Do("if that is meant: --allow-version-regress")
	}
	return nil
}

func refuseSign(c fault.Code, format string, args ...any) *fault.Error {
	return fault.New(c, format, args...).Line("Nothing was signed.")
}
