package state

import (
	"os"

	"shoal/manifest"
)

// Reset replaces everything that is trusted by snap, of whatever fleet it is, and keeps
// the rest of what the agent remembers. A crash leaves the old trust, none, or the new.
func (s *Store) Reset(snap manifest.Snapshot, l Local) error {
	// The commit point goes first: a document of the old fleet is then nobody's.
	if err := removeAll(s.anchor, s.path(stateFile)); err != nil {
		return err
	}
	if err := os.RemoveAll(s.path("")); err != nil {
		return failure(err, "removing what was trusted")
	}
	return s.Save(snap, l)
}
