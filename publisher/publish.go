package publisher

import (
	"context"
	"errors"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/repo"
	"shoal/publisher/rollout"
	"shoal/publisher/witness"
)

// PublishRequest says what to release.
type PublishRequest struct {
	Channel manifest.Channel
	Version string // a label of the release
	Files   []File // one for each platform
	Kind    string // of the files; empty means manifest.KindBinary

	Attachments []Attach // at most 16, each of its own name

	Notes     string // plain text, at most 4 KiB
	Severity  string // "security" or "critical"; anything else counts as normal
	Immediate bool   // with critical: maintenance windows are skipped

	// Plan is how the release reaches its machines; nil means as the configuration says.
	Plan *rollout.Plan
	// Start lets the plan begin at once. Without, it is signed paused.
	Start bool

	// Expires is how long the release stays believed; zero means as the configuration
	// says, else as long as root allows.
	Expires time.Duration
	// Sequence jumps forward to a number above the last; zero means the next.
	Sequence int64
	// AllowVersionRegress lets a version be released that is older than the published
	// one, or the same with other bytes.
	AllowVersionRegress bool
	// Block is content that no machine may run from now on. What earlier releases of the
	// channel block stays blocked, unless Unblock names it.
	Block   []manifest.Blocked
	Unblock []manifest.Digest

	// Keys opens the keys that sign, each at most once and all of the channel's release
	// role. It is asked when all else is well, so that nobody types a passphrase for a
	// release that cannot be. If nil, there is none.
	Keys func(context.Context) ([]keys.Signer, error)
	// DryRun checks everything that can be checked without a signature, and changes nothing.
	DryRun bool
	// DraftOnly writes the draft for review, and neither signs nor publishes.
	DraftOnly bool
	// DraftDir is where a draft goes that is not, or not sufficiently, signed; empty
	// means the working directory.
	DraftDir string
}

// PublishResult says what was released.
type PublishResult struct {
	Channel   manifest.Channel `json:"channel"`
	Version   string           `json:"version"`
	Epoch     int64            `json:"epoch"`
	Sequence  int64            `json:"sequence"`
	Issued    time.Time        `json:"issued"`
	Expires   time.Time        `json:"expires"`
	Manifest  string           `json:"manifest,omitempty"` // payload hash, once there is one
	Artifacts []ArtifactResult `json:"artifacts"`
	Attached  []AttachedInfo   `json:"attachments,omitempty"`
	SignedBy  []SignedBy       `json:"signed_by"`
	Threshold int              `json:"threshold"`

	Previous      string   `json:"previous,omitempty"`       // version it replaces
	PreviousOrder string   `json:"previous_order,omitempty"` // "epoch.sequence"
	Left          []string `json:"left_platforms,omitempty"` // platforms the previous release had and this has not
	Draft         string   `json:"draft,omitempty"`          // file, for DraftOnly
	Tree          string   `json:"tree"`                     // the static files
	Already       bool     `json:"already"`                  // it was published, and nothing was changed
	Waves         []Wave   `json:"waves,omitempty"`          // none: everyone at once
	Paused        bool     `json:"paused,omitempty"`         // no machine begins before it is started
	DryRun        bool     `json:"dry_run,omitempty"`        // nothing was changed
	Blocked       int      `json:"blocked,omitempty"`        // contents that no machine may run
	Warnings      []string `json:"warnings,omitempty"`       // places that could not be compared
}

// Wave is one wave of a plan.
type Wave struct {
	Name    string    `json:"name"`
	Rings   []string  `json:"rings,omitempty"`
	Percent int       `json:"percent,omitempty"`
	After   int64     `json:"after_seconds"` // from the start of the plan
	Opens   time.Time `json:"opens"`         // never before
	Gated   bool      `json:"gated"`         // and not before its gate is opened
	Soak    int64     `json:"soak_seconds,omitempty"`
}

// SignedBy is a key that signed.
type SignedBy struct {
	Name string  `json:"name"` // its comment in root
	ID   keys.ID `json:"id"`
}

// ArtifactResult is one file of a release.
type ArtifactResult struct {
	Platform string            `json:"platform"`
	File     string            `json:"file,omitempty"`
	Length   int64             `json:"length"`
	SHA256   manifest.Digest   `json:"sha256"`
	Infohash manifest.Infohash `json:"infohash"`
}

// Publish releases files to a channel. When the keys at hand are fewer than the
// channel's threshold it publishes nothing, leaves the draft and what signatures there
// are in DraftDir, and returns an error with the code threshold that says how to go on.
// The same files under the same version again change nothing. When another place that
// serves the repository has a higher release, or another one under the last number, the
// code is equivocation.
func (p *Publisher) Publish(ctx context.Context, req PublishRequest) (*PublishResult, error) {
	d, err := p.draft(ctx, &req)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if d.already(req, d.m) {
		d.res.Already, d.res.DryRun = true, req.DryRun
		d.res.published(d.ch.Held, d.role)
		if !req.DryRun && !req.DraftOnly {
			// What a crash or a lost disk block took away is put back.
			return d.res, d.store(ctx, d.ch.Held.Manifest, &d.content)
		}
		return d.res, nil
	}
	if err := d.review(req); err != nil {
		return nil, err
	}
	return d.publish(ctx, req.signing())
}

// Draft returns what Publish would have signed, and writes nothing.
func (p *Publisher) Draft(ctx context.Context, req PublishRequest) ([]byte, *PublishResult, error) {
	req.DraftOnly = true
	d, err := p.draft(ctx, &req)
	if err != nil {
		return nil, nil, err
	}
	defer d.close()
	if err := d.review(req); err != nil {
		return nil, nil, err
	}
	return d.payload, d.res, nil
}

// drafted is a manifest on its way to being signed.
type drafted struct {
	*release
	m       *manifest.Manifest
	payload []byte // once it is reviewed
	content content
	res     *PublishResult
}

func (d *drafted) close() {
	d.content.close()
	d.release.close()
}

func (p *Publisher) draft(ctx context.Context, req *PublishRequest) (_ *drafted, err error) {
	if req.Kind == "" {
		req.Kind = manifest.KindBinary
	}
	if !manifest.ValidVersion(req.Version) {
		return nil, fault.New(fault.Usage, "%q cannot be a version", req.Version).
			Line("A version is 1 to 64 of letters, digits, dot, plus, underscore and hyphen.").Do("give one: --version 1.0.0")
	}
	d := &drafted{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.content.builds, err = p.readBuilds(ctx, req.Channel.App, req.Kind, req.Files); err != nil {
		return nil, err
	}
	if err := d.content.attach(ctx, req.Attachments); err != nil {
		return nil, err
	}
	if err := d.content.builds.checkTrees(ctx); err != nil {
		return nil, err
	}
	if d.release, err = p.begin(ctx, req.Channel, req.DryRun || req.DraftOnly); err != nil {
		return nil, err
	}
	if d.m, err = d.manifest(*req, &d.content); err != nil {
		return nil, err
	}
	if err := d.compare(d.m, manifest.Digest{}, req.Sequence != 0); err != nil {
		return nil, err
	}
	d.res = d.result(d.m, d.content.builds)
	return d, nil
}

// review makes the bytes that are signed, unless somebody would regret it.
func (d *drafted) review(req PublishRequest) (err error) {
	if err := d.check(req, d.m); err != nil {
		return err
	}
	d.payload, err = manifest.Draft(d.m, d.now)
	return err
}

// signing is what becomes of a draft.
type signing struct {
	keys              func(context.Context) ([]keys.Signer, error)
	dryRun, draftOnly bool
	draftDir          string
	orDraft           bool // without a key at hand, leave the draft
}

func (r *PublishRequest) signing() signing {
	return signing{keys: r.Keys, dryRun: r.DryRun, draftOnly: r.DraftOnly, draftDir: r.DraftDir}
}

// publish signs and publishes what was reviewed, as far as it is to go.
func (d *drafted) publish(ctx context.Context, s signing) (*PublishResult, error) {
	switch {
	case s.dryRun:
		d.res.DryRun = true
		return d.res, nil
	case s.draftOnly:
		return d.res, d.writeDraft(s.draftDir, d.m, d.payload, d.res)
	}
	env, err := d.pending(s.draftDir, d.m, d.payload)
	if err != nil {
		return nil, err
	}
	signers, err := d.signers(ctx, s.keys)
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 && s.orDraft {
		return d.res, d.writeDraft(s.draftDir, d.m, d.payload, d.res)
	}
	if len(signers) == 0 {
		return nil, fault.New(fault.Usage, "there is no key to sign %s with", d.m.Name()).
			Line("%d of %d release keys must sign. Nothing was published.", d.role.Threshold, len(d.role.Keys)).
			Do("name one: --key file:PATH, or keys.release in publisher.yaml").
			Do("or write the draft for others to sign: --draft")
	}
	return d.finish(ctx, env, signers, &d.content, s.draftDir)
}

// release is one run of Publish or PublishEnvelope against one reading of the
// repository, which nobody else changes meanwhile.
type release struct {
	p      *Publisher
	now    time.Time
	writer *repo.Writer // nil when nothing will be written
	ch     *repo.Channel
	trust  *manifest.Trust // of an agent that has seen all there is
	cycle  *manifest.Cycle
	role   keys.Role
	names  map[keys.ID]string
	views  []witness.View // of the other places that serve the repository
}

func (p *Publisher) begin(ctx context.Context, name manifest.Channel, readOnly bool) (_ *release, err error) {
	r := &release{p: p, now: p.now().UTC().Truncate(time.Second)}
	if !readOnly {
		if r.writer, err = p.repo.Lock(ctx, func(step string) error {
			if err := ctx.Err(); err != nil || p.step == nil {
				return err
			}
			return p.step(step)
		}); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	state, err := p.repo.Read()
	if err != nil {
		return nil, err
	}
	if r.ch, err = state.Channel(name); err != nil {
		return nil, err
	}
	if r.ch.Err != nil {
		return nil, r.ch.Err
	}
	// What comes out must convince an agent with everything this repository ever said,
	// and a true clock. Its root must not have run out either.
	r.trust, _, err = manifest.Load(state.Trust.Snapshot(), manifest.Options{Clock: p.now})
	if err != nil {
		return nil, err
	}
	if r.cycle, err = r.trust.Begin(); err != nil {
		if errors.Is(err, fault.RootExpired) {
			return nil, fault.New(fault.RootExpired, "this fleet's root is out of date: no machine would believe a release").
				Line("Root version %d expired %s. Nothing was published.", r.trust.RootVersion(), stamp(r.trust.Root().Expires)).
				Do("have the root keys sign the next root version")
		}
		return nil, err
	}
	r.views = witness.Look(ctx, p.cfg.Transport(), p.cfg.Places(), state.Trust, name)
	return r, r.readRole(state.Trust.Root())
}

// compare refuses m, which has the payload hash if that is known already, when what is
// out there says that this repository is not the newest. jump says that somebody chose
// m's number.
func (r *release) compare(m *manifest.Manifest, hash manifest.Digest, jump bool) error {
	return witness.Refuse(r.views, r.ch.Name, r.ch.Last, m.Order(), hash, jump)
}

func (r *release) readRole(root *manifest.Root) error {
	r.role.Threshold, r.names = r.ch.Spec.Release.Threshold, map[keys.ID]string{}
	for _, id := range r.ch.Spec.Release.KeyIDs {
		k, err := keys.ParsePublicKey(root.Keys[id])
		if err != nil {
			return fault.New(fault.BadKey, "reading release key %s of root: %w", id, err)
		}
		r.role.Keys = append(r.role.Keys, k)
		r.names[id] = keyName(k)
	}
	return nil
}

func (r *release) close() {
	if r != nil && r.writer != nil {
		r.writer.Close()
		r.writer = nil
	}
}

// finish signs env with the keys at hand and publishes it if they are enough.
func (r *release) finish(ctx context.Context, env *manifest.Envelope, signers []keys.Signer, c *content, draftDir string) (*PublishResult, error) {
	for _, s := range signers {
		if err := sign(ctx, env, s); err != nil {
			return nil, err
		}
	}
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		return nil, err
	}
	if _, err := r.role.Verify(string(env.Type), env.Payload, env.Signatures); err != nil {
		return nil, r.keepDraft(draftDir, m, env, c, err)
	}
	v, _, err := r.cycle.Manifest(r.ch.Name, env.Marshal())
	if err != nil {
		return nil, err
	}
	res := r.result(m, c.builds)
	res.published(v, r.role)
	if err := r.store(ctx, m, c); err != nil {
		return nil, err
	}
	if err := r.writer.Publish(r.ch.Name, m.Order(), env.Marshal()); err != nil {
		return nil, err
	}
	r.dropDraft(draftDir, m, env)
	return res, nil
}

// store puts everything a manifest names into the repository. The manifest itself comes
// last, elsewhere: whoever sees it finds the rest.
func (r *release) store(ctx context.Context, m *manifest.Manifest, c *content) error {
	for _, a := range c.attached {
		if err := r.writer.AddData(ctx, a.file, a.Length, a.SHA256); err != nil {
			return err
		}
	}
	for _, b := range c.builds {
		if err := r.writer.AddData(ctx, b.file, b.artifact.Length, b.artifact.SHA256); err != nil {
			return err
		}
		if err := r.writer.AddInfo(b.info); err != nil {
			return err
		}
		torrent, magnet := r.p.metainfo(m, b)
		if err := r.writer.AddRelease(m.App, m.Release.Version, b.artifact.Platform(), b.artifact.SHA256, torrent, magnet); err != nil {
			return err
		}
	}
	return nil
}

// result is what there is to say of m, signed or not.
func (r *release) result(m *manifest.Manifest, bs builds) *PublishResult {
	res := &PublishResult{
		Channel: r.ch.Name, Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		Issued: m.Issued, Expires: m.Expires, Threshold: r.role.Threshold,
		SignedBy: []SignedBy{}, Tree: r.p.Tree(), Attached: attachedInfos(m), Blocked: len(m.Blocked), Warnings: witness.Warnings(r.views),
	}
	paths := map[manifest.Platform]string{}
	for _, b := range bs {
		paths[b.artifact.Platform()] = b.path
	}
	offered := map[manifest.Platform]bool{}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		offered[a.Platform()] = true
		one := ArtifactResult{Platform: a.Platform().String(), File: paths[a.Platform()], Length: a.Length, SHA256: a.SHA256}
		if pl, ok := a.Usable(); ok {
			one.Infohash = pl.Infohash
		}
		res.Artifacts = append(res.Artifacts, one)
	}
	res.planned(m.Rollout)
	if last := r.ch.Latest; last != nil {
		res.Previous, res.PreviousOrder = last.Release.Version, last.Order().String()
		for i := range last.Artifacts {
			if !offered[last.Artifacts[i].Platform()] {
				res.Left = append(res.Left, last.Artifacts[i].Platform().String())
			}
		}
	}
	return res
}

// published fills in what only a verified manifest has.
func (res *PublishResult) published(v *manifest.Verified, role keys.Role) {
	m := v.Manifest
	res.Epoch, res.Sequence, res.Issued, res.Expires = m.Epoch, m.Sequence, m.Issued, m.Expires
	res.Manifest = v.Hash.Prefixed()
	res.SignedBy = res.SignedBy[:0]
	for _, id := range v.SignedBy {
		for _, k := range role.Keys {
			if k.ID() == id {
				res.SignedBy = append(res.SignedBy, SignedBy{Name: keyName(k), ID: id})
			}
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
