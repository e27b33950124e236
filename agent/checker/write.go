package checker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"shoal/agent/cache"
	"shoal/internal/contextio"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
)

const maxArtifact = 64 << 30 // bytes; what a checker is willing to write

// write fetches the chosen artifact from the source and puts it at out, unless it is
// there.
func (s *session) write(ctx context.Context, out string) error {
	if there, err := s.there(ctx, out); there || err != nil {
		return err
	}
	p, ok := s.choice.Usable()
	if !ok {
		return fault.New(fault.NoArtifact, "%s comes in no form this build understands", s.choice.Name).Do("use a newer shoal")
	}
	if p.Length > maxArtifact {
		return fault.New(fault.Quota, "the artifact is larger than a checker writes").
			Line("It has %d bytes, at most %d are written. Nothing was fetched.", p.Length, int64(maxArtifact)).
			Fact("need", p.Length).Fact("limit", int64(maxArtifact))
	}
	if err := s.infoDict(ctx, p); err != nil {
		return err
	}
	dir, name := filepath.Split(out)
	if dir == "" {
		dir = "."
	}
	if err := cache.Room(dir, p.Length); err != nil {
		return err
	}
	// Not in the cache of anything: a file beside out, so that the rename is atomic.
	f, err := os.CreateTemp(dir, "."+name+".*.unverified")
	if err != nil {
		return failure(err, "writing %q", out)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := s.fill(ctx, f, p); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return failure(err, "writing %q", out)
	}
	if err := cache.Check(ctx, f, p.SHA256, p.Length); err != nil {
		return err
	}
	if mode, err := strconv.ParseUint(s.choice.Mode, 8, 32); err == nil {
		if err := f.Chmod(fs.FileMode(mode).Perm()); err != nil {
			return failure(err, "writing %q", out)
		}
	}
	if err := f.Sync(); err != nil {
		return failure(err, "writing %q", out)
	}
	if err := s.authorize(); err != nil {
		return err
	}
	if err := durable.Rename(f.Name(), out); err != nil {
		return failure(err, "writing %q", out)
	}
	return nil
}

// there reports whether out has the chosen content already. What it has instead may be
// something that the publisher has blocked since.
func (s *session) there(ctx context.Context, out string) (bool, error) {
	f, err := os.Open(out)
	if err != nil {
		return false, nil // writing will tell what is wrong with it
	}
	defer f.Close()
	blocked := s.verified.Manifest.Blocked
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != s.choice.Length && len(blocked) == 0 {
		return false, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, contextio.Reader(ctx, f)); err != nil {
		return false, ctx.Err()
	}
	sum := manifest.Digest(h.Sum(nil))
	if b, is := s.verified.Manifest.Blocks(sum); is {
		s.result.Events = append(s.result.Events, manifest.Event{Code: fault.RunningBlocked, Doc: "manifest " + s.q.Channel.String(),
			Detail: fmt.Sprintf("the publisher has blocked what is at %q: %s", out, b.Reason)})
	}
	return sum == s.choice.SHA256, nil
}

// authorize asks once more, from what is on disk, whether the artifact may be used.
func (s *session) authorize() error {
	trust, err := s.follow.Reread(false)
	if err != nil {
		return err
	}
	cycle, err := trust.Begin()
	if err != nil {
		return err
	}
	return cycle.Authorize(s.q.Channel, s.choice.SHA256)
}

// infoDict checks the payload's info dict if the source has it: the bytes come from the
// source itself, so it is not needed, but a wrong one would be handed on to a swarm.
func (s *session) infoDict(ctx context.Context, p *manifest.Payload) error {
	b, err := s.source.Document(ctx, tree.Info(p.InfoSHA256), swarm.MaxInfoSize)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case errors.Is(err, fault.TooLarge):
		return fault.New(fault.BadInfo, "the info dict is larger than one may be: %w", err)
	case err != nil:
		return err
	}
	ref := swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length}
	if _, err := swarm.OpenInfo(b, ref); err != nil {
		return fault.New(fault.BadInfo, "the info dict from %s is not as signed: %w", s.source.Name(), err).
			Line("Nothing was fetched.").
			Fact("info_sha256", p.InfoSHA256.String())
	}
	return nil
}

// fill copies the payload, and at most one byte more, so that a longer one is seen.
func (s *session) fill(ctx context.Context, f *os.File, p *manifest.Payload) error {
	body, _, err := s.source.Data(ctx, tree.Data(p.SHA256), 0)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(f, io.LimitReader(body, p.Length+1))
	var coded *fault.Error
	switch {
	case err == nil || errors.As(err, &coded) || ctx.Err() != nil:
		return err
	case cache.IsNoSpace(err):
		return cache.NoSpace(filepath.Dir(f.Name()), p.Length, n)
	}
	return failure(err, "copying the artifact")
}

func failure(err error, doing string, args ...any) error {
	code := fault.IO
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	case cache.IsNoSpace(err):
		code = fault.NoSpace
	}
	return fault.New(code, doing+": %w", append(args, err)...)
}
