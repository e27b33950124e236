// Package pack makes bundles of a repository, and says what a bundle is worth.
//
// A bundle gets its name when it is whole, on the disk, and was verified there as a
// machine without a network will: every signature, every byte of every payload. Until
// then what had the name keeps it.
package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"shoal/internal/contextio"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/bundle"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// Request says what to put into a bundle, and where.
type Request struct {
	Channel manifest.Channel
	// Platforms are those whose payloads go in; none means all. Without a variant one
	// means every variant.
	Platforms []manifest.Platform
	// Out is the file to write, or a directory for one with a name of its own.
	Out string
	// Now is what expiry is held against.
	Now time.Time
}

// Create writes the bundle of what r offers in a channel.
func Create(ctx context.Context, r *repo.Repo, req Request) (*Report, error) {
	s, err := r.Read()
	if err != nil {
		return nil, err
	}
	ch, err := s.Channel(req.Channel)
	switch {
	case err != nil:
		return nil, err
	case ch.Err != nil:
		return nil, ch.Err
	case ch.Held == nil && ch.Last != (manifest.Order{}):
		return nil, fault.New(fault.Threshold, "what %s offered needs signatures by the keys of today", req.Channel).
			Line("No machine would take it. Nothing was written.").Do("shoal publish or shoal channel refresh %s", req.Channel)
	case ch.Held == nil:
		return nil, fault.New(fault.NotFound, "nothing is published in %s yet", req.Channel).Do("shoal publish --version V FILE...")
	}
	files, err := gather(r, s, ch, req.Platforms)
	if err != nil {
		return nil, err
	}
	path := req.Out
	if fi, err := os.Stat(path); err == nil && fi.IsDir() || strings.HasSuffix(path, string(filepath.Separator)) {
		path = filepath.Join(path, Name(ch.Held.Manifest))
	}
	report, err := write(ctx, path, files, manifest.Digest(s.Trust.Repo()), req.Now)
	return report, failure("writing "+path, err)
}

// Name is what the bundle of a release is called.
func Name(m *manifest.Manifest) string {
	order := fmt.Sprint(m.Sequence)
	if m.Epoch > 1 {
		order = m.Order().String()
	}
	return m.App + "-" + m.Channel + "-" + order + bundle.Suffix
}

// gather lists the files of a bundle: what every machine needs, and the payloads.
func gather(r *repo.Repo, s *repo.State, ch *repo.Channel, platforms []manifest.Platform) ([]bundle.File, error) {
	var names []string
	for v := int64(1); v <= s.Trust.RootVersion(); v++ {
		names = append(names, tree.Root(v))
	}
	names = append(names, tree.Manifest(ch.Name))
	if _, err := os.Stat(file(r, tree.Beacon(ch.Name))); err == nil {
		names = append(names, tree.Beacon(ch.Name))
	}
	m := ch.Held.Manifest
	var have []string
	found := make([]bool, len(platforms))
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		have = append(have, a.Platform().String())
		asked := len(platforms) == 0
		for n, p := range platforms {
			if a.OS == p.OS && a.Arch == p.Arch && (p.Variant == "" || a.Variant == p.Variant) {
				asked, found[n] = true, true
			}
		}
		for _, p := range a.Payloads {
			names = append(names, tree.Info(p.InfoSHA256)) // of all: they are small, and neighbours may have the rest
			if asked {
				names = append(names, tree.Data(p.SHA256))
			}
		}
	}
	if n := slices.Index(found, false); n >= 0 {
		return nil, fault.New(fault.NoArtifact, "%s %s has nothing for %s", m.Name(), m.Release.Version, platforms[n]).
			Line("It has %s. Nothing was written.", strings.Join(have, ", ")).Fact("platform", platforms[n].String())
	}
	slices.Sort(names)
	var files []bundle.File
	for _, name := range slices.Compact(names) {
		path := file(r, name)
		fi, err := os.Stat(path)
		if err != nil {
			return nil, fault.New(fault.NotFound, "the repository has not got all of %s %s any more", m.Name(), m.Release.Version).
				Line("Missing: %s. Nothing was written.", name).Do("publish the files again under a version of their own").Fact("file", name)
		}
		files = append(files, bundle.File{Name: name, Size: fi.Size(), Open: func() (io.ReadCloser, error) { return os.Open(path) }})
	}
	return files, nil
}

func file(r *repo.Repo, name string) string { return filepath.Join(r.Tree(), filepath.FromSlash(name)) }

// write writes the bundle beside its place, verifies what is on the disk, and only then
// gives it its name.
func write(ctx context.Context, path string, files []bundle.File, fleet manifest.Digest, now time.Time) (_ *Report, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := bundle.Write(contextio.Writer(ctx, f), files); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	report, err := examine(ctx, f, Options{Pin: &fleet, Contents: true, Now: now})
	if err != nil {
		return nil, err
	}
	report.File = path
	if err := f.Close(); err != nil {
		return nil, err
	}
	return report, durable.Rename(f.Name(), path)
}

// failure gives an error of the operating system the code a person can act on.
func failure(doing string, err error) error {
	var coded *fault.Error
	code := fault.IO
	switch {
	case err == nil, errors.As(err, &coded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = fault.NoSpace
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	case errors.Is(err, fs.ErrNotExist):
		code = fault.NotFound
	}
	return fault.New(code, "%s: %w", doing, err).Line("No bundle was written; one that had its name is still there.")
}
