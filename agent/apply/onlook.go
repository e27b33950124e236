package apply

import (
	"sync"
	"time"
)

const (
	maxHashes = 256
	// settled is how long ago a file must have been changed for its times to tell it from a
	// later one: they are as coarse as the clock of the file system.
	settled = 2 * time.Second
)

// fileState is a file and all that changes with its content.
type fileState struct {
	id                      [2]uint64
	size, modified, changed int64
}

// hashes remembers the hashes of files that nothing was changed about.
type hashes struct {
	mu sync.Mutex // guards of
	of map[fileState]digest
}

// onlooker returns a swapper for those who only look.
func (e *Engine) onlooker(t Target, target string) (swapper, error) {
	sw, err := newSwapper(e.o.FS, t.Kind, t.Swap, target)
	if err == nil {
		sw.through(e.remembering)
	}
	return sw, err
}

// remembering is look for files, asked only if it has not seen this one.
func (e *Engine) remembering(look at) at {
	return func(path string) (digest, int64, error) {
		before, ok := e.fileState(path)
		if !ok {
			return look(path)
		}
		e.hashes.mu.Lock()
		d, known := e.hashes.of[before]
		e.hashes.mu.Unlock()
		if known {
			return d, before.size, nil
		}
		old := e.o.Now().Sub(time.Unix(0, before.changed)) > settled
		d, length, err := look(path)
		if after, ok := e.fileState(path); err == nil && old && ok && after == before {
			e.hashes.mu.Lock()
			if e.hashes.of == nil || len(e.hashes.of) >= maxHashes {
				e.hashes.of = map[fileState]digest{}
			}
			e.hashes.of[before] = d
			e.hashes.mu.Unlock()
		}
		return d, length, err
	}
}

func (e *Engine) fileState(path string) (fileState, bool) {
	i, err := e.o.FS.Lstat(path)
	ok := err == nil && i.Mode.IsRegular() && i.Changed != 0
	return fileState{i.ID, i.Size, i.Modified, i.Changed}, ok
}
