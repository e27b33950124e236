package apply

// renamer swaps by one rename over the target: at every instant the name leads to
// the old file or to the new one, and the file system knows that one replaces the
// other.
type renamer struct{ binary }

func (r *renamer) swap(j *journal) error {
	if err := r.stillStaged(j); err != nil {
		return err
	}
	if err := r.fs.Rename(j.Staged, r.target); err != nil {
		return err
	}
	return r.fs.SyncDir(r.dir())
}
