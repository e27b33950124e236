// Package mirror copies what a repository offers to where any web server can serve it.
//
// Whoever reads the mirror at any instant, after a crash too, finds of each channel the
// old release whole or the new one: every file gets its name when it is complete, and a
// manifest comes after everything it names. What the fleet's keys have signed and the
// mirror holds already is never replaced by something older.
package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"shoal/internal/contextio"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/witness"
	"shoal/swarm"
)

// Place is where a mirror is. Names are those of package tree, and are valid.
type Place interface {
	// Name is what people call it.
	Name() string
	// Lock keeps other writers away until unlock, as far as the place can; or fails with
	// the code locked.
	Lock(ctx context.Context) (unlock func() error, err error)
	// Open returns a file, and how long it is. Without one the error matches fs.ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, int64, error)
	// Put makes the first size bytes of r the file name, at once and for good: readers see
	// what was there before until it is whole.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// Copy makes a second file of one that is there, likewise.
	Copy(ctx context.Context, from, to string) error
	// List names the files of a tree that are there.
	List(ctx context.Context) ([]string, error)
	// Remove removes a file.
	Remove(ctx context.Context, name string) error
}

// Options say how to push.
type Options struct {
	// Verify reads the payloads that are there, too, and replaces those that are not as
	// signed; otherwise their length is looked at.
	Verify bool
	// Prune removes what no channel offers any more.
	Prune bool
}

// Report is what a push did.
type Report struct {
	Mirror   string           `json:"mirror"`
	Fleet    manifest.FleetID `json:"fleet"`
	Channels []Channel        `json:"channels"`
	Written  int              `json:"written"` // files
	Bytes    int64            `json:"bytes"`   // of those
	Kept     int              `json:"kept"`    // files that were there already
	Removed  int              `json:"removed"`
	Notes    []string         `json:"notes,omitempty"` // what was there and could not be believed
}

// Channel is what the mirror now has of a channel.
type Channel struct {
	Channel  string `json:"channel"`
	Version  string `json:"version"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Changed  bool   `json:"changed"`
}

// Push brings the place up to what r offers. Pushing again what is there changes nothing.
// For another push it waits a few seconds. Codes: locked when that was not enough, rollback
// and equivocation for a mirror that is ahead of r, wrong_target for one of another fleet,
// content_mismatch for a repository that is not whole.
func Push(ctx context.Context, r *repo.Repo, to Place, o Options) (*Report, error) {
	if _, err := offers(r); err != nil { // before anything is touched there
		return nil, err
	}
	unlock, err := turn.Command(ctx, func() (func() error, error) { return to.Lock(ctx) })
	if err != nil {
		return nil, failure("locking "+to.Name(), err)
	}
	p := &push{ctx: ctx, r: r, to: to, o: o, offered: map[string]bool{}}
	if p.s, err = offers(r); err == nil { // what the other push had may be newer than what was read before
		p.report = Report{Mirror: to.Name(), Fleet: p.s.Trust.Snapshot().State.Repo, Channels: []Channel{}}
		err = p.run()
	}
	if uerr := unlock(); err == nil {
		err = uerr
	}
	if err != nil {
		return nil, failure("pushing to "+to.Name(), err)
	}
	return &p.report, nil
}

// offers reads r, all of which has to be good.
func offers(r *repo.Repo) (*repo.State, error) {
	s, err := r.Read()
	if err != nil {
		return nil, err
	}
	for _, ch := range s.Channels {
		if ch.Err != nil {
			return nil, ch.Err
		}
	}
	return s, nil
}

// push is one push under way.
type push struct {
	ctx     context.Context // of the whole push
	r       *repo.Repo
	s       *repo.State
	to      Place
	o       Options
	offered map[string]bool // the files that belong there
	report  Report
}

// run writes in the order in which files name each other, the named ones first.
func (p *push) run() error {
	for i := range p.s.Channels {
		if err := p.compare(&p.s.Channels[i]); err != nil {
			return err
		}
	}
	for i := range p.s.Channels {
		if m := p.s.Channels[i].Latest; m != nil {
			if err := p.release(m); err != nil {
				return err
			}
		}
	}
	for i, env := range p.s.Trust.Snapshot().Roots {
		if _, err := p.document(tree.Root(int64(i+1)), env); err != nil {
			return err
		}
	}
	for i := range p.s.Channels {
		if err := p.channel(&p.s.Channels[i]); err != nil {
			return err
		}
	}
	if p.o.Prune {
		return p.prune()
	}
	return nil
}

// compare refuses a mirror that has more than the repository, or something else. What is
// there and cannot be believed is replaced.
func (p *push) compare(ch *repo.Channel) error {
	v := witness.Compare(p.read, p.to.Name(), p.s.Trust, ch.Name)
	nothing := func(e *fault.Error) *fault.Error {
		return e.Line("A repository put back from a backup looks like this, and so does a second publisher.").
			Line("Nothing was written; what the mirror serves is as it was.").
			Do("put the newest repository back, or copy what is missing from %s", p.to.Name()).Fact("place", p.to.Name())
	}
	if v.Root != nil {
		var e *fault.Error
		if errors.As(v.Root, &e) {
			return nothing(e)
		}
		return v.Root
	}
	if m := v.Manifest; m != nil {
		there, here := m.Order(), ch.Last
		e := fault.New(fault.Rollback, "%s has %s %s %s, this repository only %s", p.to.Name(), ch.Name, m.Release.Version, there, here)
		if there.Compare(here) <= 0 {
			e = fault.New(fault.Equivocation, "%s has another %s %s than this repository, and the release keys have signed both", p.to.Name(), ch.Name, there)
		}
		return nothing(e.Fact("there", there.String()).Fact("here", here.String()).Fact("payload_sha256", v.Hash.String()))
	}
	switch fault.CodeOf(v.Problem).Exit() {
	case 0:
		return nil
	case fault.Malformed.Exit():
		if !errors.Is(v.Problem, fault.WrongTarget) {
			p.report.Notes = append(p.report.Notes, fmt.Sprintf("%s: what was there could not be believed: %v", ch.Name, v.Problem))
			return nil
		}
	}
	return v.Problem // it cannot be read, or is another fleet's
}

func (p *push) read(name string, limit int64) ([]byte, error) {
	r, _, err := p.to.Open(p.ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fault.New(fault.TooLarge, "%q at %s is larger than the %d bytes it may have", name, p.to.Name(), limit)
	}
	return b, err
}

// release writes all that m names.
func (p *push) release(m *manifest.Manifest) error {
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		for _, pl := range a.Payloads {
			dict, err := p.stored(tree.Info(pl.InfoSHA256), swarm.MaxInfoSize)
			if err != nil {
				return err
			}
			if manifest.Sum(dict) != pl.InfoSHA256 {
				return p.notWhole(tree.Info(pl.InfoSHA256))
			}
			if err := p.data(pl.SHA256, pl.Length); err != nil {
				return err
			}
			if _, err := p.document(tree.Info(pl.InfoSHA256), dict); err != nil {
				return err
			}
		}
		if err := p.named(m, a); err != nil {
			return err
		}
	}
	for _, at := range m.Attachments {
		if err := p.data(at.SHA256, at.Length); err != nil {
			return err
		}
	}
	return nil
}

// named writes an artifact's files for people.
func (p *push) named(m *manifest.Manifest, a *manifest.Artifact) error {
	full, ok := a.Usable()
	name := tree.Release(m.App, m.Release.Version, a.Platform())
	if _, err := os.Stat(p.path(name)); !ok || err != nil {
		return nil // it has no such names
	}
	for _, ending := range []string{tree.Torrent, tree.Magnet} {
		b, err := p.stored(name+ending, maxForPeople)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := p.document(name+ending, b); err != nil {
			return err
		}
	}
	p.offered[name] = true
	there, err := p.there(name, full.SHA256, full.Length)
	if err != nil || there {
		return err
	}
	if err := p.to.Copy(p.ctx, tree.Data(full.SHA256), name); err != nil {
		return err
	}
	p.report.Written++
	return nil
}

const maxForPeople = 1 << 20 // a .torrent holds an info dict and a few addresses

// data writes a payload or an attachment, unless it is there. Its bytes are hashed on the
// way: a repository on a bad disk is found out before anybody is told of the release.
func (p *push) data(d manifest.Digest, length int64) error {
	name := tree.Data(d)
	p.offered[name] = true
	there, err := p.there(name, d, length)
	if err != nil || there {
		return err
	}
	f, err := os.Open(p.path(name))
	if err != nil {
		return p.notWhole(name)
	}
	defer f.Close()
	// Twice read, so that nothing but the signed content gets the name there.
	if !p.is(f, d, length) {
		return p.notWhole(name)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := p.to.Put(p.ctx, name, f, length); err != nil {
		return err
	}
	p.report.Written, p.report.Bytes = p.report.Written+1, p.report.Bytes+length
	return nil
}

// there reports whether the mirror has that content under name.
func (p *push) there(name string, d manifest.Digest, length int64) (bool, error) {
	r, size, err := p.to.Open(p.ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	if size != length || p.o.Verify && !p.is(r, d, length) {
		return false, p.ctx.Err()
	}
	p.report.Kept++
	return true, nil
}

func (p *push) is(r io.Reader, d manifest.Digest, length int64) bool {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(contextio.Reader(p.ctx, r), length+1))
	return err == nil && n == length && manifest.Digest(h.Sum(nil)) == d
}

// channel writes the channel's manifest, and then what speaks of it.
func (p *push) channel(ch *repo.Channel) error {
	if ch.Stored == nil {
		return nil
	}
	changed, err := p.document(tree.Manifest(ch.Name), ch.Stored)
	if err != nil {
		return err
	}
	m := ch.Latest
	p.report.Channels = append(p.report.Channels, Channel{ch.Name.String(), m.Release.Version, m.Epoch, m.Sequence, changed})
	beacon, err := p.r.StoredBeacon(ch.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = p.document(tree.Beacon(ch.Name), beacon)
	}
	return err
}

// document writes a small file, unless it is there as it is.
func (p *push) document(name string, b []byte) (changed bool, err error) {
	p.offered[name] = true
	there, err := p.read(name, int64(len(b)))
	if err == nil && bytes.Equal(there, b) {
		p.report.Kept++
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fault.TooLarge) {
		return false, err
	}
	if err := p.to.Put(p.ctx, name, bytes.NewReader(b), int64(len(b))); err != nil {
		return false, err
	}
	p.report.Written, p.report.Bytes = p.report.Written+1, p.report.Bytes+int64(len(b))
	return true, nil
}

// prune removes the files of a tree that belong there no more; others are not touched.
func (p *push) prune() error {
	names, err := p.to.List(p.ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		if p.offered[name] || !tree.Valid(name) {
			continue
		}
		if err := p.to.Remove(p.ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.report.Removed++
	}
	return nil
}

// stored reads a small file of the repository.
func (p *push) stored(name string, limit int64) ([]byte, error) {
	f, err := os.Open(p.path(name))
	if err != nil {
		return nil, p.notWhole(name)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, p.notWhole(name)
	}
	return b, err
}

func (p *push) notWhole(name string) error {
	code := fault.ContentMismatch
	if _, err := os.Stat(p.path(name)); errors.Is(err, fs.ErrNotExist) {
		code = fault.NotFound
	}
	return fault.New(code, "the repository is not whole: %s is missing or not as signed", name).
		Line("The mirror was told of no new release.").
		Do("put the repository back from a backup, or publish the files again under a version of their own").Fact("file", name)
}

func (p *push) path(name string) string {
	return filepath.Join(p.r.Tree(), filepath.FromSlash(name))
}

// failure gives an error of the operating system the code a person can act on.
func failure(doing string, err error) error {
	var coded *fault.Error
	code := fault.IO
	switch {
	case errors.As(err, &coded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = fault.NoSpace
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	case errors.Is(err, fs.ErrNotExist):
		code = fault.NotFound
	}
	return fault.New(code, "%s: %w", doing, err).Line("What the mirror offers is whole; the same command goes on.")
}
