package ceremony

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// Assembled is a document with the signatures that were given.
type Assembled struct {
	Envelope []byte          `json:"-"`
	Document string          `json:"document"`
	Payload  manifest.Digest `json:"payload_sha256"`
	Complete bool            `json:"complete"`
	Signers  []Signers       `json:"signatures"`
	Warnings []string        `json:"warnings,omitempty"`
}

// AssembleRoot puts signatures under the root in draft. f is the fleet before it, for any
// but a first root: both its root keys and the new ones must sign. While signatures are
// missing the result is there all the same, with an error of the code threshold.
func AssembleRoot(f *Fleet, draft string, signatures []string) (*Assembled, error) {
	d, err := ReadRoot(draft)
	if err != nil {
		return nil, err
	}
	if _, err := manifest.CheckRoot(d.Root); err != nil {
		return nil, inFile(draft, err)
	}
	var prev *manifest.Root
	if d.Root.Version > 1 {
		if prev, err = f.precedes(d); err != nil {
			return nil, err
		}
	}
	res := &Assembled{Document: fmt.Sprintf("root %d", d.Root.Version), Payload: d.Hash()}
	env := manifest.NewEnvelope(manifest.TypeRoot, d.Payload)
	if d.Envelope != nil {
		env = d.Envelope
	}
	lines := []map[keys.ID]string{d.Root.Keys}
	if prev != nil {
		lines = append(lines, prev.Keys)
	}
	if res.Warnings, err = attach(env, signatures, lines...); err != nil {
		return nil, err
	}
	for _, r := range []*manifest.Root{prev, d.Root} {
		if r == nil {
			continue
		}
		s, err := signersOf(fmt.Sprintf("root %d", r.Version), r, r.Root, env)
		if err != nil {
			return nil, err
		}
		res.Signers = append(res.Signers, s)
	}
	res.Envelope = env.Marshal()
	if err := missing(res.Document, res.Signers); err != nil {
		return res, err.Do("root keepers: shoal trust sign %s --key REF, or ssh-keygen -Y sign -n %s -f KEY %s", draft, manifest.TypeRoot, draft)
	}
	res.Complete = true
	// What comes out must convince a machine.
	if prev == nil {
		_, _, err = manifest.Pin(res.Envelope, d.Hash(), manifest.Options{})
	} else {
		_, err = f.state.Trust.UpdateRoot(res.Envelope)
	}
	return res, err
}

// Attach puts signatures under the manifest in file, a draft or an envelope. f may be
// nil: then nobody can tell whether they are enough, nor whose they are.
func Attach(f *Fleet, file string, signatures []string) (*Assembled, error) {
	d, err := ReadManifest(file)
	if err != nil {
		return nil, err
	}
	env := manifest.NewEnvelope(manifest.TypeManifest, d.Payload)
	if d.Envelope != nil {
		env = d.Envelope
	}
	name := d.Manifest.Name()
	res := &Assembled{Document: fmt.Sprintf("manifest %s %s", name, d.Manifest.Order()), Payload: d.Hash(), Signers: []Signers{}}
	var lines []map[keys.ID]string
	var spec *manifest.ChannelSpec
	if f != nil {
		if d.Manifest.Repo != f.ID {
			return nil, fault.New(fault.WrongTarget, "%q is for another fleet", file).
				Line("It is for %s; %s has %s.", d.Manifest.Repo.Prefixed(), f.where, f.ID.Prefixed())
		}
		ch, err := f.state.Channel(name)
		if err != nil {
			return nil, err
		}
		spec = ch.Spec
		role := map[keys.ID]string{}
		for _, id := range spec.Release.KeyIDs {
			role[id] = f.Root.Keys[id]
		}
		lines = append(lines, role)
	}
	if res.Warnings, err = attach(env, signatures, lines...); err != nil {
		return nil, err
	}
	if len(env.Signatures) == 0 {
		return nil, fault.New(fault.Threshold, "none of these signatures is by a key of %s", name).Do("shoal trust show says whose are")
	}
	res.Envelope = env.Marshal()
	if spec == nil {
		res.Warnings = append(res.Warnings, "no root is at hand, so nobody looked whether these signatures are enough: shoal manifest verify --root FILE")
		return res, nil
	}
	s, err := signersOf(name.String(), f.Root, spec.Release, env)
	if err != nil {
		return nil, err
	}
	res.Signers, res.Complete = []Signers{s}, s.Complete()
	return res, nil
}

// attach adds the signatures of files to env: those that are good and by a key of one of
// the lists, or by any key when there is no list. One that is by a key of a list and is
// not good is an error: a person who signed something else should hear of it.
func attach(env *manifest.Envelope, files []string, lists ...map[keys.ID]string) (warnings []string, err error) {
	for _, path := range files {
		file, err := readSignatures(path, env.Type, env.Payload)
		if err != nil {
			return nil, err
		}
		for _, e := range file.Entries {
			k, known, err := keyFor(e, lists)
			if err != nil {
				return nil, inFile(path, err)
			}
			if !known {
				warnings = append(warnings, fmt.Sprintf("%s: %s is no key that counts here, and was left out", path, e.KeyID))
				continue
			}
			if err := keys.Verify(k, string(env.Type), env.Payload, e.Sig); err != nil {
				return nil, otherContent(path).Line("%s: %s", keyOf(k), err.Error()).Fact("key", string(e.KeyID))
			}
			if err := env.Attach(e); err != nil {
				return nil, err
			}
		}
	}
	return warnings, nil
}

// keyFor is the key an entry must verify under.
func keyFor(e keys.Entry, lists []map[keys.ID]string) (_ keys.PublicKey, known bool, err error) {
	if len(lists) == 0 {
		k, err := e.Sig.PublicKey()
		if err == nil && k.ID() != e.KeyID {
			err = errors.New("it is filed under another key than it carries")
		}
		if err != nil {
			return k, false, fault.New(fault.Malformed, "a signature cannot be read: %w", err)
		}
		return k, true, nil
	}
	for _, list := range lists {
		if line, ok := list[e.KeyID]; ok {
			k, err := keys.ParsePublicKey(line)
			if err != nil {
				return k, false, fault.New(fault.BadKey, "reading key %s: %w", e.KeyID, err)
			}
			return k, true, nil
		}
	}
	return keys.PublicKey{}, false, nil
}

// VerifiedManifest is an envelope that a machine of the fleet would believe.
type VerifiedManifest struct {
	FleetID  manifest.FleetID `json:"fleet_id"`
	Root     int64            `json:"root_version"`
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version"`
	Epoch    int64            `json:"epoch"`
	Sequence int64            `json:"sequence"`
	Issued   time.Time        `json:"issued"`
	Expires  time.Time        `json:"expires"`
	Payload  manifest.Digest  `json:"payload_sha256"`
	SignedBy []Key            `json:"signed_by"`
}

// VerifyManifest opens an envelope as a machine would that knows f's newest root, and has
// no release yet.
func (f *Fleet) VerifyManifest(path string) (*VerifiedManifest, error) {
	d, err := ReadManifest(path)
	if err != nil {
		return nil, err
	}
	if d.Envelope == nil {
		return nil, fault.New(fault.Threshold, "%q is a draft: nobody has signed it", path).Do("shoal manifest sign %s --key REF", path)
	}
	b, err := readFile(path, manifest.MaxManifest)
	if err != nil {
		return nil, err
	}
	roots := f.state.Trust.Snapshot().Roots
	t, err := manifest.FromRoot(roots[len(roots)-1], manifest.Options{Clock: func() time.Time { return f.now }})
	if err != nil {
		return nil, err
	}
	cycle, err := t.Begin()
	if err != nil {
		return nil, err
	}
	v, _, err := cycle.Manifest(d.Manifest.Name(), b)
	if err != nil {
		return nil, inFile(path, err)
	}
	m := v.Manifest
	res := &VerifiedManifest{
		FleetID: manifest.FleetID(f.ID), Root: f.Root.Version, Channel: m.Name(), Version: m.Release.Version,
		Epoch: m.Epoch, Sequence: m.Sequence, Issued: m.Issued, Expires: m.Expires, Payload: v.Hash,
	}
	for _, id := range v.SignedBy {
		res.SignedBy = append(res.SignedBy, named(f.Root, id))
	}
	return res, nil
}

// Last is what ch released last; nil when nothing is known of it.
func (f *Fleet) Last(ch manifest.Channel) *manifest.Manifest {
	c, err := f.state.Channel(ch)
	if err != nil {
		return nil
	}
	return c.Latest
}

// ManifestInfo is what a manifest file says, verified by nobody.
type ManifestInfo struct {
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version"`
	Epoch    int64            `json:"epoch"`
	Sequence int64            `json:"sequence"`
	FleetID  manifest.FleetID `json:"fleet_id"`
	Payload  manifest.Digest  `json:"payload_sha256"`
	Document json.RawMessage  `json:"manifest"` // the payload itself
	KeyIDs   []keys.ID        `json:"keyids"`   // of the signatures, as they say
}

// DescribeManifest tells what a file says.
func DescribeManifest(f *ManifestFile) *ManifestInfo {
	m := f.Manifest
	info := &ManifestInfo{
		Channel: m.Name(), Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		FleetID: manifest.FleetID(m.Repo), Payload: f.Hash(), Document: f.Payload, KeyIDs: []keys.ID{},
	}
	if f.Envelope != nil {
		for _, s := range f.Envelope.Signatures {
			info.KeyIDs = append(info.KeyIDs, s.KeyID)
		}
	}
	return info
}
