package ceremony

import (
	"strings"

	"shoal/internal/fault"
	"shoal/publisher/ceremony/diff"
)

// DiffFiles compares two manifests or two roots.
func DiffFiles(a, b string) ([]diff.Change, error) {
	old, errOld := ReadManifest(a)
	is, err := ReadManifest(b)
	if errOld == nil && err == nil {
		return diff.Manifests(old.Manifest, is.Manifest), nil
	}
	oldRoot, rootErrOld := ReadRoot(a)
	isRoot, rootErr := ReadRoot(b)
	switch {
	case rootErrOld == nil && rootErr == nil:
		return diff.Roots(oldRoot.Root, isRoot.Root), nil
	case errOld == nil && rootErr == nil || err == nil && rootErrOld == nil:
		return nil, fault.New(fault.WrongType, "one of %q and %q is a root, the other a manifest", a, b).Do("compare two of a kind")
	case errOld != nil:
		return nil, errOld
	}
	return nil, err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func words(list []string) string { return orNone(strings.Join(list, ", ")) }
