// Package view is what people and programs look at: the fleet and its rollouts in
// numbers, what is released, where bytes came from.
//
// It is worked out ahead of those who look, when something has changed, once for all of
// them: nobody waits for it, however large the fleet is, and what is shown is a second or
// so old, a few in the largest fleets. What an operator did is seen at once. It only reads;
// what a machine said of itself is passed on as it said it, for whoever shows it to escape.
package view

import (
	"context"
	"sync"
	"time"

	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/repo"
	"shoal/publisher/rollout"
)

const (
	pause      = time.Second      // from a change until everything is worked out anew: nobody reads faster
	spare      = 30               // and at least so many times as long as that takes, to leave the processor to others
	stale      = 2 * beat         // what was worked out before is not shown: nobody keeps it up
	beat       = 10 * time.Second // who looks on looks again at least this often
	sampleTime = 2 * time.Second
	samples    = 150 // five minutes
)

// Source is a publisher that serves. All members but Open must be set.
type Source struct {
	Fleet *fleet.Store
	ID    manifest.FleetID
	// Stamp changes when something was published, and Tree is what is published then.
	Stamp func() (string, error)
	Tree  func() (*repo.State, error)
	// Releases are all that were published, newest first in each channel.
	Releases func() ([]Release, error)
	// Rollout tells how the rollout of what a channel offers stands.
	Rollout func(manifest.Channel) (*rollout.Status, error)
	// Do has the brake of a rollout do something.
	Do func(context.Context, rollout.Command) (*rollout.Done, error)
	// Torrents are what the origin seeds, and Given the bytes it gave since it started.
	Torrents func() []Torrent
	Given    func() Given
	// Copies counts the copies of each piece of a torrent that the origin's connections know of.
	Copies func(manifest.Infohash) []int
	Clock  func() time.Time
	// Started is when the publisher began to serve.
	Started time.Time
	Version string // of the program
	// Open says that a browser can read the tree: it is not for the fleet's machines alone.
	Open bool
}

// View is what is to be seen of a Source. Its methods may be called concurrently.
type View struct {
	Source

	work  sync.Mutex // held while it is worked out, so that is done once; guards what follows; before mu
	stamp string
	tree  *repo.State
	past  []Release

	mu      sync.Mutex // guards what follows
	shot    *shot
	acts    int // what was begun to be worked out before one is not shown after it
	changed chan struct{}

	smu   sync.Mutex // guards what follows
	given Given
	rates []int64 // bytes per second, latest last
}

// New returns a view of s.
func New(s Source) *View {
	return &View{Source: s, changed: make(chan struct{})}
}

// Run notices what changes, until ctx ends.
func (v *View) Run(ctx context.Context) {
	tick := time.NewTicker(sampleTime)
	defer tick.Stop()
	v.smu.Lock()
	v.given = v.Given()
	v.smu.Unlock()
	lastStamp, _ := v.Stamp() // where it cannot be read, what is read later is a change
	news := v.Fleet.Watch()
	last, took := time.Now(), time.Duration(0)
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			news, due = nil, time.After(max(pause, spare*took))
			continue
		case <-due:
			news, due = v.Fleet.Watch(), nil
		case <-tick.C:
			v.sample()
			stamp, err := v.Stamp()
			if (err != nil || stamp == lastStamp) && time.Since(last) < beat {
				continue
			}
			if err == nil {
				lastStamp = stamp
			}
		}
		last, took = time.Now(), v.renew(ctx)
	}
}

func (v *View) sample() {
	now := v.Given()
	v.smu.Lock()
	defer v.smu.Unlock()
	rate := (now.Swarm + now.HTTP - v.given.Swarm - v.given.HTTP) / int64(sampleTime/time.Second)
	v.given = now
	if v.rates = append(v.rates, max(0, rate)); len(v.rates) > samples {
		v.rates = v.rates[1:]
	}
}

// Throughput is what the origin gave away lately: bytes per second in each two seconds,
// the latest last, for five minutes at most.
func (v *View) Throughput() []int64 {
	v.smu.Lock()
	defer v.smu.Unlock()
	return append([]int64{}, v.rates...)
}

// renew works everything out anew, tells those who look on, and returns how long it took.
func (v *View) renew(ctx context.Context) time.Duration {
	began := time.Now()
	v.work.Lock()
	_, err := v.workOut(ctx)
	v.work.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.shot = nil // what went wrong is told to who looks
	}
	v.tell()
	return time.Since(began)
}

// workOut works everything out and has it looked at from now on. The caller holds work.
func (v *View) workOut(ctx context.Context) (*shot, error) {
	v.mu.Lock()
	acts := v.acts
	v.mu.Unlock()
	if err := v.read(); err != nil {
		return nil, err
	}
	s, err := v.scan(ctx)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.acts == acts {
		v.shot = s
	}
	return s, nil
}

// tell has who looks on look again. The caller holds mu.
func (v *View) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// Forget has everything be worked out anew before it is shown again, as after what an
// operator did, and tells who looks on.
func (v *View) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.acts++
	v.shot = nil
	v.tell()
}

// Changed returns a channel that is closed when something may have changed after the call.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// read reads what is published when that has changed. The caller holds work.
func (v *View) read() error {
	stamp, err := v.Stamp()
	if err != nil || v.tree != nil && stamp == v.stamp {
		return err
	}
	tree, err := v.Tree()
	if err != nil {
		return err
	}
	past, err := v.Releases()
	if err != nil {
		return err
	}
	v.tree, v.past, v.stamp = tree, past, stamp
	return nil
}

// last is what was worked out last, unless that is too old.
func (v *View) last() *shot {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shot == nil || time.Since(v.shot.made) > stale {
		return nil
	}
	return v.shot
}

// look returns the fleet as it was worked out last, which is a second or so ago where
// something has changed since.
func (v *View) look(ctx context.Context) (*shot, error) {
	if s := v.last(); s != nil {
		return s, nil
	}
	v.work.Lock()
	defer v.work.Unlock()
	if s := v.last(); s != nil {
		return s, nil
	}
	return v.workOut(ctx)
}

// AllReleases are those of every channel, newest first in each. They must not be changed.
func (v *View) AllReleases(ctx context.Context) ([]Release, error) {
	s, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	return s.releases, nil
}
