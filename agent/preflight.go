package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"shoal/agent/apply"
	"shoal/agent/cache"
	"shoal/internal/fault"
)

// preflight says, before the first byte is fetched, why the update could not be
// installed here as things are, or nil. It is tried again like everything that a person
// may mend meanwhile.
func (a *Agent) preflight(ctx context.Context, j *job) error {
	d := j.decision
	target := j.app.program.Target
	err := a.cache.Admit(d.payload.SHA256, d.payload.Length, besides(a.cache.Dir(), target, d.artifact.Length))
	if err == nil {
		err = a.engine.Preflight(target, d.release())
	}
	if !errors.Is(err, fault.NoSpace) {
		return err // nil, or why not
	}
	var stored []Stored
	var previous []apply.Release
	if derr := a.do(ctx, func() {
		stored, _ = a.stored() // it is only to say what could go
		previous, _ = a.engine.Previous(target)
	}); derr != nil {
		return derr
	}
	return noSpace(err, j.app.cfg.Name+" "+d.held.Manifest.Release.Version, a.cache.Dir(), stored, len(previous))
}

// besides is how many bytes an artifact takes beside the target, if that is on the
// cache's disk and so counts there as well.
func besides(cacheDir string, t apply.Target, length int64) int64 {
	if !cache.SameDisk(there(cacheDir), there(filepath.Dir(t.Path))) {
		return 0
	}
	return apply.Room(length)
}

// there is path, or what of the way to it is there already.
func there(path string) string {
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// noSpace tells what could go to make room for the release called what.
func noSpace(err error, what, cacheDir string, stored []Stored, previous int) error {
	var short *fault.Error
	if !errors.Is(err, fault.NoSpace) || !errors.As(err, &short) {
		return err
	}
	dir, _ := short.Facts["dir"].(string)
	e := fault.New(fault.NoSpace, "not enough disk space for %s", what)
	e.Facts = short.Facts
	if need, have := bytesOf(short.Facts["need"]), bytesOf(short.Facts["have"]); need > 0 {
		e.Line("%s needs %s, has %s.", dir, humanize.Bytes(need), humanize.Bytes(have))
	} else {
		e.Line("%s", short.Message)
		e.Detail = append(e.Detail, short.Detail...)
	}
	var unused int64
	for _, s := range stored {
		if !s.Wanted {
			unused += s.Bytes
		}
	}
	if unused > 0 && cache.SameDisk(dir, cacheDir) {
		e.Line("%s, on the same disk, holds %s that can go.", cacheDir, humanize.Bytes(uint64(unused))).
			Do("shoal agent cache rm --unused")
	}
	if previous > 0 && dir != cacheDir {
		e.Do("or lower keep: (%d previous versions are kept)", previous)
	}
	return e.Line("Nothing was downloaded and nothing was changed.").
		Do("free some space in %s; the agent tries again by itself", dir)
}

func bytesOf(fact any) uint64 {
	switch n := fact.(type) {
	case int64:
		return uint64(max(n, 0))
	case uint64:
		return n
	}
	return 0
}
