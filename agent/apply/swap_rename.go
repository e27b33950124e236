package apply

import "context"

// renamer swaps by one rename over the target: at every instant the name leads to
// the old file or to the new one, and the file system knows that one replaces the
// other.
type renamer struct{ binary }

func (r *renamer) swap(_ context.Context, j *journal) error { return r.renameOver(j) }

// renameOver puts the staged file over the target, or where there is none.
func (b *binary) renameOver(j *journal) error {
	if err := b.stillSame(j); err != nil {
		return err
	}
	if err := b.fs.Rename(j.Staged, b.target); err != nil {
		return err
	}
	return b.fs.SyncDir(b.dir())
}
