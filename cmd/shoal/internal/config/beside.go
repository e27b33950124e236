package config

import (
	"path/filepath"
	"runtime"
	"strings"
)

// Beside makes a path that a configuration file says absolute: it is meant from that
// file's directory. What came from elsewhere is meant as it is.
func (o Origin) Beside(path string) string {
	if o.Kind != "file" || path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(o.File()), path)
}

// BesideRef is Beside for the path within a key reference.
func (o Origin) BesideRef(ref string) string {
	scheme, path, ok := strings.Cut(ref, ":")
	switch {
	case !ok:
		return o.Beside(ref)
	case scheme == "file", scheme == "agent" && strings.HasSuffix(path, ".pub"):
		return scheme + ":" + o.Beside(path)
	case runtime.GOOS == "windows" && len(scheme) == 1: // a drive
		return o.Beside(ref)
	}
	return ref
}
