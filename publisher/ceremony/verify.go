package ceremony

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"shoal/internal/contextio"
	"shoal/internal/fault"
	"shoal/manifest"
)

// Belongs says which releases a file belongs to.
type Belongs struct {
	FleetID manifest.FleetID `json:"fleet_id"`
	SHA256  manifest.Digest  `json:"sha256"`
	Length  int64            `json:"length"`
	In      []Membership     `json:"in"`
}

// Membership is a file's place in one release.
type Membership struct {
	Channel    manifest.Channel `json:"channel"`
	Version    string           `json:"version"`
	Epoch      int64            `json:"epoch"`
	Sequence   int64            `json:"sequence"`
	Platform   string           `json:"platform,omitempty"`
	Attachment string           `json:"attachment,omitempty"` // its name, when it is no artifact
	Expires    time.Time        `json:"expires"`
	Expired    bool             `json:"expired"`
	Current    bool             `json:"current"` // the channel's last release, by keys of today
	SignedBy   []Key            `json:"signed_by"`
}

// release is a manifest that enough keys of its channel have signed.
type release struct {
	m      *manifest.Manifest
	hash   manifest.Digest
	signed []Key
	root   int64  // version of the newest root that says so
	path   string // of its file, where it has one
}

// Verify says whether a file is of a release that f's fleet has signed. Codes:
// content_mismatch when it is of none; blocked when the channel's last release says that
// no machine may run it.
func (f *Fleet) Verify(ctx context.Context, path string) (*Belongs, error) {
	sum, length, err := hashFile(ctx, path)
	if err != nil {
		return nil, err
	}
	res := &Belongs{FleetID: manifest.FleetID(f.ID), SHA256: sum, Length: length, In: []Membership{}}
	looked := 0
	var void []string
	for i := range f.state.Channels {
		ch := &f.state.Channels[i]
		if ch.Latest != nil {
			if b, bad := ch.Latest.Blocks(sum); bad {
				return nil, fault.New(fault.Blocked, "%q is blocked in %s: %s", path, ch.Name, orNone(b.Reason)).
					Line("sha256 %s. No machine of the channel runs it.", sum).
					Do("get the release that replaces it").Fact("sha256", sum.String()).Fact("channel", ch.Name.String())
			}
		}
		all, err := f.releases(ch.Name)
		if err != nil {
			return nil, err
		}
		looked += len(all)
		for _, r := range all {
			m, ok := r.holds(sum)
			switch {
			case !ok:
			case r.m.Epoch < ch.Spec.Epoch:
				// Root ended it because somebody else may have signed there too.
				void = append(void, fmt.Sprintf("%s %s (%s) had it, in an epoch that root has ended: what was signed there counts for nothing.", ch.Name, r.m.Release.Version, r.m.Order()))
			default:
				m.Current = ch.Held != nil && ch.Held.Hash == r.hash
				m.Expired = !f.now.Before(r.m.Expires)
				res.In = append(res.In, m)
			}
		}
	}
	if len(res.In) == 0 {
		e := fault.New(fault.ContentMismatch, "%q is of no release that this fleet has signed", path).
			Line("It has %d bytes and sha256 %s.", length, sum)
		for _, line := range void {
			e.Line("%s", line)
		}
		return nil, e.
			Line("Looked at %d releases of the fleet %s, in %s.", looked, f.ID.Prefixed(), f.where).
			Do("if it should be of an older release, look where that was published: --tree DIR, or its envelope: --manifest FILE").
			Fact("sha256", sum.String()).Fact("releases", looked)
	}
	return res, nil
}

func (r *release) holds(sum manifest.Digest) (Membership, bool) {
	m := Membership{
		Channel: r.m.Name(), Version: r.m.Release.Version, Epoch: r.m.Epoch, Sequence: r.m.Sequence,
		Expires: r.m.Expires, SignedBy: r.signed,
	}
	for i := range r.m.Artifacts {
		if a := &r.m.Artifacts[i]; a.SHA256 == sum {
			m.Platform = a.Platform().String()
			return m, true
		}
	}
	for _, a := range r.m.Attachments {
		if a.SHA256 == sum {
			m.Attachment = a.Name
			return m, true
		}
	}
	return m, false
}

// releases are those of ch, the last one first, as far as their signatures are good
// under a root of the chain.
func (f *Fleet) releases(ch manifest.Channel) ([]release, error) {
	c, err := f.state.Channel(ch)
	if err != nil {
		return nil, err
	}
	var all []release
	add := func(raw []byte, path string) error {
		env, err := manifest.ParseEnvelope(raw, manifest.TypeManifest)
		if err != nil {
			return err
		}
		r, err := f.signed(ch, env)
		if err != nil || r == nil || len(all) > 0 && all[0].hash == r.hash {
			return err
		}
		r.path = path
		all = append(all, *r)
		return nil
	}
	if c.Stored != nil {
		if err := add(c.Stored, ""); err != nil {
			return nil, err
		}
	}
	if f.repo == nil {
		return all, nil
	}
	past, err := f.repo.History(ch, c.Last)
	if err != nil {
		return nil, err
	}
	for _, p := range past {
		if err := add(p.Raw, p.Path); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// signed finds the newest root under which an envelope's signatures are enough; nil when
// there is none.
func (f *Fleet) signed(ch manifest.Channel, env *manifest.Envelope) (*release, error) {
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		return nil, err
	}
	roots := f.state.Trust.Snapshot().Roots
	for i := len(roots) - 1; i >= 0; i-- {
		e, err := manifest.ParseEnvelope(roots[i], manifest.TypeRoot)
		if err != nil {
			return nil, err
		}
		root, err := manifest.ReadRootDraft(e.Payload)
		if err != nil {
			return nil, err
		}
		spec, ok := root.Channel(ch)
		if !ok || spec.Epoch != m.Epoch || m.Repo != f.ID || m.Name() != ch {
			continue
		}
		s, err := signersOf(ch.String(), root, spec.Release, env)
		if err != nil {
			return nil, err
		}
		if s.Complete() {
			return &release{m: m, hash: env.PayloadHash(), signed: s.Signed, root: root.Version}, nil
		}
	}
	return nil, nil
}

func hashFile(ctx context.Context, path string) (sum manifest.Digest, n int64, err error) {
	fi, err := os.Stat(path)
	if err == nil && !fi.Mode().IsRegular() {
		return sum, 0, fault.New(fault.Usage, "%q is not a file", path)
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sum, 0, fault.New(fault.NotFound, "there is no file %q", path)
	case errors.Is(err, fs.ErrPermission):
		return sum, 0, fault.New(fault.Permission, "cannot read %q: %w", path, err)
	case err != nil:
		return sum, 0, fault.New(fault.IO, "reading %q: %w", path, err)
	}
	defer file.Close()
	h := sha256.New()
	if n, err = io.Copy(h, contextio.Reader(ctx, file)); err != nil {
		return sum, 0, fault.New(codeOr(err, fault.IO), "reading %q: %w", path, err)
	}
	return manifest.Digest(h.Sum(nil)), n, nil
}
