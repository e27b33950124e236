package publisher

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
)

const maxDataFiles = 4096 // files looked at in a directory of builds

// EnvelopeRequest publishes a manifest that was drafted, and signed, elsewhere.
type EnvelopeRequest struct {
	Envelope string                                       // file
	Files    []string                                     // the builds and attachments it names, in any order, of any name
	DataDir  string                                       // a directory to look for them in; may be empty
	Keys     func(context.Context) ([]keys.Signer, error) // as in PublishRequest
	DryRun   bool
}

// PublishEnvelope publishes what is signed already, or adds the signatures that are
// missing. The builds are found by their content.
func (p *Publisher) PublishEnvelope(ctx context.Context, req EnvelopeRequest) (*PublishResult, error) {
	b, err := readLimited(req.Envelope, manifest.MaxManifest)
	if err != nil {
		return nil, err
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeManifest)
	if err != nil {
		return nil, err
	}
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		return nil, err
	}
	r, err := p.begin(ctx, m.Name(), req.DryRun)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if m.Repo != r.trust.Repo() {
		return nil, fault.New(fault.WrongTarget, "%q is a release of another fleet", req.Envelope).
			Line("It is for sha256:%s; this repository is sha256:%s.", m.Repo, r.trust.Repo()).Line("Nothing was published.")
	}
	if held := r.ch.Held; held != nil && held.Hash == env.PayloadHash() {
		res := r.result(m, nil)
		res.Already, res.DryRun = true, req.DryRun
		res.published(held, r.role)
		return res, nil
	}
	hash := env.PayloadHash()
	// The last manifest itself is welcome again: when root has replaced keys, the same
	// payload gets new signatures.
	if was := m.Order().Compare(r.ch.Last); was < 0 || was == 0 && hash != r.ch.LastHash {
		return nil, fault.New(fault.Rollback, "%s %s is not above %s, which is published", m.Name(), m.Order(), r.ch.Last).
			Line("Nothing was published.").Do("draft it again, for the next sequence")
	}
	if err := r.compare(m, hash, m.Sequence > r.ch.Last.Sequence+1); err != nil {
		return nil, err
	}
	if err := r.check(PublishRequest{AllowVersionRegress: true}, m); err != nil {
		return nil, err // the version was the drafter's to decide, and is signed
	}
	files, err := req.candidates()
	if err != nil {
		return nil, err
	}
	var c content
	defer c.close()
	if c.builds, err = p.findBuilds(ctx, m, files); err != nil {
		return nil, err
	}
	if err := c.findAttached(ctx, m, p.Tree(), files); err != nil {
		return nil, err
	}
	if err := c.builds.checkTrees(ctx); err != nil {
		return nil, err
	}
	if req.DryRun {
		res := r.result(m, c.builds)
		res.DryRun = true
		return res, nil
	}
	signers, err := r.signers(ctx, req.Keys)
	if err != nil {
		return nil, err
	}
	if len(signers) > 0 {
		if err := manifest.KnowsAll(env.Type, env.Payload); err != nil {
			return nil, err
		}
	}
	return r.finish(ctx, env, signers, &c, filepath.Dir(req.Envelope))
}

// findBuilds finds the file of every artifact by length and hash, among files and in what
// the repository has from an earlier release.
func (p *Publisher) findBuilds(ctx context.Context, m *manifest.Manifest, files []string) (_ builds, err error) {
	var bs builds
	defer func() {
		if err != nil {
			bs.close()
		}
	}()
	for i := range m.Artifacts {
		want := m.Artifacts[i]
		mine := append([]string{filepath.Join(p.Tree(), filepath.FromSlash(tree.Data(want.SHA256)))}, files...)
		b, err := findBuild(ctx, want, mine)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return nil, fault.New(fault.NotFound, "no file here is the one signed for %s", want.Platform()).
				Line("Wanted: sha256 %s, %d bytes. %d files were looked at. Nothing was published.", want.SHA256, want.Length, len(files)).
				Do("name it, or the directory it is in: --data DIR").Fact("sha256", want.SHA256.String())
		}
		bs = append(bs, b)
	}
	return bs, nil
}

// candidates are the files that may be of the release: those that were named, and those
// in the directory.
func (req *EnvelopeRequest) candidates() ([]string, error) {
	files := append([]string(nil), req.Files...)
	if req.DataDir == "" {
		return files, nil
	}
	err := filepath.WalkDir(req.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			files = append(files, path)
		}
		if len(files) > maxDataFiles {
			return fault.New(fault.Usage, "%q holds more than %d files", req.DataDir, maxDataFiles).
				Do("name the directory of the builds alone")
		}
		return nil
	})
	if err != nil {
		return nil, fault.New(codeOr(err, fault.NotFound), "looking for builds: %w", err)
	}
	return files, nil
}

func findBuild(ctx context.Context, want manifest.Artifact, files []string) (*build, error) {
	for _, path := range files {
		if fi, err := os.Stat(path); err != nil || fi.Size() != want.Length {
			continue
		}
		file, err := openFile(path)
		if err != nil {
			continue
		}
		b := &build{path: path, file: file, artifact: want}
		signed := func() bool { return len(want.Payloads) == 1 && b.artifact.Payloads[0] == want.Payloads[0] }
		err = b.hash(ctx, false)
		if err == nil && b.artifact.SHA256 != want.SHA256 {
			b.file.Close()
			continue
		}
		if err == nil && !signed() {
			err = b.hash(ctx, true) // whoever drafted it had the fleet's key
		}
		if err != nil {
			b.file.Close()
			return nil, err
		}
		if !signed() {
			b.file.Close()
			return nil, fault.New(fault.BadInfo, "the torrent signed for %s is not the one this version of shoal makes", want.Platform()).
				Line("Nothing was published.").Do("draft and sign it again with this version")
		}
		b.artifact = want
		return b, nil
	}
	return nil, nil
}

// readLimited reads a small file that somebody else may have written.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no file %q: %w", path, err)
	}
	if err != nil {
		return nil, fault.New(fault.Permission, "cannot read %q: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.New(fault.IO, "reading %q: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.TooLarge, "%q is larger than %d bytes", path, limit)
	}
	return b, nil
}
