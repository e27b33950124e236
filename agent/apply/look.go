package apply

import (
	"errors"
	"io/fs"
	"strings"

	"shoal/internal/fault"
)

// Installed is what is at a target now.
type Installed struct {
	Release      // Version, Epoch and Sequence are known only of what this engine installed
	Present bool // whether there is a file at all
}

// Installed looks at what is at the target. The file's hash is the truth; the
// version belonging to it is looked up in the history.
func (e *Engine) Installed(t Target) (Installed, error) {
	t, err := t.defaults()
	if err != nil {
		return Installed{}, err
	}
	in, err := e.installed(t)
	if err != nil {
		return Installed{}, explain("looking at the installed program", t.Path, err)
	}
	return in, nil
}

func (e *Engine) installed(t Target) (Installed, error) {
	real, err := e.o.FS.Resolve(t.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Installed{}, nil
	}
	if err != nil {
		return Installed{}, err
	}
	f, err := e.o.FS.Open(real)
	if errors.Is(err, fs.ErrNotExist) {
		return Installed{}, nil
	}
	if err != nil {
		return Installed{}, err
	}
	defer f.Close()
	h, err := e.store(t).catalogue()
	if err != nil {
		return Installed{}, err
	}
	r, err := identify(f, h)
	return Installed{Release: r, Present: true}, err
}

// identify returns which release the open file is.
func identify(f File, h *history) (Release, error) {
	i, err := f.Stat()
	if err != nil {
		return Release{}, err
	}
	d, err := hashFile(f)
	r := h.called(d).release(d)
	r.Length = i.Size
	return r, err
}

// Previous returns the versions kept beside the target, latest first.
func (e *Engine) Previous(t Target) ([]Release, error) {
	t, err := t.defaults()
	if err != nil {
		return nil, err
	}
	real, err := resolve(e.o.FS, t.Path)
	if err != nil {
		return nil, explain("looking for previous versions", t.Path, err)
	}
	kept, err := previousOf(e.o.FS, e.store(t), real)
	if err != nil {
		return nil, explain("looking for previous versions", real, err)
	}
	releases := make([]Release, 0, len(kept))
	for _, k := range kept {
		releases = append(releases, k.release)
	}
	return releases, nil
}

// keptRelease is a previous version, and which one it is.
type keptRelease struct {
	previous
	release Release
}

// previousOf returns the previous versions of target that differ from what is
// installed, latest first.
func previousOf(fsys FS, st store, target string) ([]keptRelease, error) {
	h, err := st.catalogue()
	if err != nil {
		return nil, err
	}
	n := names{target}
	all, err := n.kept(fsys)
	if err != nil {
		return nil, err
	}
	seen := map[digest]bool{}
	if now, err := (&binary{fs: fsys, target: target, names: n}).current(); err == nil {
		seen[now] = true
	}
	var kept []keptRelease
	for _, p := range all {
		f, err := fsys.Open(p.path)
		if err != nil {
			continue // what cannot be read cannot be put back; others may
		}
		r, err := identify(f, h)
		f.Close()
		if err != nil {
			continue
		}
		if !seen[r.SHA256] {
			kept = append(kept, keptRelease{p, r})
		}
		seen[r.SHA256] = true
	}
	return kept, nil
}

// Failed reports whether the artifact with that hash failed here and is not to be
// tried again: until a manifest's rollout.retry is above the one it failed with.
func (e *Engine) Failed(t Target, sha256 [32]byte, retry int64) (bool, error) {
	t, err := t.defaults()
	if err != nil {
		return false, err
	}
	failed, err := e.store(t).failed(sha256, retry)
	if err != nil {
		return false, explain("looking for failed artifacts", t.Path, err)
	}
	return failed, nil
}

// failed also looks at a transaction that is not finished, so that the mark holds
// from the moment the decision is taken.
func (s store) failed(d digest, retry int64) (bool, error) {
	h, err := s.history()
	if err != nil {
		return false, err
	}
	if h.failed(d, retry) {
		return true, nil
	}
	j, err := s.load()
	if err != nil || j == nil {
		return false, err
	}
	return j.To == d && retry <= j.ToRelease.Retry && j.blames(), nil
}

// blames reports whether the transaction found its new version to be bad.
func (j *journal) blames() bool {
	switch j.State {
	case Reverting, Reverted, Failed:
		return j.Attempts > 0
	}
	return false
}

// History returns the finished transactions of t, oldest first.
func (e *Engine) History(t Target) ([]Record, error) {
	t, err := t.defaults()
	if err != nil {
		return nil, err
	}
	h, err := e.store(t).history()
	if err != nil {
		return nil, explain("reading the history", t.Path, err)
	}
	return h.Records, nil
}

// needsOperator is the answer to everything while a transaction is Failed.
func needsOperator(j *journal) error {
	e := fault.New(fault.ApplyFailed, "%s needs a person: its last update failed and could not be put right", j.App).
		Line("%s was to become %s", title(j.App, j.from()), title(j.App, j.to())).
		Line("nothing is done to %q until then, and no file of that update is removed", j.Target).
		Do("see what runs now, and put the right program at %q", j.Target).
		Do("shoal agent update --retry").Fact("needs_operator", true)
	for l := range strings.Lines(j.Why) {
		e.Line("%s", strings.TrimSpace(l))
	}
	if j.Backup != "" {
		e.Line("the version before may be at %q", j.Backup)
	}
	return e
}
