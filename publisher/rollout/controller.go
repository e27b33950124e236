package rollout

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/repo"
)

// DefaultEvery is how often a controller looks.
const DefaultEvery = 2 * time.Second

// maxUntold bounds the decisions of a channel that wait to be told; the oldest go. They
// wait only while no beacon can be signed or kept.
const maxUntold = 64

// Config is what a Controller is made of.
type Config struct {
	// Repo holds the manifests, and takes the beacons. It must be set.
	Repo *repo.Repo
	// Dir is where the controller keeps its record; it is made. It must be set.
	Dir string
	// Key signs the beacons of the channels whose root names it. It must be set.
	Key keys.Signer
	// Counts counts machines. If nil, nobody does: no gate opens by itself.
	Counts Counter
	// OnEvent is told each decision after it took effect: over restarts too, and then
	// perhaps twice. It must not wait. It may be nil.
	OnEvent func(Event)
	// Every is how often it looks; zero means DefaultEvery.
	Every time.Duration
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
	// Logger receives decisions, and what kept them from being made. If nil, nothing is logged.
	Logger *slog.Logger
}

// Controller steers the rollouts of a repository. Its methods may be called concurrently.
type Controller struct {
	c    Config
	lock *flock.Flock

	mu      sync.Mutex // guards what follows
	states  map[manifest.Channel]State
	stamp   string
	tree    *repo.State
	beacons map[manifest.Channel]*published
	trouble map[manifest.Channel]string // what was logged last
	// unwritten has the channels whose state is not in the record, with what is not in the log.
	unwritten map[manifest.Channel][]Event
}

// published is the beacon in the tree.
type published struct {
	env    []byte
	beacon *manifest.Beacon // nil when it is none for the manifest in force
}

// Open takes the record in cfg.Dir for this process, or fails with the code locked when
// another has it.
func Open(cfg Config) (*Controller, error) {
	if cfg.Every == 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := take(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Controller{c: cfg, lock: lock, beacons: map[manifest.Channel]*published{}, trouble: map[manifest.Channel]string{}, unwritten: map[manifest.Channel][]Event{}}
	if c.states, err = readStates(cfg.Dir); err == nil {
		err = c.begin()
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return c, nil
}

// begin refuses a key that is no channel's, and takes up each hold that is in force and
// is not in the record because that could not be written.
func (c *Controller) begin() error {
	if err := c.read(); err != nil {
		return err
	}
	mine := false
	for i := range c.tree.Channels {
		ch := &c.tree.Channels[i]
		if !c.steers(ch) {
			continue
		}
		mine = true
		s, known := c.states[ch.Name]
		if !known || ch.Held == nil {
			continue
		}
		last, err := c.published(ch)
		if err != nil {
			return err
		}
		// One that is older than the last resumption was ended by that.
		if b := last.beacon; b != nil && b.Hold && !s.Hold && b.Manifest == ch.Held.Hash && b.Issued.After(s.Since) {
			s.take(ch.Held.Manifest, ch.Held.Hash, c.c.Clock())
			s.Hold, s.Reason = true, b.Reason
			c.states[ch.Name], c.unwritten[ch.Name] = s, nil
		}
	}
	if mine {
		return nil
	}
	id := c.c.Key.Public().ID()
	return fault.New(fault.Policy, "%s is the beacon key of no channel", id).
		Line("Root version %d does not name it. No beacon was signed.", c.tree.Trust.RootVersion()).
		Do("name it in root: shoal channel set CHANNEL --beacon KEY.pub --stale-after 48h").Fact("key", string(id))
}

// steers reports whether ch's beacon is by this controller's key.
func (c *Controller) steers(ch *repo.Channel) bool {
	return ch.Spec.Beacon != nil && slices.Contains(ch.Spec.Beacon.KeyIDs, c.c.Key.Public().ID())
}

// Close lets another process steer.
func (c *Controller) Close() error { return c.lock.Close() }

// Run steers until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	timer := time.NewTicker(c.c.Every)
	defer timer.Stop()
	for {
		c.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// look makes the decisions that are due in every channel.
func (c *Controller) look(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(); err != nil {
		c.complain(manifest.Channel{}, err)
		return
	}
	for i := range c.tree.Channels {
		ch := &c.tree.Channels[i]
		if ch.Held == nil || !c.steers(ch) {
			continue
		}
		err := c.steer(ctx, ch, func(s *State, counts []Count, now time.Time) ([]Event, error) {
			return s.step(ch.Held.Manifest, counts, now), nil
		})
		if ctx.Err() == nil {
			c.complain(ch.Name, err)
		}
	}
}

// complain logs err once for as long as it lasts.
func (c *Controller) complain(ch manifest.Channel, err error) {
	if err == nil {
		delete(c.trouble, ch)
		return
	}
	if c.trouble[ch] != err.Error() {
		c.trouble[ch] = err.Error()
		c.c.Logger.Error("steering a rollout", "channel", ch, "code", fault.CodeOf(err), "err", err)
	}
}

// read reads the tree when it has changed.
func (c *Controller) read() error {
	stamp, err := c.c.Repo.Stamp()
	if err != nil || c.tree != nil && stamp == c.stamp {
		return err
	}
	tree, err := c.c.Repo.Read()
	if err != nil {
		return err
	}
	c.tree, c.stamp = tree, stamp
	clear(c.beacons) // whom they are for may have changed
	return nil
}

// steer has decide change what is remembered of ch, and makes that come true: it is
// written down, then signed, then told. The caller holds c.mu.
func (c *Controller) steer(ctx context.Context, ch *repo.Channel, decide func(*State, []Count, time.Time) ([]Event, error)) error {
	now, m := c.c.Clock(), ch.Held.Manifest
	last, err := c.published(ch)
	if err != nil {
		return err
	}
	was, known := c.states[ch.Name]
	if !known {
		was = adopt(ch, last)
	}
	s := was.clone()
	if s.Since.After(now) { // a clock was put back: the brake must not be blind until then
		s.Since = now
	}
	events := s.take(m, ch.Held.Hash, now)
	counts := c.count(ch.Name, &s, m, now)
	more, err := decide(&s, counts, now)
	if err != nil {
		return err
	}
	events = append(events, more...)
	missing, unwritten := c.unwritten[ch.Name]
	if len(events) > 0 || !known || unwritten || len(s.Opened) != len(was.Opened) || !s.Since.Equal(was.Since) {
		if c.c.OnEvent != nil {
			s.Untold = append(s.Untold, events...)
			s.Untold = s.Untold[max(0, len(s.Untold)-maxUntold):]
		}
		missing = append(slices.Clip(missing), events...)
		if err := c.remember(ch.Name, s, missing); err != nil {
			// Without a record nothing may go further than it did. Slowing down needs none.
			if !s.Hold || s.Wave > was.Wave {
				return err
			}
			if !unwritten {
				c.c.Logger.Error("recording a hold", "channel", ch.Name, "err", err)
			}
			c.states[ch.Name], c.unwritten[ch.Name] = s, missing
		}
	}
	if !says(last.beacon, &s) || due(last.beacon, now) {
		if err := c.publish(ctx, ch, &s, last.env, now); err != nil {
			return err
		}
	}
	c.tell(ch.Name)
	return nil
}

// tell tells of the decisions that have taken effect.
func (c *Controller) tell(ch manifest.Channel) {
	s := c.states[ch]
	if c.c.OnEvent == nil || len(s.Untold) == 0 {
		return
	}
	for _, e := range s.Untold {
		c.c.Logger.Info(e.Kind, "channel", ch, "version", e.Version, "sequence", e.Sequence, "wave", e.Wave, "hold", e.Hold, "by", e.By, "reason", e.Reason)
		c.c.OnEvent(e)
	}
	s.Untold = nil
	c.states[ch] = s
	if _, unwritten := c.unwritten[ch]; unwritten {
		return
	}
	if err := writeStates(c.c.Dir, c.states); err != nil {
		c.c.Logger.Warn("recording what was told", "channel", ch, "err", err) // it may be told again
	}
}

// adopt is what a controller without a record takes up: what the last beacon said of the
// manifest in force, and its hold even if it was for one before. So a lost record ends no
// hold.
func adopt(ch *repo.Channel, last *published) State {
	m := ch.Held.Manifest
	s := State{Manifest: ch.Held.Hash, Artifacts: digests(m), Plan: shape(m.Rollout)}
	switch b := last.beacon; {
	case b != nil && b.Manifest == ch.Held.Hash:
		s.Wave, s.Hold, s.Reason = b.Wave, b.Hold, b.Reason
	case claim(last.env).Hold:
		s.Hold, s.Reason = true, "what was offered before was held, and the record of it is lost"
	default:
		return State{}
	}
	if m.Rollout != nil {
		s.Retry = m.Rollout.Retry
	}
	return s
}

func (c *Controller) count(ch manifest.Channel, s *State, m *manifest.Manifest, now time.Time) []Count {
	if c.c.Counts == nil {
		return nil
	}
	counts, err := c.c.Counts(ch, m, s.Since, now)
	if err != nil {
		c.c.Logger.Error("counting reports", "channel", ch, "err", err)
		return nil
	}
	return counts
}

// remember writes a decision down.
func (c *Controller) remember(ch manifest.Channel, s State, events []Event) error {
	for _, e := range events {
		if err := audit(c.c.Dir, e); err != nil {
			return fault.New(fault.IO, "writing the audit log: %w", err)
		}
	}
	states := maps.Clone(c.states)
	states[ch] = s
	if err := writeStates(c.c.Dir, states); err != nil {
		return fault.New(fault.IO, "writing how the rollouts stand: %w", err)
	}
	c.states = states
	delete(c.unwritten, ch)
	return nil
}

// published is the beacon of ch in the tree.
func (c *Controller) published(ch *repo.Channel) (*published, error) {
	if p := c.beacons[ch.Name]; p != nil {
		return p, nil
	}
	env, err := c.c.Repo.StoredBeacon(ch.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p := &published{env: env, beacon: lastBeacon(c.tree, ch.Name, env)}
	c.beacons[ch.Name] = p
	return p, nil
}

// publish signs what s says and puts it into the tree.
func (c *Controller) publish(ctx context.Context, ch *repo.Channel, s *State, last []byte, now time.Time) error {
	env, b, err := sign(ctx, c.c.Key, c.tree, ch, s, last, now)
	if err != nil {
		return err
	}
	if err := c.c.Repo.PutBeacon(ch.Name, env); err != nil {
		return err
	}
	c.beacons[ch.Name] = &published{env, b}
	return nil
}

// Action is what a person has the brake do.
type Action string

// The actions.
const (
	Promote Action = "promote" // open a gate
	Pause   Action = "pause"   // hold
	Halt    Action = "halt"    // hold, because the release is bad
	Resume  Action = "resume"  // end the hold
)

// Command is an action on the rollout of a channel.
type Command struct {
	Channel manifest.Channel `json:"channel"`
	Action  Action           `json:"action"`
	Reason  string           `json:"reason,omitempty"` // one line of at most 256 bytes
	// Wave is the one whose gate a promotion is to open, from 1: said twice, it opens one.
	// 0 is the next one there is, at that moment.
	Wave int `json:"wave,omitempty"`
}

// Done is what a command did.
type Done struct {
	Changed bool    `json:"changed"` // false: it was so already
	Events  []Event `json:"events"`
	Status  *Status `json:"status"`
}

// Do does what a person says, at once. Codes: usage, policy where there is nothing to
// steer, held for a promotion of what is held or paused.
func (c *Controller) Do(ctx context.Context, cmd Command) (*Done, error) {
	// What is written down is in every beacon from then on: one that no beacon can say would
	// keep all of them from being signed, this hold and whatever comes after it.
	if !manifest.ValidReason(cmd.Reason) {
		return nil, fault.New(fault.Usage, "the reason is not one line of at most %d bytes that print; it has %d", maxReason, len(cmd.Reason)).
			Line("It is signed, and shown on every machine. Nothing was changed.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, err := c.find(cmd.Channel)
	if err != nil {
		return nil, err
	}
	m := ch.Held.Manifest
	done := &Done{Events: []Event{}}
	err = c.steer(ctx, ch, func(s *State, _ []Count, now time.Time) (events []Event, err error) {
		switch cmd.Action {
		case Promote:
			events, err = s.promote(m, cmd.Wave, now)
		case Pause:
			events = s.hold(m, Paused, cmd.Reason, now)
		case Halt:
			events = s.hold(m, Halted, cmd.Reason, now)
		case Resume:
			events = s.resume(m, now)
		default:
			err = fault.New(fault.Usage, "%q is no action", cmd.Action)
		}
		done.Events, done.Changed = append(done.Events, events...), len(events) > 0
		return events, err
	})
	if err != nil {
		return nil, err
	}
	done.Status = c.status(ch)
	return done, nil
}

// Status tells how the rollout of a channel stands.
func (c *Controller) Status(name manifest.Channel) (*Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, err := c.find(name)
	if err != nil {
		return nil, err
	}
	return c.status(ch), nil
}

// find returns a channel that this controller steers.
func (c *Controller) find(name manifest.Channel) (*repo.Channel, error) {
	if err := c.read(); err != nil {
		return nil, err
	}
	ch, err := c.tree.Channel(name)
	switch {
	case err != nil:
		return nil, err
	case !c.steers(ch):
		return nil, fault.New(fault.Policy, "this controller has not got the beacon key of %s", name).
			Line("Its key is %s. Nothing was changed.", c.c.Key.Public().ID()).
			Do("name the key in root: shoal channel set %s --beacon KEY.pub --stale-after 48h", name)
	case ch.Held == nil:
		return nil, fault.New(fault.NotFound, "%s offers nothing that machines would take", name).Do("shoal release list --channel %s", name)
	}
	return ch, nil
}

func (c *Controller) status(ch *repo.Channel) *Status {
	now, m := c.c.Clock(), ch.Held.Manifest
	s := c.states[ch.Name]
	s = s.clone()
	s.take(m, ch.Held.Hash, now) // in case nobody has looked yet
	st := s.look(m, c.count(ch.Name, &s, m, now), now)
	st.Gated, st.Controlled = true, true
	if p, err := c.published(ch); err == nil {
		st.Beacon = beaconStatus(p.beacon, now)
	}
	return st
}

func beaconStatus(b *manifest.Beacon, now time.Time) *BeaconStatus {
	if b == nil || !now.Before(b.Expires) {
		return nil
	}
	return &BeaconStatus{b.Wave, b.Hold, b.Issued, b.Expires}
}
