package holder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"shoal/agent/agenttest"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

var stable = manifesttest.Stable

// bench is a publisher, and a directory for what is fetched.
type bench struct {
	*agenttest.Publisher
	t   *testing.T
	out string
	cfg Config
}

func newBench(t *testing.T) *bench {
	t.Helper()
	p := agenttest.New(t)
	b := &bench{Publisher: p, t: t, out: filepath.Join(t.TempDir(), "acme")}
	b.cfg = Config{
		Pin: &state.Pin{Repo: manifest.FleetID(p.Pin())}, Channels: []manifest.Channel{stable}, Listen: "127.0.0.1:0",
		Options: manifest.Options{Clock: func() time.Time { return p.Now }, AgentVersion: "1.0.0"},
		Logger:  slog.New(slog.DiscardHandler), idle: 50 * time.Millisecond,
	}
	b.from(p.Serve())
	return b
}

// from has the sources be refs.
func (b *bench) from(refs ...string) {
	b.t.Helper()
	b.cfg.Sources = nil
	for _, ref := range refs {
		s, err := source.Open(ref, source.Options{})
		if err != nil {
			b.t.Fatal(err)
		}
		b.cfg.Sources = append(b.cfg.Sources, s)
	}
}

func (b *bench) fetch(ctx context.Context) (got Fetched, err error) {
	err = Fetch(ctx, b.cfg, Request{Platform: manifest.Host(), Out: b.out, Done: func(f Fetched) error { got = f; return nil }})
	return got, err
}

// want fails unless the file has this content; nil wants none.
func (b *bench) want(content []byte) {
	b.t.Helper()
	got, err := os.ReadFile(b.out)
	if content == nil && errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil || !bytes.Equal(got, content) {
		b.t.Errorf("%d bytes, %v; want %d", len(got), err, len(content))
	}
}

func (b *bench) clean() {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(b.out))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(b.out) {
			b.t.Errorf("%q is left beside the file", e.Name())
		}
	}
}

func TestFetchedFileIsTheSignedOne(t *testing.T) {
	small, large := agenttest.Program("2", 0), agenttest.Large("2", 0)
	rows := []struct {
		name    string
		content []byte
		attack  func(b *bench)
		want    fault.Code
	}{
		{"small", small, func(*bench) {}, fault.OK},
		{"large-from-peers-alone", large, func(b *bench) { b.cfg.Peers = []string{b.Seed(large)} }, fault.OK},
		{"other-bytes", small, func(b *bench) { b.Put(tree.Data(manifest.Sum(small)), agenttest.Program("3", 0)) }, fault.ContentMismatch},
		{"one-byte-more", small, func(b *bench) { b.Put(tree.Data(manifest.Sum(small)), append(small[:len(small):len(small)], 0)) }, fault.LengthExceeded},
		{"nothing-there", small, func(b *bench) { b.Remove(tree.Data(manifest.Sum(small))) }, fault.NotFound},
		{"nobody-answers", small, func(b *bench) { b.from("http://127.0.0.1:1") }, fault.Unreachable},
		{"expired", small, func(b *bench) { b.Now = b.Now.AddDate(1, 0, 0) }, fault.Expired},
		{"below-the-links-floor", small, func(b *bench) { b.cfg.Pin.Raise(1, stable, manifest.Order{Epoch: 1, Sequence: 3}) }, fault.Rollback},
		{"another-fleet", small, func(b *bench) { b.cfg.Pin.Repo = manifest.FleetID(manifest.Sum(nil)) }, fault.PinMismatch},
		{"larger-than-allowed", large, func(b *bench) { b.cfg.Size = 1000 }, fault.Quota},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			b.Release(stable, 2, r.content)
			r.attack(b)
			old := []byte("the file as it was")
			if err := os.WriteFile(b.out, old, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := b.fetch(t.Context())
			if fault.CodeOf(err) != r.want {
				t.Fatalf("%v, want %s", err, r.want)
			}
			b.clean()
			if r.want != fault.OK {
				b.want(old)
				return
			}
			b.want(r.content)
			if got.Version != "1.0.2" || got.Already || got.Length != int64(len(r.content)) {
				t.Errorf("%+v", got)
			}
			if got, err = b.fetch(t.Context()); err != nil || !got.Already {
				t.Errorf("again: %+v, %v, want it there already", got, err)
			}
		})
	}
}

// What an agent of the machine has seen, whoever asks beside it is held to as well; and
// it is enough when no source answers.
func TestFetchKnowsWhatTheAgentKnows(t *testing.T) {
	b := newBench(t)
	content := agenttest.Large("3", 0)
	before := b.Draft(stable, 2, agenttest.Program("2", 0))
	b.Release(stable, 3, content)
	agent, err := Open(t.Context(), func() Config { c := b.cfg; c.Dir = t.TempDir(); return c }())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := agent.Check(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	m, err := agent.store.Read()
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Trusted = &m.Snapshot
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}
	b.Put(tree.Manifest(stable), before)
	if _, err := b.fetch(t.Context()); fault.CodeOf(err) != fault.Rollback {
		t.Errorf("%v, want rollback", err)
	}
	b.want(nil)

	peer := b.Seed(content)
	b.cfg.Peers = []string{peer}
	b.from("http://127.0.0.1:1")
	got, err := b.fetch(t.Context())
	if err != nil || got.Note == "" || got.Sequence != 3 {
		t.Errorf("%+v, %v; want 1.0.3 with a note", got, err)
	}
	b.want(content)
}

// A fetch that was cut off keeps what had come, and goes on from there.
func TestFetchGoesOn(t *testing.T) {
	b := newBench(t)
	content := agenttest.Large("2", 0)
	b.Release(stable, 2, content)
	half := &halfSource{Source: b.cfg.Sources[0]}
	b.cfg.Sources = []source.Source{half}
	if _, err := b.fetch(t.Context()); fault.CodeOf(err) != fault.Unreachable {
		t.Fatalf("%v, want unreachable", err)
	}
	b.want(nil)
	half.whole = true
	got, err := b.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.want(content)
	if got.Bytes.Webseed >= int64(len(content)) || got.Bytes.Webseed == 0 {
		t.Errorf("%+v of %d, want the rest alone", got.Bytes, len(content))
	}
	b.clean()
}

// halfSource gives a piece and a little more, and then nothing until it is whole.
type halfSource struct {
	source.Source
	gave, whole bool
}

func (s *halfSource) Data(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	r, at, err := s.Source.Data(ctx, path, offset)
	if err != nil || s.whole {
		return r, at, err
	}
	gone := fault.New(fault.Unreachable, "it is gone")
	if s.gave {
		r.Close()
		return nil, 0, gone
	}
	s.gave = true
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, 64<<10+100), iotest.ErrReader(gone)), r}, at, nil
}
