// Package checker holds a tree of documents against a pinned root, and installs
// nothing: it is the whole verification of an agent for scripts, auditors and tests.
//
// A checker has a state directory of its own, made by [Init], with the pin and the
// anchor in it. It accepts and refuses exactly what an agent would, remembers what it
// has accepted, and can be told what time it is.
package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"shoal/agent/follow"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const anchorFile = "anchor.json"

// Init is what a checker's state is made of.
type Init struct {
	Dir         string           // made if it is not there
	Root        string           // file with the envelope of root version 1
	Pin         *manifest.Digest // what its payload must hash to; nil takes it as it is
	MinRoot     int64            // least root version to act under
	MinSequence manifest.Order   // least order of every channel that is asked for
}

// Made is what Do made.
type Made struct {
	Fleet   manifest.FleetID `json:"fleet"`
	Name    string           `json:"name"` // for display, as root says it
	State   string           `json:"state"`
	Already bool             `json:"already"` // it was there
}

// Do pins the root. When it is not a first root, or not signed by its own threshold,
// or another one than the pin, nothing is written.
func (i Init) Do() (*Made, error) {
	env, err := readRoot(i.Root)
	if err != nil {
		return nil, err
	}
	parsed, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		return nil, err
	}
	pin := parsed.PayloadHash()
	if i.Pin != nil {
		pin = *i.Pin
	}
	trust, _, err := manifest.Pin(env, pin, manifest.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(i.Dir)
	if err != nil {
		return nil, fault.New(fault.Usage, "state directory %q: %w", i.Dir, err)
	}
	made := &Made{Fleet: manifest.FleetID(pin), Name: trust.Root().Fleet, State: dir}
	store, err := state.Open(dir, filepath.Join(dir, anchorFile))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	m, err := store.Read()
	if err != nil {
		return nil, err
	}
	local := state.Local{Checker: &state.Pin{Repo: made.Fleet}}
	snap := trust.Snapshot()
	if m.Known {
		if err := reusable(m, pin, dir); err != nil {
			return nil, err
		}
		made.Already, local, snap = true, m.Local, m.Snapshot
	}
	local.Checker.MinRoot = max(local.Checker.MinRoot, i.MinRoot)
	if i.MinSequence != (manifest.Order{}) {
		local.Checker.MinSequence = map[string]state.Order{state.AnyChannel: state.Order(i.MinSequence)}
	}
	return made, store.Save(snap, local)
}

// reusable refuses a state directory that is something else already.
func reusable(m *state.Memory, pin manifest.Digest, dir string) error {
	if have := manifest.Digest(m.Snapshot.State.Repo); have != pin {
		return fault.New(fault.PinMismatch, "%s holds the state of another fleet", dir).
			Line("Pinned there: %s", have.Prefixed()).
			Line("This root:    %s", pin.Prefixed()).
			Line("Nothing was changed.").
			Do("choose another --state DIR").
			Fact("pin", have.Prefixed()).Fact("found", pin.Prefixed())
	}
	if m.Local.Checker == nil {
		return fault.New(fault.Usage, "%s is the state of an agent that has joined", dir).
			Do("choose another --state DIR for a checker")
	}
	return nil
}

func readRoot(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.IO, "reading the root: %w", err).Do("--root FILE names the envelope of root version 1")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxRoot+1))
	if err != nil {
		return nil, fault.New(fault.IO, "reading the root: %w", err)
	}
	return b, nil // one byte too many is what makes it too large
}

// Query is one question to a checker.
type Query struct {
	Dir      string
	JoinFile string // where the pin of a joined state is; may be missing
	Anchor   string // of a joined state; empty means inside Dir
	Source   string // a tree: a directory or a base URL
	Channel  manifest.Channel
	Platform manifest.Platform
	Now      time.Time // replaces the clock; only on a checker's own state
	Build    time.Time // when this program was built; not used with Now
	Version  string    // of this program
}

// Artifact is what a release has for the platform.
type Artifact struct {
	Name    string          `json:"name"`
	Kind    string          `json:"kind"`
	OS      string          `json:"os"`
	Arch    string          `json:"arch"`
	Variant string          `json:"variant,omitempty"`
	Length  int64           `json:"length"`
	SHA256  manifest.Digest `json:"sha256"`
	Mode    string          `json:"mode,omitempty"`
}

// Result is the answer. Epoch, Sequence and what follows them are of the manifest that
// is trusted after the question, whatever became of the one that was offered.
type Result struct {
	Code        fault.Code         `json:"code"`
	Exit        int                `json:"exit"`
	App         string             `json:"app"`
	Channel     string             `json:"channel"`
	RootVersion int64              `json:"root_version"`
	Epoch       int64              `json:"epoch"`
	Sequence    int64              `json:"sequence"`
	Version     string             `json:"version,omitempty"`
	Expires     time.Time          `json:"expires,omitzero"`
	SignedBy    []keys.ID          `json:"signed_by,omitempty"`
	Freshness   manifest.Freshness `json:"freshness,omitempty"`
	Artifact    *Artifact          `json:"artifact,omitempty"`
	Out         string             `json:"out,omitempty"`
	Events      []manifest.Event   `json:"events"`
	Message     string             `json:"message,omitempty"` // what follows is of a failure
	Lines       []string           `json:"lines,omitempty"`
	Detail      map[string]any     `json:"detail,omitempty"`
	Next        []string           `json:"next,omitempty"`
}

// fail writes err into r.
func (r *Result) fail(err error) {
	r.Code = fault.CodeOf(err)
	r.Exit = r.Code.Exit()
	r.Message = err.Error()
	var e *fault.Error
	if errors.As(err, &e) {
		r.Lines, r.Detail, r.Next = e.Detail, e.Facts, e.Next
	}
}

// session is one question being answered.
type session struct {
	q      Query
	source source.Source
	follow *follow.Follower
	result *Result
	choice *manifest.Artifact
}

// Check asks the source for the channel. The result is there whatever happens; the
// error is nil when the code is ok or same, and also for no_artifact: what is
// published is good, there is just nothing in it for the platform.
func (q Query) Check(ctx context.Context) (*Result, error) {
	return q.answer(ctx, func(s *session) error {
		err := s.check(ctx)
		if errors.Is(err, fault.NoArtifact) {
			s.result.fail(err)
			s.result.Exit = 0
			return nil
		}
		return err
	})
}

// Update does what Check does, and then writes the verified artifact to out: whole, or
// what was there before.
func (q Query) Update(ctx context.Context, out string) (*Result, error) {
	return q.answer(ctx, func(s *session) error {
		if err := s.check(ctx); err != nil {
			return err
		}
		if err := s.write(ctx, out); err != nil {
			return err
		}
		s.result.Out = out
		return nil
	})
}

func (q Query) answer(ctx context.Context, work func(*session) error) (*Result, error) {
	r := &Result{App: q.Channel.App, Channel: q.Channel.Name, Events: []manifest.Event{}}
	err := q.open(r, work)
	if err != nil {
		r.fail(err)
	}
	return r, err
}

// open takes the lock, asks and gives the lock back.
func (q Query) open(r *Result, work func(*session) error) error {
	src, err := source.Open(q.Source, source.Options{UserAgent: "shoal/" + q.Version})
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(q.Dir)
	if err != nil {
		return fault.New(fault.Usage, "state directory %q: %w", q.Dir, err)
	}
	if q.Anchor == "" {
		q.Anchor = filepath.Join(dir, anchorFile)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return follow.StateLost(dir, ": the directory is not there").
			Line("Nothing was written.").Do("shoal agent init --state %s --root FILE", q.Dir)
	}
	store, err := state.Open(dir, q.Anchor)
	if err != nil {
		return err
	}
	defer store.Close()
	pin, options, err := q.settings(store)
	if err != nil {
		return err
	}
	s := &session{q: q, source: src, result: r, follow: follow.New(follow.Config{
		Store: store, Pin: pin, Channels: []manifest.Channel{q.Channel}, Sources: []source.Source{src}, Options: options,
	})}
	defer s.describe()
	return work(s)
}

// settings reads the pin of a joined state, and decides whose clock counts.
func (q Query) settings(store *state.Store) (*state.Pin, manifest.Options, error) {
	o := manifest.Options{Clock: time.Now, Build: q.Build, AgentVersion: q.Version}
	m, err := store.Read()
	if err != nil {
		return nil, o, err
	}
	var pin *state.Pin
	if m.Local.Checker == nil && q.JoinFile != "" {
		if pin, err = state.ReadPin(q.JoinFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, o, err
		}
	}
	if q.Now.IsZero() {
		return pin, o, nil
	}
	if m.Local.Checker == nil && (m.Known || pin != nil) {
		return nil, o, fault.New(fault.Usage, "--now is refused here: %s is the state of an agent that has joined", store.Dir()).
			Line("A wrong time could make it trust what has expired.").
			Do("make a checker's state: shoal agent init --state DIR --root FILE")
	}
	now := q.Now
	o.Clock, o.Build = func() time.Time { return now }, time.Time{}
	return pin, o, nil
}

// check runs one cycle and chooses the artifact.
func (s *session) check(ctx context.Context) error {
	report, err := s.follow.Cycle(ctx, true, s.q.Channel)
	s.result.Events = append(s.result.Events, report.Events...)
	if err != nil {
		return err
	}
	if report.Err != nil {
		return report.Err
	}
	out := report.Outcomes[0]
	s.result.Freshness = out.Freshness
	if out.Err != nil {
		return out.Err
	}
	s.result.Code = fault.Same
	if out.New {
		s.result.Code = fault.OK
	}
	s.choice, err = out.Verified.Select(s.q.Platform)
	if err != nil {
		return err
	}
	a := s.choice
	s.result.Artifact = &Artifact{Name: a.Name, Kind: a.Kind, OS: a.OS, Arch: a.Arch, Variant: a.Variant,
		Length: a.Length, SHA256: a.SHA256, Mode: a.Mode}
	return nil
}

// describe tells what is trusted now.
func (s *session) describe() {
	t := s.follow.Trust()
	if t == nil {
		return
	}
	s.result.RootVersion = t.RootVersion()
	if c, ok := t.Snapshot().State.Channels[s.q.Channel]; ok {
		s.result.Epoch, s.result.Sequence = c.Epoch, c.Sequence
	}
	if v, ok := t.Held(s.q.Channel); ok {
		s.result.Version, s.result.Expires, s.result.SignedBy = v.Manifest.Release.Version, v.Manifest.Expires, v.SignedBy
	}
}

// String is one line for people.
func (a *Artifact) String() string {
	p := manifest.Platform{OS: a.OS, Arch: a.Arch, Variant: a.Variant}
	return fmt.Sprintf("%s for %s, %d bytes, sha256 %s", a.Name, p, a.Length, a.SHA256)
}
