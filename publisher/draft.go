package publisher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// manifest is the draft of the next manifest.
func (r *release) manifest(req PublishRequest, c *content) (*manifest.Manifest, error) {
	m := &manifest.Manifest{
		Release:     manifest.Release{Version: req.Version, Severity: req.Severity, Immediate: req.Immediate, Notes: req.Notes},
		Artifacts:   c.builds.artifacts(),
		Attachments: c.attachments(),
		Blocked:     r.blocked(req),
	}
	if err := r.place(m, req.Sequence, req.Expires); err != nil {
		return nil, err
	}
	return m, r.plan(req, m)
}

// place gives m its place in the channel and its dates.
func (r *release) place(m *manifest.Manifest, sequence int64, validity time.Duration) error {
	spec := r.ch.Spec
	next := manifest.Order{Epoch: spec.Epoch, Sequence: 1}
	if r.ch.Last.Epoch == spec.Epoch {
		next.Sequence = r.ch.Last.Sequence + 1
	}
	if sequence != 0 {
		if sequence < next.Sequence {
			return fault.New(fault.Rollback, "sequence %d of %s is taken: the last one is %d", sequence, r.ch.Name, next.Sequence-1).
				Line("A sequence only ever rises; machines refuse one they have passed. Nothing was published.").
				Do("leave --sequence out for %d", next.Sequence).Fact("last", next.Sequence-1)
		}
		next.Sequence = sequence
	}
	if validity == 0 {
		validity = r.p.cfg.habits(r.ch.Name).Expires
	}
	if validity == 0 {
		validity = spec.MaxValidity
	}
	m.Repo, m.App, m.Channel = r.trust.Repo(), r.ch.Name.App, r.ch.Name.Name
	m.Epoch, m.Sequence = next.Epoch, next.Sequence
	m.Issued, m.Expires = r.now, r.now.Add(validity.Truncate(time.Second))
	return nil
}

// blocked is everything that was ever blocked in the channel, here or where a copy of
// the repository is ahead, and what is blocked now. A new epoch changes nothing about
// it: what a bad release did is still bad.
func (r *release) blocked(req PublishRequest) []manifest.Blocked {
	var all []manifest.Blocked
	add := func(list []manifest.Blocked) {
		for _, b := range list {
			known := slices.ContainsFunc(all, func(have manifest.Blocked) bool { return have.SHA256 == b.SHA256 })
			if !known && !slices.Contains(req.Unblock, b.SHA256) {
				all = append(all, b)
			}
		}
	}
	if r.ch.Latest != nil {
		add(r.ch.Latest.Blocked)
	}
	for _, v := range r.views {
		if v.Manifest != nil {
			add(v.Manifest.Blocked)
		}
	}
	add(req.Block)
	return all
}

// latest is the release before this one, of this epoch: what an older epoch said may
// have been a thief's.
func (r *release) latest() *manifest.Manifest {
	if m := r.ch.Latest; m != nil && m.Epoch == r.ch.Spec.Epoch {
		return m
	}
	return nil
}

// already reports whether m says nothing that the published manifest does not, and
// nobody asked for a new one.
func (r *release) already(req PublishRequest, m *manifest.Manifest) bool {
	if r.ch.Held == nil || req.Sequence != 0 || req.Expires != 0 {
		return false
	}
	held := r.ch.Held.Manifest
	return held.Epoch == m.Epoch && held.Release == m.Release && r.now.Before(held.Expires) &&
		slices.Equal(held.Blocked, m.Blocked) && sameContent(held, m) && sameAttached(held, m) && samePlan(held.Rollout, m.Rollout)
}

func sameContent(a, b *manifest.Manifest) bool {
	return slices.EqualFunc(a.Artifacts, b.Artifacts, sameArtifact)
}

func sameArtifact(a, b manifest.Artifact) bool {
	return a.Name == b.Name && kindOr(a.Kind) == kindOr(b.Kind) && a.Platform() == b.Platform() &&
		a.SHA256 == b.SHA256 && a.Length == b.Length && a.Mode == b.Mode
}

func kindOr(kind string) string {
	if kind == "" {
		return manifest.KindBinary
	}
	return kind
}

// check refuses what a person would regret to have signed.
func (r *release) check(req PublishRequest, m *manifest.Manifest) error {
	const nothing = "Nothing was published."
	if got, most := m.Expires.Sub(m.Issued), r.ch.Spec.MaxValidity; got > most {
		return fault.New(fault.Policy, "root lets a release of %s be believed for %s, not %s", m.Name(), hours(most), hours(got)).
			Line(nothing).Do("ask for less: --expires %s", hours(most)).Fact("max_validity", most.String())
	}
	for _, a := range m.Artifacts {
		for _, b := range m.Blocked {
			if a.SHA256 == b.SHA256 {
				return fault.New(fault.Blocked, "the file for %s is blocked: %s", a.Platform(), b.Reason).
					Line("An earlier release of %s blocked sha256 %s, and no machine will run it. %s", m.Name(), a.SHA256, nothing).
					Do("publish another build, or if this one was blocked by mistake: shoal publish --unblock %s", a.SHA256).
					Fact("sha256", a.SHA256.String())
			}
		}
	}
	last := r.latest()
	if last == nil {
		return nil
	}
	if m.Issued.Before(last.Issued) {
		return fault.New(fault.Policy, "this computer's clock is behind: the last release of %s is from %s", m.Name(), stamp(last.Issued)).
			Line("The clock says %s. %s", stamp(m.Issued), nothing).Do("set the clock")
	}
	if req.AllowVersionRegress {
		return nil
	}
	if older(m.Release.Version, last.Release.Version) {
		return fault.New(fault.Policy, "%s is older than %s, which is published", m.Release.Version, last.Release.Version).
			Line("Every machine on %s would go back. %s", m.Name(), nothing).
			Do("if that is what you want: --allow-version-regress").
			Fact("version", m.Release.Version).Fact("published", last.Release.Version)
	}
	if m.Release.Version == last.Release.Version {
		for i := range m.Artifacts {
			a := &m.Artifacts[i]
			for j := range last.Artifacts {
				if b := &last.Artifacts[j]; a.Platform() == b.Platform() && a.SHA256 != b.SHA256 {
					return fault.New(fault.Policy, "%s %s is published already, with other bytes for %s", m.Name(), m.Release.Version, a.Platform()).
						Line("Published: sha256 %s. This file: %s.", b.SHA256, a.SHA256).
						Line("Two programs of one name are hard to tell apart later. %s", nothing).
						Do("give it a version of its own, or --allow-version-regress").
						Fact("platform", a.Platform().String())
				}
			}
		}
	}
	return nil
}

// older reports whether version a comes before b. Versions are labels: where one is not
// a semantic version nobody can tell, and nothing is refused.
func older(a, b string) bool {
	va, err := semver.NewVersion(a)
	if err != nil {
		return false
	}
	vb, err := semver.NewVersion(b)
	return err == nil && va.LessThan(vb)
}

// signers opens the keys that sign, and refuses one that root does not let sign this
// channel.
func (r *release) signers(ctx context.Context, open func(context.Context) ([]keys.Signer, error)) ([]keys.Signer, error) {
	if open == nil {
		return nil, nil
	}
	signers, err := open(ctx)
	if err != nil {
		return nil, err
	}
	return signers, r.mayAllSign(signers)
}

func (r *release) mayAllSign(signers []keys.Signer) error {
	seen := map[keys.ID]bool{}
	for _, s := range signers {
		id := s.Public().ID()
		if _, ok := r.names[id]; !ok {
			var may []string
			for _, k := range r.role.Keys {
				may = append(may, keyName(k)+" "+string(k.ID()))
			}
			return fault.New(fault.Policy, "%s may not sign releases of %s", keyName(s.Public()), r.ch.Name).
				Line("Its fingerprint is %s. Root version %d names %s.", id, r.trust.RootVersion(), list(may)).
				Line("Nothing was published.").Do("sign with one of those: --key REF").Fact("key", string(id))
		}
		if seen[id] {
			return fault.New(fault.Usage, "%s is given twice, and counts once", r.names[id]).Do("leave one --key out")
		}
		seen[id] = true
	}
	return nil
}

// draftName is what files of a release in the making are called, without their ending.
func draftName(dir string, m *manifest.Manifest) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%s", m.App, m.Channel, m.Order()))
}

const (
	draftSuffix    = ".draft.json" // the payload, as it is reviewed and signed
	envelopeSuffix = ".env.json"   // the same with signatures
)

// pending returns the envelope to sign: a new one, or the one that was left with too
// few signatures when the same files were published before. Its exact bytes are kept,
// or the signatures would be worth nothing.
func (r *release) pending(dir string, m *manifest.Manifest, payload []byte) (*manifest.Envelope, error) {
	path := draftName(dir, m) + envelopeSuffix
	b, err := readLimited(path, manifest.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return manifest.NewEnvelope(manifest.TypeManifest, payload), nil
	}
	if err != nil {
		return nil, err
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeManifest)
	if err == nil {
		var old *manifest.Manifest
		if old, err = manifest.ReadManifestDraft(env.Payload); err == nil && r.now.Before(old.Expires) {
			same := *m
			same.Issued, same.Expires = old.Issued, old.Expires
			if same.Rollout != nil && old.Rollout != nil { // these are made anew each time
				plan := *same.Rollout
				plan.Salt, plan.Start = old.Rollout.Salt, old.Rollout.Start
				same.Rollout = &plan
			}
			if again, derr := manifest.Draft(&same, r.now); derr == nil && string(again) == string(env.Payload) {
				return env, nil
			}
		}
	}
	// Two signed documents of one number would be a fork that machines report as an attack.
	return nil, fault.New(fault.Equivocation, "another draft of %s %s waits for signatures", m.Name(), m.Order()).
		Line("%s holds other content than this, and two documents must never share a number.", path).
		Line("Nothing was published.").
		Do("finish it: shoal publish --envelope %s FILE... --key REF", path).
		Do("or give it up: remove it, here and wherever it was sent for signing").Fact("envelope", path)
}

// writeDraft writes the reviewable file and nothing else.
func (r *release) writeDraft(dir string, m *manifest.Manifest, payload []byte, res *PublishResult) error {
	path := draftName(dir, m) + draftSuffix
	if err := durable.WriteFile(path, payload, 0o644); err != nil {
		return writing(path, err)
	}
	res.Draft, res.Manifest = path, manifest.Sum(payload).Prefixed()
	return nil
}

// keepDraft leaves a release that has too few signatures where others can add theirs,
// and says so in the error.
func (r *release) keepDraft(dir string, m *manifest.Manifest, env *manifest.Envelope, c *content, err error) error {
	var few *keys.ThresholdError
	if !errors.As(err, &few) {
		return fault.New(fault.Threshold, "checking the signatures: %w", err)
	}
	base := draftName(dir, m)
	if err := durable.WriteFile(base+draftSuffix, env.Payload, 0o644); err != nil {
		return writing(base+draftSuffix, err)
	}
	if err := durable.WriteFile(base+envelopeSuffix, env.Marshal(), 0o644); err != nil {
		return writing(base+envelopeSuffix, err)
	}
	var who []string
	for _, k := range r.role.Keys {
		mark := "✗ "
		if slices.Contains(few.Signed, k.ID()) {
			mark = "✓ "
		}
		who = append(who, mark+keyName(k))
	}
	e := fault.New(fault.Threshold, "this release is not signed by enough keys: %w", few).
		Line("%s %s (sequence %d) has %d of %d required signatures:", m.Name(), m.Release.Version, m.Sequence, few.Have, few.Want).
		Line("  %s", strings.Join(who, "   ")).
		Line("Nothing was published.%s", keeps(r.latest())).
		Line("Draft to review: %s", base+draftSuffix)
	next := "shoal publish --envelope " + base + envelopeSuffix + " --key REF"
	for _, path := range c.paths() {
		next += " " + path
	}
	e.Message = "this release is not signed by enough keys"
	return e.Do("%s", next).
		Fact("have", few.Have).Fact("want", few.Want).Fact("signed_by", few.Signed).
		Fact("draft", base+draftSuffix).Fact("envelope", base+envelopeSuffix)
}

func keeps(last *manifest.Manifest) string {
	if last == nil {
		return ""
	}
	return fmt.Sprintf(" %s stays at %s.", last.Name(), last.Release.Version)
}

// dropDraft removes the files of keepDraft once they are published.
func (r *release) dropDraft(dir string, m *manifest.Manifest, env *manifest.Envelope) {
	base := draftName(dir, m)
	if b, err := readLimited(base+envelopeSuffix, manifest.MaxManifest); err == nil {
		if left, err := manifest.ParseEnvelope(b, manifest.TypeManifest); err != nil || left.PayloadHash() != env.PayloadHash() {
			return
		}
		os.Remove(base + envelopeSuffix)
		os.Remove(base + draftSuffix)
	}
}
