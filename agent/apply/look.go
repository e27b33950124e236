package apply

import (
	"cmp"
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
// version belonging to it is looked up in the history. A file that nothing was changed
// about since it was hashed last is not hashed again: to be asked often costs little.
// Apply, Revert and Recover never go by that.
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
	target, err := t.locate(e.o.FS)
	if errors.Is(err, fs.ErrNotExist) {
		return Installed{}, nil
	}
	if err != nil {
		return Installed{}, err
	}
	sw, err := e.onlooker(t, target)
	if err != nil {
		return Installed{}, err
	}
	d, length, err := sw.identity(target)
	if err != nil || d.absent() {
		return Installed{}, err
	}
	h, err := e.store(t).catalogue()
	if err != nil {
		return Installed{}, err
	}
	return Installed{Release: h.release(d, length), Present: true}, nil
}

// release is what is known of the artifact with that hash.
func (h *history) release(d digest, length int64) Release {
	r := h.called(d).release(d)
	r.Length = length
	return r
}

// Previous returns the versions kept beside the target, latest first.
func (e *Engine) Previous(t Target) ([]Release, error) {
	t, err := t.defaults()
	if err != nil {
		return nil, err
	}
	target, err := t.resolve(e.o.FS)
	if err != nil {
		return nil, explain("looking for previous versions", t.Path, err)
	}
	sw, err := e.onlooker(t, target)
	if err != nil {
		return nil, err
	}
	kept, err := previousOf(e.o.FS, e.store(t), sw, names{target})
	if err != nil {
		return nil, explain("looking for previous versions", target, err)
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

// previousOf returns the previous versions that differ from what is installed, latest
// first.
func previousOf(fsys FS, st store, sw swapper, n names) ([]keptRelease, error) {
	h, err := st.catalogue()
	if err != nil {
		return nil, err
	}
	all, err := n.kept(fsys)
	if err != nil {
		return nil, err
	}
	seen := map[digest]bool{}
	if now, err := sw.current(); err == nil {
		seen[now] = true
	}
	var kept []keptRelease
	for _, p := range all {
		d, length, err := sw.identity(p.path)
		if err != nil || d.absent() {
			continue // what cannot be read cannot be put back; others may
		}
		if !seen[d] {
			kept = append(kept, keptRelease{p, h.release(d, length)})
		}
		seen[d] = true
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
		return j.Attempts > 0 || j.Runs > 0
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

// byHand is what a person has to do where it is not to replace a file.
var byHand = map[string]string{
	KindTree:      "see what runs now, and have the link lead to the right version",
	KindInstaller: "see what is installed now, and install the right version by hand",
}

// needsOperator is the answer to everything while a transaction is Failed.
func needsOperator(j *journal) error {
	e := fault.New(fault.ApplyFailed, "%s needs a person: its last update failed and could not be put right", j.App).
		Line("%s was to become %s", title(j.App, j.from()), title(j.App, j.to())).
		Line("nothing is done to %q until then, and no file of that update is removed", j.Target).
		Do("%s", cmp.Or(byHand[j.Kind], "see what runs now, and put the right program there")).
		Do("shoal agent update --retry").Fact("needs_operator", true)
	for l := range strings.Lines(j.Why) {
		e.Line("%s", strings.TrimSpace(l))
	}
	if j.Backup != "" {
		e.Line("the version before may be at %q", j.Backup)
	}
	return e
}
