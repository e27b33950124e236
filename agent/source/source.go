// Package source reads the static tree of a publisher, a mirror or a stick.
//
// Nothing a source says is believed here: a source returns bytes, never more than it
// was asked for and never later than its deadlines, and says in the project's codes
// why it could not: not_found, too_large or unreachable.
package source

import (
	"context"
	"io"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"shoal/internal/fault"
)

// Source is one static tree. Its methods may be called concurrently. Paths are
// slash-separated, as package manifest/tree makes them.
type Source interface {
	// Name is the URL or directory, for people.
	Name() string
	// Document returns a whole file of at most limit bytes. A longer one is
	// too_large, and is not buffered beyond the limit.
	Document(ctx context.Context, path string, limit int64) ([]byte, error)
	// Data opens a file from offset on. A source that cannot begin there begins at
	// zero: the second result says where. The reader fails when the sender is too slow.
	Data(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error)
}

// Open returns the source that ref names: an http or https URL, a file URL, or a
// directory. It does not touch the network or the disk.
func Open(ref string, o Options) (Source, error) {
	u, err := url.Parse(ref)
	isPath := filepath.IsAbs(ref) || err == nil && u.Scheme == "" && u.Host == ""
	switch {
	case ref == "":
		return nil, fault.New(fault.Config, "a source has no name")
	case isPath:
		return Dir(ref), nil
	case err != nil:
		return nil, fault.New(fault.Config, "source %q is not a URL: %w", ref, err)
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") && u.Path != "":
		return Dir(filePath(u.Path)), nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return newWeb(u, o), nil
	}
	return nil, fault.New(fault.Config, "source %q is neither an http or https URL nor a directory", ref).
		Do("https://updates.example:7800 or /mnt/stick")
}

func filePath(p string) string {
	if runtime.GOOS == "windows" {
		p = strings.TrimPrefix(p, "/") // file:///C:/tree
	}
	return filepath.FromSlash(p)
}

// readAtMost reads r to its end, and at most limit bytes of it.
func readAtMost(r io.Reader, limit int64, path, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(b)) > limit {
		return nil, tooLarge(path, name, limit)
	}
	return b, err
}

func tooLarge(path, name string, limit int64) error {
	return fault.New(fault.TooLarge, "%q at %s is larger than the %d bytes it may have", path, name, limit).
		Line("No more than that was read. Nothing was changed; what is installed keeps running.").
		Do("publisher: see what is in that place; nothing of Shoal's is that large").
		Fact("document", path).Fact("source", name).Fact("limit", limit)
}

func notFound(path, name string) error {
	return fault.New(fault.NotFound, "%s has no %q", name, path).
		Line("Nothing was changed; what is installed keeps running.").
		Do("check the address of the source, and that it has been published to").
		Fact("document", path).Fact("source", name)
}

func unreachable(format string, args ...any) *fault.Error {
	return fault.New(fault.Unreachable, format, args...).
		Do("check the address of the source, and that this machine can reach it")
}
