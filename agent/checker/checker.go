// Package checker holds a tree of documents against a pinned root, and installs
// nothing: it is the whole verification of an agent for scripts, auditors and tests.
//
// A checker has a state directory of its own, made by [Init.Do], with the pin and the
// anchor in it. It accepts and refuses exactly what an agent would, remembers what it
// has accepted, and can be told what time it is.
package checker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"shoal/agent/follow"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/keys"
	"shoal/manifest"
)

// Query is one question to a checker.
type Query struct {
	Dir      string
	JoinFile string // where the pin of a joined state is; may be missing
	Anchor   string // of a joined state; empty means inside Dir
	Source   string // a tree: a directory or a base URL
	Channel  manifest.Channel
	Platform manifest.Platform
	Now      *time.Time // replaces the clock; only on a checker's own state
	Build    time.Time  // when this program was built; not used with Now
	Version  string     // of this program
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

// Result is the answer. Its first members, up to Events, are always there and keep their
// meaning; more may be added. Numbers and hash are of what is trusted after the cycle,
// whatever became of what was offered in it.
type Result struct {
	Code fault.Code `json:"code"`
	Exit int        `json:"exit"`
	// RootVersion is the highest root ever trusted here; it never falls.
	RootVersion int64 `json:"root_version"`
	// Epoch and Sequence are the highest order ever accepted in the channel, kept when
	// its document is not trusted any more; zeros before the first.
	Epoch    int64 `json:"epoch"`
	Sequence int64 `json:"sequence"`
	// ManifestSHA256 is the payload of the manifest that is trusted, in date or not, in
	// hex; empty when none is.
	ManifestSHA256 string             `json:"manifest_sha256"`
	Freshness      manifest.Freshness `json:"freshness"`
	// Changed says that the roots, the manifest or the beacon that are trusted are not
	// the ones from before the cycle.
	Changed bool             `json:"changed"`
	Events  []manifest.Event `json:"events"`

	App      string         `json:"app"`
	Channel  string         `json:"channel"`
	Version  string         `json:"version,omitempty"`
	Expires  time.Time      `json:"expires,omitzero"`
	SignedBy []keys.ID      `json:"signed_by,omitempty"`
	Artifact *Artifact      `json:"artifact,omitempty"`
	Out      string         `json:"out,omitempty"`     // the file that holds the artifact
	Message  string         `json:"message,omitempty"` // what follows is of a failure
	Lines    []string       `json:"lines,omitempty"`
	Detail   map[string]any `json:"detail,omitempty"`
	Next     []string       `json:"next,omitempty"`
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
	store  *state.Store
	source source.Source
	follow *follow.Follower
	result *Result

	verified *manifest.Verified
	choice   *manifest.Artifact
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
// what was there before. Where out has that content already, nothing is fetched.
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
	r := &Result{App: q.Channel.App, Channel: q.Channel.Name, Freshness: manifest.FreshNone, Events: []manifest.Event{}}
	err := q.open(ctx, r, work)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, fault.Locked): // whatever else there was no time for
	case errors.Is(ctx.Err(), context.Canceled):
		err = fault.New(fault.Interrupted, "interrupted: %w", err)
	case ctx.Err() != nil:
		err = fault.New(fault.Unreachable, "gave up waiting for %s", q.Source).
			Do("allow more time: --timeout").Fact("source", q.Source)
	}
	r.fail(err)
	return r, err
}

// open takes the lock, for which it waits while another command has it, asks and gives the
// lock back. Where there is no state nothing is made, not even the lock.
func (q Query) open(ctx context.Context, r *Result, work func(*session) error) error {
	dir, err := filepath.Abs(q.Dir)
	if err != nil {
		return fault.New(fault.Usage, "state directory %q: %w", q.Dir, err)
	}
	if q.Anchor == "" {
		q.Anchor = filepath.Join(dir, anchorFile)
	}
	lost := func() error {
		return follow.StateLost(dir, "").
			Line("Nothing was written.").Do("shoal agent init --state %s --root FILE", q.Dir)
	}
	if !state.Exists(dir, q.Anchor) {
		return lost()
	}
	store, err := turn.Alone(ctx, dir, func() (*state.Store, error) { return state.Open(dir, q.Anchor) })
	if err != nil {
		return err
	}
	defer store.Close()
	before, err := store.Read()
	if err != nil {
		return err
	}
	if !before.Known {
		return lost()
	}
	pin, options, err := q.settings(before, dir)
	if err != nil {
		return err
	}
	src, srcErr := source.Open(q.Source, source.Options{UserAgent: "shoal/" + q.Version})
	s := &session{q: q, store: store, source: src, result: r}
	c := follow.Config{Store: store, Pin: pin, Channels: []manifest.Channel{q.Channel}, Options: options}
	if srcErr == nil {
		c.Sources = append(c.Sources, src)
	}
	s.follow = follow.New(c)
	defer s.describe(before)
	if srcErr != nil {
		return srcErr
	}
	return work(s)
}

// settings reads the pin of a joined state, and decides whose clock counts.
func (q Query) settings(m *state.Memory, dir string) (*state.Pin, manifest.Options, error) {
	o := manifest.Options{Clock: time.Now, Build: q.Build, AgentVersion: q.Version}
	if m.Local.Checker == nil {
		if q.Now != nil {
			return nil, o, fault.New(fault.Usage, "--now is refused here: %s is the state of an agent that has joined", dir).
				Line("A wrong time could make it trust what has expired.").
				Do("make a checker's state: shoal agent init --state DIR --root FILE")
		}
		if q.JoinFile == "" {
			return nil, o, nil
		}
		pin, err := state.ReadPin(q.JoinFile)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return pin, o, err
	}
	if q.Now != nil {
		now := *q.Now
		o.Clock, o.Build = func() time.Time { return now }, time.Time{}
	}
	return nil, o, nil
}

// check runs one cycle and chooses the artifact.
func (s *session) check(ctx context.Context) error {
	report, err := s.follow.Cycle(ctx, follow.Ask{Force: true}, s.q.Channel)
	if report != nil { // a cycle that is interrupted may have come to none
		s.result.Events = append(s.result.Events, report.Events...)
	}
	if err != nil {
		return err
	}
	if report.Err != nil {
		return report.Err
	}
	out := report.Outcomes[0]
	if out.Err != nil {
		return out.Err
	}
	s.result.Code = fault.Same
	if out.New {
		s.result.Code = fault.OK
	}
	s.verified = out.Verified
	s.choice, err = out.Verified.Select(s.q.Platform)
	if err != nil {
		return err
	}
	a := s.choice
	s.result.Artifact = &Artifact{Name: a.Name, Kind: a.Kind, OS: a.OS, Arch: a.Arch, Variant: a.Variant,
		Length: a.Length, SHA256: a.SHA256, Mode: a.Mode}
	return nil
}

// describe tells what is trusted now: what is on disk, verified once more.
func (s *session) describe(before *state.Memory) {
	r := s.result
	after, err := s.store.Read()
	if err != nil || !after.Known {
		return
	}
	r.Changed = differ(&before.Snapshot, &after.Snapshot)
	st := after.Snapshot.State
	trust, err := s.follow.Reread(false)
	if err == nil {
		st = trust.Snapshot().State
		cycle, _ := trust.Begin() // under a root that has expired, too
		r.Freshness = cycle.Brake(s.q.Channel).Freshness
		if v, ok := trust.Held(s.q.Channel); ok {
			r.ManifestSHA256 = v.Hash.String()
			r.Version, r.Expires, r.SignedBy = v.Manifest.Release.Version, v.Manifest.Expires, v.SignedBy
		}
	}
	c := st.Channels[s.q.Channel]
	r.RootVersion, r.Epoch, r.Sequence = st.RootVersion, c.Epoch, c.Sequence
}

// differ reports whether two states trust different things.
func differ(a, b *manifest.Snapshot) bool {
	accepted := func(x, y manifest.ChannelState) bool {
		return x.Order() == y.Order() && x.ManifestSHA256 == y.ManifestSHA256
	}
	return a.State.RootVersion != b.State.RootVersion ||
		!maps.EqualFunc(a.State.Channels, b.State.Channels, accepted) ||
		!slices.EqualFunc(a.Roots, b.Roots, bytes.Equal) ||
		!maps.EqualFunc(a.Manifests, b.Manifests, bytes.Equal) ||
		!maps.EqualFunc(a.Beacons, b.Beacons, bytes.Equal)
}

// String is one line for people.
func (a *Artifact) String() string {
	p := manifest.Platform{OS: a.OS, Arch: a.Arch, Variant: a.Variant}
	return fmt.Sprintf("%s for %s, %d bytes, sha256 %s", a.Name, p, a.Length, a.SHA256)
}
