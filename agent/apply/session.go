package apply

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"shoal/internal/fault"
)

// session is one locked target: all that happens to it happens in one.
type session struct {
	e      *Engine
	fs     FS
	p      Program
	store  store
	j      *journal // the transaction under way, or nil
	target string   // the real file
	sw     swapper
	log    *slog.Logger
	locks  map[string]io.Closer
	cause  error // of a revert in this process
	unfit  bool  // the staged file failed its trial
}

// store is where what is known of a target is kept: its name is the target's, for
// people, and a hash of the whole configured path.
func (e *Engine) store(t Target) store {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, filepath.Base(t.Path))
	id := sha256.Sum256([]byte(t.Path))
	return store{e.o.FS, filepath.Join(e.o.StateDir, fmt.Sprintf("%.32s-%x", base, id[:8]))}
}

// open locks what is known of p's target and reads the journal. With an error comes
// the Result to be returned.
func (e *Engine) open(p Program) (*session, Result, error) { return e.openAt(e.store(p.Target), p) }

func (e *Engine) openAt(st store, p Program) (*session, Result, error) {
	s := &session{
		e: e, fs: e.o.FS, p: p, store: st, locks: map[string]io.Closer{},
		log: e.o.Logger.With("app", p.Target.name(), "target", p.Target.Path),
	}
	if err := s.openStore(); err != nil {
		s.close()
		var res Result
		if errors.Is(err, errJournal) {
			res.State = Failed
		}
		return nil, res, explain("opening the state of "+p.Target.name(), p.Target.Path, err)
	}
	return s, Result{}, nil
}

func (s *session) openStore() error {
	if _, err := s.fs.Lstat(s.store.dir); errors.Is(err, fs.ErrNotExist) {
		if err := s.fs.MkdirAll(s.store.dir); err != nil {
			return err
		}
		for _, d := range []string{s.e.o.StateDir, filepath.Dir(s.e.o.StateDir)} { // it may be new too
			if err := s.fs.SyncDir(d); err != nil {
				return err
			}
		}
	} else if err != nil {
		return err
	}
	if err := s.lock(s.store.lockPath()); err != nil {
		return err
	}
	j, err := s.store.load()
	if errors.Is(err, errJournal) {
		return fault.New(fault.ApplyFailed, "the record of an interrupted update of %s cannot be read: %w", s.p.Target.name(), err).
			Line("nothing is done to %q until a person has looked: what it is now is not known", s.p.Target.Path).
			Do("see that the right program is at %q", s.p.Target.Path).
			Do("then remove %q", s.store.journalPath()).Fact("needs_operator", true)
	}
	s.j = j
	return err
}

// Who only looks whether a lock is free, for a person who asks how the machine is, has it for
// a moment. An update that begins right then must not fail for that.
const (
	lockTries = 25
	lockPause = 20 * time.Millisecond
)

// takeLock takes a lock that nobody has for longer than a moment.
func takeLock(fsys FS, path string) (io.Closer, error) {
	l, err := fsys.Lock(path)
	for try := 1; errors.Is(err, errLocked) && try < lockTries; try++ {
		time.Sleep(lockPause)
		l, err = fsys.Lock(path)
	}
	return l, err
}

// lock takes a lock for as long as the session lasts.
func (s *session) lock(path string) error {
	if s.locks[path] != nil {
		return nil
	}
	l, err := takeLock(s.fs, path)
	if err != nil {
		return err
	}
	s.locks[path] = l
	return nil
}

func (s *session) close() {
	for _, l := range s.locks {
		_ = l.Close() // ends with the process at the latest
	}
}

// work sets the file that is worked on and locks it. The lock lies beside it, where
// every agent that can replace the file finds it, whatever its state directory, its
// user and its view of /run and /tmp are.
func (s *session) work(target, kind, swap string) error {
	sw, err := newSwapper(s.fs, kind, swap, target)
	if err != nil {
		return err
	}
	if err := s.lock(names{target}.lock()); err != nil {
		return err
	}
	if i, ok := sw.(*installer); ok {
		i.Installer = s.p.Target.Installer
	}
	s.target, s.sw = target, sw
	return nil
}

// begin opens a session for a new transaction: it finishes an old one first. If
// there is an error, the session is closed and the Result to be returned is given.
func (e *Engine) begin(ctx context.Context, p Program) (*session, Result, error) {
	p, err := p.defaults()
	if err != nil {
		return nil, Result{}, err
	}
	s, res, err := e.open(p)
	if err != nil {
		return nil, res, err
	}
	if res, err := s.recover(ctx); s.j != nil {
		s.close()
		// Not finished: Failed, interrupted, or something could not be written.
		return nil, res, cmp.Or(err, error(fault.New(fault.ApplyFailed, "the update before is not finished")))
	}
	target, err := p.Target.resolve(s.fs)
	if err == nil {
		err = s.work(target, p.Target.Kind, p.Target.Swap)
	}
	if err != nil {
		s.close()
		return nil, Result{}, explain("preparing the update of "+p.Target.name(), p.Target.Path, err)
	}
	return s, Result{}, nil
}

func (s *session) previous() ([]keptRelease, error) {
	return previousOf(s.fs, s.store, s.sw, names{s.target})
}

// newTx names a transaction: when, and a part that nobody can guess, so that nobody
// can put a file in the way.
func (s *session) newTx() string {
	return s.e.o.Now().UTC().Format("20060102T150405") + "-" + strings.ToLower(rand.Text()[:10])
}

// reach tells of a state.
func (s *session) reach(state State) {
	s.log.Info("update "+string(state), "tx", s.j.Tx, "version", s.j.ToRelease.Version)
	s.p.Progress(state)
}

func (s *session) result(state State) Result {
	return Result{Tx: s.j.Tx, State: state, From: s.j.from(), To: s.j.to()}
}

// finish writes the history and ends the transaction. The error is one of writing:
// then the journal is still there, and recovery ends it.
func (s *session) finish(state State, cause error) error {
	if err := s.remember(state, cause); err != nil {
		return err
	}
	if err := s.store.drop(); err != nil {
		return err
	}
	s.j = nil
	return nil
}

// remember writes the outcome into the history, once.
func (s *session) remember(state State, cause error) error {
	j := s.j
	h, err := s.store.history()
	if err != nil {
		return err
	}
	r := Record{
		Tx: j.Tx, Ended: s.e.o.Now().UTC(), State: state, From: j.from(), To: j.to(),
		Attempts: j.Attempts, Code: j.Code, Why: j.Why, Hooks: j.Hooks,
	}
	if cause != nil {
		r.Code, r.Why = string(fault.CodeOf(cause)), why(cause)
	}
	if !h.add(r) {
		return nil
	}
	h.learn(j.From, j.FromRelease)
	if state == Confirmed {
		h.learn(j.To, j.ToRelease)
	}
	switch {
	case state == Confirmed:
		h.unmark(j.To)
	case s.unfit || j.blames():
		h.mark(failedMark{SHA256: j.To, Retry: j.ToRelease.Retry, Version: j.ToRelease.Version, At: r.Ended, Why: r.Why})
	}
	return s.store.saveHistory(h)
}

func (s *session) clearFailed() error {
	h, err := s.store.history()
	if err != nil {
		return err
	}
	if len(h.Marks) > 0 {
		h.Marks = nil
		if err := s.store.saveHistory(h); err != nil {
			return err
		}
	}
	if s.j == nil || s.j.State != Failed {
		return nil
	}
	if err := s.work(s.j.Target, s.j.Kind, s.j.Swap); err != nil {
		return err
	}
	// The backup stays, as one of the previous versions.
	if err := s.sw.clean(s.j, true); err != nil {
		return err
	}
	return s.store.drop()
}
