package publisher

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"shoal/internal/contextio"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

const maxAttached = 16 // files, as docs/protocol.md has it

// Attach is a file that goes with a release and that no machine runs: a bill of
// materials, or a statement of provenance. Its length and hash are signed with the
// release, and its bytes are in the tree.
type Attach struct {
	Name string // in the manifest; see [manifest.ValidName]
	Path string
}

// attached is such a file on its way into a release. The descriptor stays open, as that
// of a build.
type attached struct {
	path string
	file *os.File
	manifest.Attachment
}

// content is what goes into a release: open files.
type content struct {
	builds   builds
	attached []*attached
}

func (c *content) close() {
	c.builds.close()
	for _, a := range c.attached {
		a.file.Close()
	}
}

// paths are the files as they were named.
func (c *content) paths() (paths []string) {
	for _, b := range c.builds {
		paths = append(paths, b.path)
	}
	for _, a := range c.attached {
		paths = append(paths, a.path)
	}
	return paths
}

func (c *content) attachments() []manifest.Attachment {
	var list []manifest.Attachment
	for _, a := range c.attached {
		list = append(list, a.Attachment)
	}
	return list
}

// attach opens and hashes the files that go with a release.
func (c *content) attach(ctx context.Context, files []Attach) error {
	const nothing = "Nothing was published."
	if len(files) > maxAttached {
		return fault.New(fault.Usage, "%d files are attached, and a release takes %d", len(files), maxAttached).
			Line(nothing).Do("put them into one archive: --attach provenance.tar=FILE")
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !manifest.ValidName(f.Name) {
			return fault.New(fault.UnsafePath, "%q cannot be the name of an attachment", f.Name).
				Line("A name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen. %s", nothing).
				Do("name it another way: --attach sbom.cdx.json=FILE").Fact("file", f.Path)
		}
		if seen[f.Name] {
			return fault.New(fault.Usage, "two files are attached as %q", f.Name).Line(nothing).Do("give one of them another name")
		}
		seen[f.Name] = true
		file, err := openFile(f.Path)
		if err != nil {
			return err
		}
		a := &attached{path: f.Path, file: file, Attachment: manifest.Attachment{Name: f.Name}}
		c.attached = append(c.attached, a)
		if a.Length, a.SHA256, err = sumFile(ctx, file); err != nil {
			return fault.New(codeOr(err, fault.IO), "hashing %q: %w", f.Path, err).Line(nothing).Fact("file", f.Path)
		}
	}
	// As with builds, the order of the command line says nothing.
	slices.SortFunc(c.attached, func(a, b *attached) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// findAttached finds the files that go with m by length and hash: in the repository, or
// among files.
func (c *content) findAttached(ctx context.Context, m *manifest.Manifest, store string, files []string) error {
	for _, want := range m.Attachments {
		a, err := findAttached(ctx, want, append([]string{filepath.Join(store, filepath.FromSlash(tree.Data(want.SHA256)))}, files...))
		if err != nil {
			return err
		}
		if a == nil {
			return fault.New(fault.NotFound, "no file here is the one signed as the attachment %s", want.Name).
				Line("Wanted: sha256 %s, %d bytes. %d files were looked at. Nothing was published.", want.SHA256, want.Length, len(files)).
				Do("name it, or the directory it is in: --data DIR").Fact("sha256", want.SHA256.String())
		}
		c.attached = append(c.attached, a)
	}
	return nil
}

func findAttached(ctx context.Context, want manifest.Attachment, files []string) (*attached, error) {
	for _, path := range files {
		if fi, err := os.Stat(path); err != nil || fi.Size() != want.Length {
			continue
		}
		file, err := openFile(path)
		if err != nil {
			continue
		}
		length, sum, err := sumFile(ctx, file)
		if err == nil && length == want.Length && sum == want.SHA256 {
			return &attached{path, file, want}, nil
		}
		file.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func sumFile(ctx context.Context, f *os.File) (int64, manifest.Digest, error) {
	h := sha256.New()
	n, err := io.Copy(h, contextio.Reader(ctx, f))
	return n, manifest.Digest(h.Sum(nil)), err
}

// sameAttached reports whether the same files go with a and b.
func sameAttached(a, b *manifest.Manifest) bool {
	return slices.EqualFunc(a.Attachments, b.Attachments, func(a, b manifest.Attachment) bool {
		return a.Name == b.Name && a.Length == b.Length && a.SHA256 == b.SHA256
	})
}

func attachedInfos(m *manifest.Manifest) (infos []AttachedInfo) {
	for _, a := range m.Attachments {
		infos = append(infos, AttachedInfo{Name: a.Name, Length: a.Length, SHA256: a.SHA256})
	}
	return infos
}
