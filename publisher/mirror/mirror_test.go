package mirror

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/repo/repotest"
)

var (
	stable = manifesttest.Stable
	linux  = repotest.Linux
)

// press is a publisher's repository that is pushed.
type press struct {
	*repotest.Press
	t *testing.T
}

func newPress(t *testing.T) *press { return &press{repotest.New(t), t} }

func foreign(t *testing.T) *press { return &press{repotest.Foreign(t), t} }

func (p *press) release(sequence int64, content string) {
	p.t.Helper()
	p.Release(sequence, map[manifest.Platform]string{linux: content})
}

func (p *press) push(to Place, o Options) (*Report, error) {
	return Push(p.t.Context(), p.Repo, to, o)
}

func (p *press) mustPush(to Place, o Options) *Report {
	p.t.Helper()
	r, err := p.push(to, o)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// files is what is in a mirror, by name.
func files(t *testing.T, d Dir) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(string(d), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == dirLock {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(string(d), path)
		all[filepath.ToSlash(name)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// whole fails unless a reader finds of every channel all that its manifest names, and
// returns the sequence that is offered.
func whole(t *testing.T, d Dir, fleet manifest.Digest) int64 {
	t.Helper()
	read := func(name string, limit int64) ([]byte, error) { return os.ReadFile(filepath.Join(string(d), name)) }
	if _, err := os.Stat(filepath.Join(string(d), tree.Root(1))); err != nil {
		return 0 // nothing was ever whole there
	}
	s, err := repo.ReadTree(read, &fleet, "the mirror")
	if err != nil {
		t.Fatal(err)
	}
	ch, err := s.Channel(stable)
	if err != nil || ch.Err != nil {
		t.Fatal(err, ch)
	}
	if ch.Latest == nil {
		return 0
	}
	for _, a := range ch.Latest.Artifacts {
		for _, p := range a.Payloads {
			data, err := os.ReadFile(filepath.Join(string(d), tree.Data(p.SHA256)))
			if err != nil || manifest.Sum(data) != p.SHA256 {
				t.Errorf("the mirror offers %d and its data is not there: %v", ch.Latest.Sequence, err)
			}
			info, err := os.ReadFile(filepath.Join(string(d), tree.Info(p.InfoSHA256)))
			if err != nil || manifest.Sum(info) != p.InfoSHA256 {
				t.Errorf("the mirror offers %d and its info dict is not there: %v", ch.Latest.Sequence, err)
			}
		}
	}
	return ch.Latest.Sequence
}

func TestPushAgainChangesNothing(t *testing.T) {
	p := newPress(t)
	p.Put(tree.Root(2), p.Rotate())
	p.release(1, "one")
	to := Dir(filepath.Join(t.TempDir(), "mirror"))
	r := p.mustPush(to, Options{})
	if r.Written != 7 || len(r.Channels) != 1 || !r.Channels[0].Changed || r.Channels[0].Sequence != 1 || manifest.Digest(r.Fleet) != p.Pin() {
		t.Errorf("%+v", r)
	}
	if got := whole(t, to, p.Pin()); got != 1 {
		t.Errorf("the mirror offers %d", got)
	}
	before := files(t, to)
	if r = p.mustPush(to, Options{Verify: true, Prune: true}); r.Written != 0 || r.Kept != 7 || r.Removed != 0 || r.Channels[0].Changed {
		t.Errorf("again: %+v", r)
	}
	if diff := cmp.Diff(before, files(t, to)); diff != "" {
		t.Error(diff)
	}
	fi, err := os.Stat(to.path(tree.Manifest(stable)))
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("a web server could not read it: %v, %v", fi.Mode(), err)
	}
}

// What is no longer offered stays for those who are fetching it, until it is asked to go;
// what is not of the tree is never touched.
func TestPrune(t *testing.T) {
	p := newPress(t)
	to := Dir(t.TempDir())
	p.release(1, "one")
	p.mustPush(to, Options{})
	for _, name := range []string{"index.html", "data/readme", "releases/index.html"} {
		if err := os.WriteFile(to.path(name), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.release(2, "two")
	p.mustPush(to, Options{})
	before := files(t, to)
	if before[tree.Data(manifest.Sum([]byte("one")))] != "one" {
		t.Error("the release before is gone")
	}
	r := p.mustPush(to, Options{Prune: true})
	after := files(t, to)
	if r.Removed != 4 || len(after) != len(before)-4 || after["data/readme"] != "mine" || after["index.html"] != "mine" {
		t.Errorf("%+v: %d files before, now %v", r, len(before), after)
	}
	if got := whole(t, to, p.Pin()); got != 2 {
		t.Errorf("the mirror offers %d", got)
	}
}

// A mirror is never led back, and what the fleet's keys have not signed is no reason to
// leave it as it is.
func TestWhatTheMirrorHolds(t *testing.T) {
	rows := []struct {
		name string
		want fault.Code
		make func(p *press, to Dir)
	}{
		{"nothing", fault.OK, func(p *press, to Dir) { p.release(1, "one") }},
		{"older", fault.OK, func(p *press, to Dir) { p.release(1, "one"); p.mustPush(to, Options{}); p.release(2, "two") }},
		{"newer", fault.Rollback, func(p *press, to Dir) { p.release(2, "two"); p.mustPush(to, Options{}); p.release(1, "one") }},
		{"same-number-other-content", fault.Equivocation, func(p *press, to Dir) { p.release(2, "two"); p.mustPush(to, Options{}); p.release(2, "zwei") }},
		{"newer-root", fault.Equivocation, func(p *press, to Dir) {
			p.release(1, "one")
			p.Put(tree.Root(2), p.Rotate())
			p.mustPush(to, Options{})
			if err := os.Remove(filepath.Join(p.Tree(), tree.Root(2))); err != nil {
				p.t.Fatal(err)
			}
		}},
		{"another-fleet", fault.WrongTarget, func(p *press, to Dir) {
			p.release(1, "one")
			other := foreign(p.t)
			other.release(9, "nine")
			other.mustPush(to, Options{})
		}},
		{"garbage", fault.OK, func(p *press, to Dir) {
			p.release(1, "one")
			p.mustPush(to, Options{})
			for _, name := range []string{tree.Manifest(stable), tree.Root(1)} {
				if err := os.WriteFile(to.path(name), []byte("<html>"), 0o644); err != nil {
					p.t.Fatal(err)
				}
			}
		}},
		{"a-document-without-end", fault.OK, func(p *press, to Dir) {
			p.release(1, "one")
			p.mustPush(to, Options{})
			if err := os.WriteFile(to.path(tree.Manifest(stable)), bytes.Repeat([]byte("{"), 2<<20), 0o644); err != nil {
				p.t.Fatal(err)
			}
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, to := newPress(t), Dir(t.TempDir())
			r.make(p, to)
			before := files(t, to)
			rep, err := p.push(to, Options{Prune: true})
			if fault.CodeOf(err) != r.want {
				t.Fatalf("%v, want %s", err, r.want)
			}
			if err != nil {
				if diff := cmp.Diff(before, files(t, to)); diff != "" {
					t.Error(diff)
				}
				return
			}
			s, err := p.Read()
			if err != nil {
				t.Fatal(err)
			}
			if got := whole(t, to, p.Pin()); got != s.Channels[0].Latest.Sequence {
				t.Errorf("the mirror offers %d", got)
			}
			if told := len(rep.Notes) > 0; told != (r.name == "garbage" || r.name == "a-document-without-end") {
				t.Errorf("notes: %q", rep.Notes)
			}
		})
	}
}

// A repository on a bad disk tells nobody of what it has not got.
func TestRepositoryThatIsNotWhole(t *testing.T) {
	rows := []struct {
		name string
		want fault.Code
		do   func(p *press, data string)
	}{
		{"data-is-gone", fault.NotFound, func(p *press, data string) { os.Remove(data) }},
		{"data-is-other", fault.ContentMismatch, func(p *press, data string) { os.WriteFile(data, []byte("Two"), 0o644) }},
		{"data-is-short", fault.ContentMismatch, func(p *press, data string) { os.WriteFile(data, []byte("tw"), 0o644) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, to := newPress(t), Dir(t.TempDir())
			p.release(1, "one")
			p.mustPush(to, Options{})
			p.release(2, "two")
			r.do(p, filepath.Join(p.Tree(), tree.Data(manifest.Sum([]byte("two")))))
			if _, err := p.push(to, Options{Prune: true}); fault.CodeOf(err) != r.want {
				t.Errorf("%v, want %s", err, r.want)
			}
			if got := whole(t, to, p.Pin()); got != 1 {
				t.Errorf("the mirror offers %d", got)
			}
		})
	}
}

// Verify mends a mirror on a bad disk.
func TestVerify(t *testing.T) {
	p, to := newPress(t), Dir(t.TempDir())
	p.release(1, "one")
	p.mustPush(to, Options{})
	data := tree.Data(manifest.Sum([]byte("one")))
	if err := os.WriteFile(to.path(data), []byte("0ne"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := p.mustPush(to, Options{}); r.Written != 0 {
		t.Errorf("%+v: of the same length, it was not to be read", r)
	}
	if r := p.mustPush(to, Options{Verify: true}); r.Written != 2 { // with its name for people
		t.Errorf("%+v", r)
	}
	if got := files(t, to)[data]; got != "one" {
		t.Errorf("there is %q", got)
	}
}

// failing is a place that fails for good before its step-th change.
type failing struct {
	Place
	left int
}

var errDied = errors.New("the disk died")

func (f *failing) step() error {
	if f.left--; f.left < 0 {
		return errDied
	}
	return nil
}

func (f *failing) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Place.Put(ctx, name, r, size)
}

func (f *failing) Copy(ctx context.Context, from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Place.Copy(ctx, from, to)
}

func (f *failing) Remove(ctx context.Context, name string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Place.Remove(ctx, name)
}

// At whatever change a push dies, readers find the old release whole or the new one.
func TestDiesAtEveryStep(t *testing.T) {
	diesAtEveryStep(t, func() (Place, Dir) {
		to := Dir(t.TempDir())
		return to, to
	})
}

// diesAtEveryStep takes places that are empty, and where their files are to be read.
func diesAtEveryStep(t *testing.T, empty func() (Place, Dir)) {
	for steps := 0; ; steps++ {
		p := newPress(t)
		to, seen := empty()
		p.release(1, "one")
		p.mustPush(to, Options{})
		p.Put(tree.Root(2), p.Rotate())
		p.release(2, "two")
		_, err := p.push(&failing{to, steps}, Options{Prune: true})
		offers := whole(t, seen, p.Pin())
		if err == nil {
			if offers != 2 || steps < 8 {
				t.Errorf("after %d steps it was done and offers %d", steps, offers)
			}
			return
		}
		if !errors.Is(err, errDied) || offers != 1 && offers != 2 {
			t.Fatalf("%v; the mirror offers %d", err, offers)
		}
		p.mustPush(to, Options{Prune: true})
		if got := whole(t, seen, p.Pin()); got != 2 {
			t.Errorf("after another push the mirror offers %d", got)
		}
	}
}

// tried is a place that tells when somebody was kept out of it.
type tried struct {
	Place
	out chan struct{}
}

func (p tried) Lock(ctx context.Context) (func() error, error) {
	unlock, err := p.Place.Lock(ctx)
	if err != nil {
		select {
		case p.out <- struct{}{}:
		default:
		}
	}
	return unlock, err
}

// A push that comes while another is at work has its turn, and then pushes what there is by
// then: what the other one pushed may be newer than what there was when it came.
func TestPushWaitsForAnother(t *testing.T) {
	p, to := newPress(t), Dir(t.TempDir())
	p.release(1, "one")
	unlock, err := to.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	place, done := tried{to, make(chan struct{}, 1)}, make(chan error, 1)
	go func() {
		_, err := p.push(place, Options{})
		done <- err
	}()
	select {
	case <-place.out:
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	}
	p.release(2, "two")
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := whole(t, to, p.Pin()); got != 2 {
		t.Errorf("the mirror offers %d, want what was published meanwhile", got)
	}
}

func TestLocked(t *testing.T) {
	p, to := newPress(t), Dir(t.TempDir())
	p.release(1, "one")
	unlock, err := to.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hurry, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := Push(hurry, p.Repo, to, Options{}); fault.CodeOf(err) != fault.Locked {
		t.Errorf("%v, want locked", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to.path(dirTemp+"left"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.mustPush(to, Options{})
	if _, left := files(t, to)[dirTemp+"left"]; left {
		t.Error("what a writer that died left is still there")
	}
}
