package publisher

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// AgainRequest is what Refresh and Yank have in common: a new manifest of files that are
// in the repository already.
type AgainRequest struct {
	Channel  manifest.Channel
	Expires  time.Duration // as in PublishRequest
	Sequence int64         // as in PublishRequest

	Keys      func(context.Context) ([]keys.Signer, error) // as in PublishRequest
	DryRun    bool
	DraftOnly bool
	DraftDir  string

	orDraft bool // without a key at hand, leave the draft
}

// Refresh publishes the channel's last release again, with the next sequence and a new
// expiry: machines fetch and install nothing anew. Signing goes as in [Publisher.Publish].
func (p *Publisher) Refresh(ctx context.Context, req AgainRequest) (*PublishResult, error) {
	r, err := p.begin(ctx, req.Channel, req.DryRun || req.DraftOnly)
	if err != nil {
		return nil, err
	}
	defer r.close()
	last := r.latest()
	if last == nil {
		return nil, fault.New(fault.NotFound, "%s has no release of epoch %d to refresh", r.ch.Name, r.ch.Spec.Epoch).
			Line("Nothing was changed.").
			Do("publish one: shoal publish --channel %s --version V FILE...", r.ch.Name)
	}
	m := *last
	m.Blocked = r.blocked(PublishRequest{})
	return r.again(ctx, &m, req)
}

// YankRequest takes a release back.
type YankRequest struct {
	AgainRequest
	Version string // no machine runs its files any more once another is there
	To      string // the version that is offered instead
	Reason  string // for people: one line, at most 256 bytes; must be set
	// Severity and Immediate as in PublishRequest.
	Severity  string
	Immediate bool
	// AllowVersionRegress lets To be older than what is published. Without it Confirm is
	// asked.
	AllowVersionRegress bool
	Confirm             func(question string) (bool, error)
}

// Yank publishes the files of one release again, with the next sequence and without
// waves, and blocks those of another: a newer statement about older bytes. Signing goes
// as in [Publisher.Publish].
func (p *Publisher) Yank(ctx context.Context, req YankRequest) (*PublishResult, error) {
	if req.Reason == "" {
		return nil, fault.New(fault.Usage, "why is %s taken back?", req.Version).
			Line("The reason is signed, and shown on every machine that has it.").Do("--reason TEXT")
	}
	if !manifest.ValidReason(req.Reason) {
		return nil, fault.New(fault.Usage, "the reason is not one line of at most 256 bytes that print; it has %d", len(req.Reason)).
			Line("It is signed, and shown on every machine that has the release. Nothing was changed.")
	}
	r, err := p.begin(ctx, req.Channel, req.DryRun || req.DraftOnly)
	if err != nil {
		return nil, err
	}
	defer r.close()
	past, err := p.repo.History(r.ch.Name, r.ch.Last)
	if err != nil {
		return nil, err
	}
	bad, err := r.ofVersion(past, req.Version)
	if err != nil {
		return nil, err
	}
	good, err := r.ofVersion(past, req.To)
	if err != nil {
		return nil, err
	}
	to := good[0].Manifest
	block := onlyIn(bad, to, req.Reason)
	if len(block) == 0 {
		return nil, fault.New(fault.Policy, "%s and %s are the same files", req.Version, req.To).
			Line("There is nothing to take back. Nothing was changed.").Do("name a release with other files: --to VERSION")
	}
	if err := r.agreed(&req); err != nil {
		return nil, err
	}
	return r.again(ctx, &manifest.Manifest{
		Release:  manifest.Release{Version: to.Release.Version, Severity: req.Severity, Immediate: req.Immediate, Notes: to.Release.Notes},
		MinAgent: to.MinAgent, Critical: to.Critical, Attachments: to.Attachments, Artifacts: to.Artifacts,
		Blocked: r.blocked(PublishRequest{Block: block}),
	}, req.AgainRequest)
}

// agreed asks whether machines may go back to an older version.
func (r *release) agreed(req *YankRequest) error {
	last := r.ch.Latest
	if req.AllowVersionRegress || last == nil || !older(req.To, last.Release.Version) {
		return nil
	}
	yes := false
	if req.Confirm != nil {
		var err error
		if yes, err = req.Confirm("Every machine on " + r.ch.Name.String() + " goes back from " + last.Release.Version + " to " + req.To + ". Go on?"); err != nil {
			return err
		}
	}
	if !yes {
		return fault.New(fault.Interrupted, "nothing was changed: the answer was no").
			Do("to answer beforehand: --allow-version-regress")
	}
	return nil
}

// ofVersion returns the manifests of a version, newest first.
func (r *release) ofVersion(past []repo.Past, version string) ([]repo.Past, error) {
	found := slices.DeleteFunc(slices.Clone(past), func(p repo.Past) bool { return p.Manifest.Release.Version != version })
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "%s has no release %q", r.ch.Name, version).
			Line("Nothing was changed.").Do("shoal release list --channel %s", r.ch.Name)
	}
	return found, nil
}

const maxReason = 256 // bytes, as a manifest's texts

// onlyIn blocks the files of bad that are not in good too. A reason that is too long with
// the version before it is cut: a release is not left running for that.
func onlyIn(bad []repo.Past, good *manifest.Manifest, reason string) []manifest.Blocked {
	var block []manifest.Blocked
	for _, p := range bad {
		for _, a := range p.Manifest.Artifacts {
			here := func(b manifest.Artifact) bool { return b.SHA256 == a.SHA256 }
			there := func(b manifest.Blocked) bool { return b.SHA256 == a.SHA256 }
			if !slices.ContainsFunc(good.Artifacts, here) && !slices.ContainsFunc(block, there) {
				text := p.Manifest.Release.Version + " yanked: " + reason
				text = strings.ToValidUTF8(text[:min(len(text), maxReason)], "") // a letter may be cut in two
				block = append(block, manifest.Blocked{SHA256: a.SHA256, Reason: text})
			}
		}
	}
	return block
}

// again signs and publishes m, whose files are in the repository.
func (r *release) again(ctx context.Context, m *manifest.Manifest, req AgainRequest) (*PublishResult, error) {
	if err := r.place(m, req.Sequence, req.Expires); err != nil {
		return nil, err
	}
	if err := r.compare(m, manifest.Digest{}, req.Sequence != 0); err != nil {
		return nil, err
	}
	if err := r.has(m); err != nil {
		return nil, err
	}
	d := &drafted{release: r, m: m, res: r.result(m, nil)}
	if err := d.review(PublishRequest{AllowVersionRegress: true}); err != nil {
		return nil, err
	}
	return d.publish(ctx, signing{
		keys: req.Keys, dryRun: req.DryRun, draftOnly: req.DraftOnly, draftDir: req.DraftDir, orDraft: req.orDraft,
	})
}

// has refuses to offer what the repository cannot give.
func (r *release) has(m *manifest.Manifest) error {
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		for _, p := range a.Payloads {
			if err := r.hasFile(m, tree.Data(p.SHA256), p.Length, a.Platform().String()); err != nil {
				return err
			}
			if err := r.hasFile(m, tree.Info(p.InfoSHA256), -1, a.Platform().String()); err != nil {
				return err
			}
		}
	}
	for _, a := range m.Attachments {
		if err := r.hasFile(m, tree.Data(a.SHA256), a.Length, "the attachment "+a.Name); err != nil {
			return err
		}
	}
	return nil
}

// hasFile looks for a file of the tree, of that length unless it is negative.
func (r *release) hasFile(m *manifest.Manifest, name string, length int64, what string) error {
	fi, err := os.Stat(filepath.Join(r.p.Tree(), filepath.FromSlash(name)))
	if err == nil && (length < 0 || fi.Size() == length) {
		return nil
	}
	return fault.New(fault.NotFound, "the repository has not got the files of %s %s any more", m.Name(), m.Release.Version).
		Line("Missing or damaged: %s, for %s. Nothing was changed.", name, what).
		Do("publish the files again under a version of their own").Fact("file", name)
}
