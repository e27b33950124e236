package agent

import (
	"context"
	"slices"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
)

// Stored is one download in the cache.
type Stored struct {
	SHA256  manifest.Digest `json:"sha256"`
	Bytes   int64           `json:"bytes"`             // on disk
	Whole   bool            `json:"whole"`             // false: unfinished, kept to go on from
	App     string          `json:"app,omitempty"`     // empty: no app of this machine asks for it any more
	Version string          `json:"version,omitempty"` // where it is known
	Wanted  bool            `json:"wanted"`            // installed, offered or being fetched; else it can go
	Given   bool            `json:"given"`             // neighbours can fetch it now
}

// Dropped is what left the cache.
type Dropped struct {
	Files []Stored `json:"files"`
	Bytes int64    `json:"bytes"`
}

// DropRequest is what "cache-rm" over the control socket takes.
type DropRequest struct {
	Which []string `json:"which,omitempty"`
}

// Stored lists the cache.
func (a *Agent) Stored(ctx context.Context) ([]Stored, error) {
	var all []Stored
	var err error
	if derr := a.do(ctx, func() { all, err = a.stored() }); derr != nil {
		return nil, derr
	}
	return all, err
}

func (a *Agent) stored() ([]Stored, error) {
	files, err := a.cache.Stored()
	if err != nil {
		return nil, err
	}
	wanted := a.wanted(false)
	all := []Stored{}
	for _, f := range files {
		s := Stored{SHA256: f.SHA256, Bytes: f.Bytes, Whole: f.Whole, Wanted: slices.Contains(wanted, f.SHA256)}
		s.App, s.Version = a.called(f.SHA256)
		for _, d := range a.shared {
			s.Given = s.Given || d == f.SHA256 && f.Whole
		}
		all = append(all, s)
	}
	return all, nil
}

// called says which release of which app the file is, as far as that is known here.
func (a *Agent) called(d manifest.Digest) (app, version string) {
	for _, app := range a.apps {
		if held, ok := a.follow.Held(app.channel); ok {
			for i := range held.Manifest.Artifacts {
				if held.Manifest.Artifacts[i].SHA256 == d {
					return app.cfg.Name, held.Manifest.Release.Version
				}
			}
		}
		history, err := a.engine.History(app.program.Target)
		if err != nil {
			continue
		}
		for _, r := range history {
			if r.To.SHA256 == d {
				return app.cfg.Name, r.To.Version
			}
		}
	}
	return "", ""
}

// Drop removes from the cache the files that which names by their SHA-256, or its first
// eight digits or more, and stops giving them from there; without names, every file that
// nothing asks for, a replaced release that neighbours may still be fetching included.
// A program that is installed stays, and is given from where it is. Codes: usage,
// not_found, locked for a file that is being fetched.
func (a *Agent) Drop(ctx context.Context, which []string) (*Dropped, error) {
	var dropped *Dropped
	var err error
	if derr := a.do(ctx, func() { dropped, err = a.drop(which) }); derr != nil {
		return nil, derr
	}
	return dropped, err
}

const minPrefix = 8 // hex digits that name a file

func (a *Agent) drop(which []string) (*Dropped, error) {
	files, err := a.stored()
	if err != nil {
		return nil, err
	}
	gone := &Dropped{Files: []Stored{}}
	for _, name := range which {
		fits := func(s Stored) bool { return strings.HasPrefix(s.SHA256.String(), strings.ToLower(name)) }
		if len(name) < minPrefix {
			return nil, fault.New(fault.Usage, "%q is too short to name a file: %d digits or more of its sha256", name, minPrefix)
		}
		if !slices.ContainsFunc(files, fits) {
			return nil, fault.New(fault.NotFound, "%q is not in the cache", name).
				Line("Nothing was removed.").Do("shoal agent cache ls")
		}
		for _, app := range a.apps {
			if j := app.job; j != nil && j.decision.payload != nil && fits(Stored{SHA256: j.decision.payload.SHA256}) {
				return nil, fault.New(fault.Locked, "%s is being updated with that file", app.cfg.Name).
					Line("Nothing was removed.").Do("try again when the update has ended: shoal agent status")
			}
		}
	}
	for _, s := range files {
		drop := !s.Wanted
		if len(which) > 0 {
			drop = slices.ContainsFunc(which, func(name string) bool {
				return strings.HasPrefix(s.SHA256.String(), strings.ToLower(name))
			})
		}
		if drop {
			gone.Files, gone.Bytes = append(gone.Files, s), gone.Bytes+s.Bytes
		}
	}
	err = a.forget(func(d manifest.Digest) bool {
		return !slices.ContainsFunc(gone.Files, func(s Stored) bool { return s.SHA256 == d })
	})
	for _, app := range a.apps {
		a.settle(app, Choice{}) // what is installed is given from where it is
	}
	return gone, err
}

// forget takes out of swarm and cache what keep does not want.
func (a *Agent) forget(keep func(manifest.Digest) bool) error {
	for infohash, sha := range a.shared {
		if !keep(sha) {
			delete(a.shared, infohash)
			a.nodeMu.Lock()
			node := a.node
			a.nodeMu.Unlock()
			if node != nil {
				node.Drop(infohash)
			}
		}
	}
	return a.cache.Prune(keep)
}

// wanted are the files that the channels ask for, that are installed, or that are being
// fetched; with grace, also those that were replaced a short while ago. What the
// publisher has blocked is not given to anybody, and nothing of a channel that is no more.
func (a *Agent) wanted(grace bool) []manifest.Digest {
	var all []manifest.Digest
	for _, app := range a.apps {
		if app.job != nil && app.job.decision.payload != nil {
			all = append(all, app.job.decision.payload.SHA256)
		}
		held, ok := a.follow.Held(app.channel)
		if !ok {
			continue
		}
		for i := range held.Manifest.Artifacts {
			all = append(all, held.Manifest.Artifacts[i].SHA256)
		}
		in := a.follow.Local().Installed[app.cfg.Name]
		had := []manifest.Digest{in.SHA256}
		if grace && a.cfg.Clock().Sub(in.At) < a.cfg.SeedAfterUpdate {
			had = append(had, in.PreviousSHA256)
		}
		for _, d := range had {
			if _, blocked := held.Manifest.Blocks(d); !blocked {
				all = append(all, d)
			}
		}
	}
	return all
}
