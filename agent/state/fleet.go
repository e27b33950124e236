package state

import (
	"os"
	"path/filepath"

	"shoal/internal/fault"
	"shoal/manifest"
)

// Tree is where a state directory keeps the documents it trusts, as the static tree has
// them.
const Tree = trustDir

// FleetID reads which fleet the state in dir is of, without its lock: for whoever only
// looks. The code is not_found where there is no state.
func FleetID(dir string) (manifest.FleetID, error) {
	path := filepath.Join(dir, trustDir, stateFile)
	if _, err := os.Stat(path); err != nil {
		if os.IsPermission(err) {
			return manifest.FleetID{}, failure(err, "reading the state").Do("run as the owner of %s", dir)
		}
		return manifest.FleetID{}, fault.New(fault.NotFound, "there is no state in %s", dir)
	}
	d, err := readDocument(path)
	if err == nil && d == nil {
		err = fault.New(fault.StateLost, "the state in %s is damaged", dir).Do("shoal agent check")
	}
	if err != nil {
		return manifest.FleetID{}, err
	}
	return d.Repo, nil
}
