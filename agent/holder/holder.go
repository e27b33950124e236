// Package holder keeps what channels offer on a machine that installs none of it.
//
// It trusts what an agent would trust, by the same code: documents are verified and
// remembered before anything is fetched, every file is hashed before it has its name,
// and what the publisher has blocked, or no longer offers, is given to nobody. It never
// replaces or starts a program.
package holder

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"shoal/agent/acquire"
	"shoal/agent/cache"
	"shoal/agent/follow"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// Config is what a Holder is made of. Dir, Pin and Channels must be set.
type Config struct {
	// Dir holds what is trusted, and the cache; it is locked while the Holder is open.
	Dir string
	// Pin says which fleet is believed, and the least that its documents must be.
	Pin *state.Pin
	// Trusted is what an agent of this machine trusts already: nothing older is taken. It
	// may be nil.
	Trusted *manifest.Snapshot
	// Channels are the ones that are followed.
	Channels []manifest.Channel
	// Platforms are those whose artifacts are kept; none means all. One without a variant
	// means every variant.
	Platforms []manifest.Platform

	// Sources are where documents come from, and payloads when peers have none.
	Sources []source.Source
	// Trackers, Peers and Origins are as in the configuration of an agent.
	Trackers, Peers, Origins []string
	// Fleet is the membership in a fleet with a key; nil in an open fleet.
	Fleet *fleet.Member
	// Listen is the swarm's host:port; empty means any free port.
	Listen   string
	LAN      swarm.LAN
	Limits   swarm.Limits
	MaxPeers int

	// Size is the most bytes that are kept, Reserve what is left free on the disk; zero is
	// no bound.
	Size, Reserve int64
	// Every is the mean time between checks of Run; zero means 15 minutes.
	Every time.Duration

	// Options are those of manifest, without floors.
	Options manifest.Options
	// Logger receives progress. If nil, nothing is logged.
	Logger *slog.Logger

	idle  time.Duration // replaces the time without a byte from peers, in tests
	again time.Duration // and this, defaultAgain
}

// Holder holds the lock of its directory until Close. Get and Give may be called
// concurrently.
type Holder struct {
	c      Config
	store  *state.Store
	follow *follow.Follower
	cache  *cache.Cache
	get    *acquire.Acquirer

	given map[manifest.Infohash]manifest.Digest // by Run, which alone uses it

	news chan struct{} // holds a token when a neighbour's news was taken

	mu       sync.Mutex // guards what follows; the follower's lock may be held before it
	node     *swarm.Node
	followed []*swarm.Channel
}

// Open takes the directory, which is made if it is not there. It asks no source.
func Open(ctx context.Context, c Config) (_ *Holder, err error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Options.Clock == nil {
		c.Options.Clock = time.Now
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.again == 0 {
		c.again = defaultAgain
	}
	pin := *c.Pin // which is raised
	c.Pin = &pin
	h := &Holder{c: c, given: map[manifest.Infohash]manifest.Digest{}, news: make(chan struct{}, 1)}
	if h.store, err = state.Open(c.Dir, filepath.Join(c.Dir, "anchor.json")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.store.Close()
		}
	}()
	if err := h.begin(); err != nil {
		return nil, err
	}
	if h.cache, err = cache.Open(filepath.Join(c.Dir, "cache"), cache.Options{MaxFile: c.Size, Reserve: c.Reserve}); err != nil {
		return nil, err
	}
	h.follow = follow.New(follow.Config{
		Store: h.store, Pin: c.Pin, Channels: c.Channels, Sources: c.Sources, Options: c.Options, Logger: c.Logger,
		Stored: h.tellNeighbours,
	})
	if err := h.follow.Load(ctx); err != nil && !errors.Is(err, fault.Unreachable) {
		return nil, err
	}
	h.get = &acquire.Acquirer{
		Cache: h.cache, Sources: c.Sources, Node: h.swarm, Trackers: c.Trackers, Peers: c.Peers, Logger: c.Logger,
		Idle: c.idle,
	}
	return h, nil
}

// begin takes up what the agent of this machine trusts: nobody on it is to be led back by
// asking somebody else.
func (h *Holder) begin() error {
	if h.c.Trusted == nil {
		return nil
	}
	theirs := h.c.Trusted.State
	h.c.Pin.MinRoot = max(h.c.Pin.MinRoot, theirs.RootVersion)
	for ch, st := range theirs.Channels {
		h.c.Pin.Raise(0, ch, st.Order())
	}
	if m, err := h.store.Read(); err != nil || m.Known {
		return err
	}
	return h.store.Reset(*h.c.Trusted, state.Local{})
}

// Close ends the seeding, and gives the directory back.
func (h *Holder) Close() error {
	h.follow.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	if h.node != nil {
		err = h.node.Close()
	}
	return errors.Join(err, h.store.Close())
}

// Check asks the sources for ch. When none answers, or has the channel, what is trusted
// already is returned beside the error.
func (h *Holder) Check(ctx context.Context, ch manifest.Channel) (*manifest.Verified, []manifest.Event, error) {
	report, err := h.follow.Cycle(ctx, follow.Ask{Force: true}, ch)
	switch {
	case err != nil:
		return nil, nil, err
	case report.Err != nil:
		held, _ := h.follow.Held(ch)
		return held, report.Events, report.Err
	}
	out := report.Outcomes[0]
	return out.Verified, report.Events, out.Err
}

// Get returns the artifact's payload of the release that v is of, verified, open at its
// start: from here, from peers, or at last from a source. given says that peers are given
// it from then on.
func (h *Holder) Get(ctx context.Context, v *manifest.Verified, art *manifest.Artifact, tell func(acquire.Progress)) (f *os.File, given bool, err error) {
	p, ok := art.Usable()
	if !ok {
		return nil, false, fault.New(fault.NoArtifact, "%s comes in no form this build understands", art.Name).Do("use a newer shoal")
	}
	if err := h.Authorize(v.Manifest.Name(), art.SHA256); err != nil { // before its bytes are asked for
		return nil, false, err
	}
	if err := h.cache.Admit(p.SHA256, p.Length, 0); err != nil {
		return nil, false, err
	}
	f, given, err = h.get.Open(ctx, acquire.Wanted{Payload: p, Release: v.Manifest.App + " " + v.Manifest.Release.Version}, tell)
	if err != nil {
		return nil, given, err
	}
	if err := h.Authorize(v.Manifest.Name(), art.SHA256); err != nil { // it may have taken hours
		f.Close()
		return nil, given, err
	}
	return f, given, nil
}

// Authorize asks, from what is on disk, whether the artifact may be used now.
func (h *Holder) Authorize(ch manifest.Channel, artifact manifest.Digest) error {
	trust, err := h.follow.Reread(false)
	if err != nil {
		return err
	}
	cycle, err := trust.Begin()
	if err != nil {
		return err
	}
	return cycle.Authorize(ch, artifact)
}

// Give gives the payload p, whose verified file is at path, to peers until Close. The
// file may be renamed meanwhile.
func (h *Holder) Give(ctx context.Context, p *manifest.Payload, path string) error {
	info, err := h.get.Info(ctx, p)
	if err != nil {
		return err
	}
	node, err := h.swarm()
	if err != nil {
		return err
	}
	if err := node.Seed(ctx, info, path, h.c.Trackers); err != nil && !errors.Is(err, swarm.ErrBusy) {
		return fault.New(fault.IO, "giving the release to peers: %w", err)
	}
	return nil
}

// Path is where the file with this content is once it was verified.
func (h *Holder) Path(d manifest.Digest) string { return h.cache.Path(d) }

// swarm returns the node, made when it is first needed.
func (h *Holder) swarm() (*swarm.Node, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.node != nil {
		return h.node, nil
	}
	node, err := swarm.New(swarm.Config{
		Listen: h.c.Listen, Fleet: h.c.Fleet, TrackerTransport: fleet.Transport(h.c.Fleet), LAN: h.c.LAN,
		Origins: h.c.Origins, Limits: h.c.Limits, MaxPeers: h.c.MaxPeers, Logger: h.c.Logger,
	})
	var port *swarm.PortError
	if errors.As(err, &port) {
		code := fault.PortInUse
		if errors.Is(err, fs.ErrPermission) {
			code = fault.Permission
		}
		return nil, fault.New(code, "cannot listen on %s: %w", port.Addr, port.Err).
			Line("Peers reach this machine there; its agent may have the port.").
			Do("choose another port with --listen :PORT, or port 0 for any").Fact("listen", port.Addr)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "starting the swarm node: %w", err)
	}
	h.node = node
	return node, nil
}
