package bundle

import (
	"archive/tar"
	"fmt"
	"io"
	"slices"
	"strings"

	"shoal/manifest/tree"
)

// File is one file for a bundle.
type File struct {
	Name string // as package tree makes them
	Size int64
	// Open returns the content, which must be Size bytes.
	Open func() (io.ReadCloser, error)
}

// Write writes the bundle of files to w: what is needed first comes first, so that the
// same files make the same bytes. What it writes, [Open] takes, if the files are those of
// a tree.
func Write(w io.Writer, files []File) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int {
		if d := rank(a.Name) - rank(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	tw := tar.NewWriter(w)
	for _, f := range files {
		if !tree.Valid(f.Name) || rank(f.Name) == len(order) {
			return fmt.Errorf("%q is no name of a bundle", f.Name)
		}
		if err := add(tw, f); err != nil {
			return fmt.Errorf("writing %q: %w", f.Name, err)
		}
	}
	return tw.Close()
}

// order is that of the directories: what verifies comes before what is verified.
var order = []string{"root", "m", "b", "info", "data"}

func rank(name string) int {
	dir, _, _ := strings.Cut(name, "/")
	if i := slices.Index(order, dir); i >= 0 {
		return i
	}
	return len(order)
}

func add(tw *tar.Writer, f File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	// No time and no owner: a bundle tells nothing of the machine it was made on.
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o644}); err != nil {
		return err
	}
	n, err := io.Copy(tw, io.LimitReader(r, f.Size+1)) // one more, so that a longer file is seen to be
	if err == nil && n < f.Size {
		err = fmt.Errorf("it has %d bytes instead of %d: %w", n, f.Size, io.ErrUnexpectedEOF)
	}
	return err
}
