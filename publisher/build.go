package publisher

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
)

// File is one file to publish.
type File struct {
	Path string
	// Platform is what it was built for; zero means as its name says (PlatformOf).
	Platform manifest.Platform
}

// build is a file on its way into a release. The descriptor stays open from the first
// byte hashed to the last byte copied, so that both are of one file.
type build struct {
	path     string
	file     *os.File
	artifact manifest.Artifact
	info     *swarm.Info
}

type builds []*build

func (bs builds) close() {
	for _, b := range bs {
		b.file.Close()
	}
}

// readBuilds hashes the files of a release. In a fleet with a key their torrents are
// private (BEP 27): nobody is told who has them but by the fleet's own ways.
func (p *Publisher) readBuilds(ctx context.Context, app, kind string, files []File) (_ builds, err error) {
	if len(files) == 0 {
		return nil, fault.New(fault.Usage, "nothing to publish").Do("name the files: shoal publish --version V dist/%s-*", app)
	}
	keys, err := p.cfg.FleetKeys()
	if err != nil {
		return nil, err
	}
	var bs builds
	defer func() {
		if err != nil {
			bs.close()
		}
	}()
	seen := map[manifest.Platform]string{}
	for _, f := range files {
		on := f.Platform
		if on == (manifest.Platform{}) {
			if on, err = PlatformOf(f.Path); err != nil {
				return nil, err
			}
		}
		if err := checkPlatform(on); err != nil {
			return nil, err
		}
		if other, twice := seen[on]; twice {
			return nil, fault.New(fault.Usage, "two files for %s", on).
				Line("%q and %q: a machine could not choose.", other, f.Path).
				Do("leave one out, or name a variant: --platform %s/VARIANT=FILE", on).
				Fact("platform", on.String()).Fact("files", []string{other, f.Path})
		}
		seen[on] = f.Path
		file, err := openFile(f.Path)
		if err != nil {
			return nil, err
		}
		b := &build{path: f.Path, file: file}
		bs = append(bs, b)
		b.artifact = manifest.Artifact{Name: app, Kind: kind, OS: on.OS, Arch: on.Arch, Variant: on.Variant, Mode: modeOf(kind)}
		if err := b.hash(ctx, keys != nil); err != nil {
			return nil, err
		}
	}
	// The order of the command line is an accident of the shell's; drafts of the same
	// files must be the same bytes.
	slices.SortFunc(bs, func(a, b *build) int { return comparePlatforms(a.artifact.Platform(), b.artifact.Platform()) })
	return bs, nil
}

// openFile opens a file that is to be published.
func openFile(path string) (*os.File, error) {
	// Asked before opening: a pipe would block, and a device never end.
	fi, err := os.Stat(path)
	if err == nil && !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Usage, "%q is not a file", path).Line("It is a %s.", kindOfFile(fi.Mode())).Fact("file", path)
	}
	if err == nil && fi.Size() == 0 {
		return nil, fault.New(fault.Malformed, "%q is empty", path).
			Line("An empty file cannot be a release. Nothing was published.").Do("look at the build that made it").Fact("file", path)
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(path)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "there is no file %q", path).Line("Nothing was published.").Fact("file", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.New(fault.Permission, "cannot read %q: %w", path, err).Line("Nothing was published.").Fact("file", path)
	}
	return nil, fault.New(fault.IO, "opening %q: %w", path, err).Fact("file", path)
}

// hash reads the file once, for its SHA-256 and its torrent.
func (b *build) hash(ctx context.Context, private bool) error {
	length, err := b.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = b.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fault.New(fault.IO, "reading %q: %w", b.path, err)
	}
	sum := sha256.New()
	a := &b.artifact
	b.info, err = swarm.BuildInfo(ctx, io.TeeReader(b.file, sum), fileName(a), length, private)
	if err != nil {
		return fault.New(codeOr(err, fault.IO), "hashing %q: %w", b.path, err).
			Line("Nothing was published.").Fact("file", b.path)
	}
	ref := b.info.Ref()
	a.Length, a.SHA256 = length, manifest.Digest(sum.Sum(nil))
	a.Payloads = []manifest.Payload{{
		Kind: manifest.PayloadFull, Codec: manifest.CodecNone, Length: a.Length, SHA256: a.SHA256,
		Infohash: manifest.Infohash(ref.Infohash), InfoSHA256: manifest.Digest(ref.InfoSHA256),
	}}
	return nil
}

func (bs builds) artifacts() []manifest.Artifact {
	var list []manifest.Artifact
	for _, b := range bs {
		list = append(list, b.artifact)
	}
	return list
}

func modeOf(kind string) string {
	if kind == manifest.KindTree {
		return "0644"
	}
	return "0755"
}

func kindOfFile(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

func comparePlatforms(a, b manifest.Platform) int {
	switch {
	case a.String() < b.String():
		return -1
	case a.String() > b.String():
		return 1
	}
	return 0
}
