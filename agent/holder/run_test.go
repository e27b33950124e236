package holder

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
)

// run runs a holder until stop; next waits for its next round.
func (b *bench) run(c Config) (h *Holder, next func() Round, stop func()) {
	b.t.Helper()
	h, err := Open(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	rounds, ended := make(chan Round), make(chan error, 1)
	go func() {
		ended <- h.Run(ctx, func(r Round) {
			select {
			case rounds <- r:
			case <-ctx.Done():
			}
		})
	}()
	return h, func() Round { return <-rounds }, func() {
		b.t.Helper()
		cancel()
		if err := errors.Join(<-ended, h.Close()); err != nil {
			b.t.Error(err)
		}
	}
}

// A branch office takes a release once and gives it to its neighbours, when the publisher
// is gone and after a restart as well; it never holds what is not offered any more.
func TestBranchOffice(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	b := newBench(t)
	one, two := agenttest.Large("2", 0), agenttest.Large("3", 0)
	b.Release(stable, 2, one)
	c := b.cfg
	c.Dir, c.Every = t.TempDir(), 50*time.Millisecond
	h, next, stop := b.run(c)
	r := next()
	if r.Channels[0].Held != 1 || r.Channels[0].Version != "1.0.2" || r.Bytes != int64(len(one)) || r.Channels[0].Code != fault.OK {
		t.Errorf("%+v", r)
	}
	b.Release(stable, 3, two)
	for r.Channels[0].Version != "1.0.3" || r.Channels[0].Held != 1 {
		r = next()
	}
	if _, err := os.Stat(h.Path(manifest.Sum(one))); err == nil {
		t.Error("what is not offered any more is still held")
	}
	stop()

	b.Seed(two) // only to take it out of the tree: nobody is told where it is
	sources := c.Sources
	b.from("http://127.0.0.1:1")
	c.Sources = b.cfg.Sources
	_, next, stop = b.run(c)
	defer stop()
	r = next()
	if r.Channels[0].Held != 1 || r.Channels[0].Code != fault.Unreachable {
		t.Errorf("without a source: %+v", r)
	}
	b.cfg.Sources, b.cfg.Peers, b.cfg.idle = sources, []string{r.Listen}, time.Minute // which it need not wait
	got, err := b.fetch(t.Context())
	if err != nil || got.Bytes.LAN != int64(len(two)) {
		t.Errorf("%+v, %v; want all from the branch office", got, err)
	}
	b.want(two)
}

// A branch office without a way to any source knows and holds what a neighbour knows, and
// passes both on: the news as well as the files.
func TestBranchOfficePassesNewsOn(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	b := newBench(t)
	one, two := agenttest.Large("2", 0), agenttest.Large("3", 0)
	b.Release(stable, 2, one)
	head := b.cfg
	head.Dir, head.Every = t.TempDir(), 50*time.Millisecond
	_, next, stopHead := b.run(head)
	r := next()
	b.from("http://127.0.0.1:1")
	branch := b.cfg
	branch.Dir, branch.Peers, branch.Every = t.TempDir(), []string{r.Listen}, time.Hour
	branch.again, branch.idle = 50*time.Millisecond, 10*time.Second
	_, nextOf, stop := b.run(branch)
	defer stop()
	until := func(next func() Round, version string) Round {
		t.Helper()
		for {
			if r := next(); r.Channels[0].Version == version && r.Channels[0].Held == 1 {
				return r
			}
		}
	}
	drained := make(chan struct{})
	quit := make(chan struct{})
	go func() { // the head office goes on
		defer close(drained)
		for {
			select {
			case <-quit:
				return
			default:
				next()
			}
		}
	}()
	until(nextOf, "1.0.2")
	b.Release(stable, 3, two)
	r = until(nextOf, "1.0.3")
	close(quit)
	<-drained
	stopHead()

	late := b.cfg
	late.Dir, late.Peers, late.Every = t.TempDir(), []string{r.Listen}, time.Hour
	late.again, late.idle = 50*time.Millisecond, 10*time.Second
	h, nextOf2, stopLate := b.run(late)
	defer stopLate()
	until(nextOf2, "1.0.3")
	if got, err := os.ReadFile(h.Path(manifest.Sum(two))); err != nil || !bytes.Equal(got, two) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestBranchOfficeHasBounds(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	rows := []struct {
		name string
		edit func(*Config)
		want fault.Code
		of   int
	}{
		{"too-small", func(c *Config) { c.Size = 10 }, fault.Quota, 1},
		{"other-platforms", func(c *Config) { c.Platforms = []manifest.Platform{{OS: "plan9", Arch: "mips"}} }, fault.OK, 0},
		{"expired", func(c *Config) { now := b.Now.AddDate(1, 0, 0); c.Options.Clock = func() time.Time { return now } }, fault.Expired, 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := b.cfg
			c.Dir = t.TempDir()
			r.edit(&c)
			_, next, stop := b.run(c)
			defer stop()
			got := next().Channels[0]
			if got.Code != r.want || got.Held != 0 || got.Of != r.of {
				t.Errorf("%+v, want %s", got, r.want)
			}
		})
	}
}
