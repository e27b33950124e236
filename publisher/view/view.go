// Package view is what people and programs look at: the fleet and its rollouts in
// numbers, what is released, where bytes came from.
//
// It is worked out once for all who look, at most once a second, however many they are
// and however large the fleet is. It only reads; what a machine said of itself is passed
// on as it said it, for whoever shows it to escape.
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
	pause      = time.Second      // between two times that everything is worked out
	stale      = 2 * beat         // what was worked out before is not shown: nobody keeps it up
	idle       = time.Minute      // without anybody looking; then nothing is worked out ahead
	beat       = 10 * time.Second // who looks on looks again at least this often
	sampleTime = 2 * time.Second
	samples    = 150 // five minutes
)

// Source is a publisher that serves. All members must be set.
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
	looked  time.Time // when somebody last did
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
	last, lastStamp := time.Now(), ""
	news := v.Fleet.Watch()
	for {
		tell := false
		select {
		case <-ctx.Done():
			return
		case <-news:
			// More often than once a second nobody can read it.
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			news, tell = v.Fleet.Watch(), true
		case <-tick.C:
			v.sample()
			stamp, err := v.Stamp()
			tell = err == nil && stamp != lastStamp || time.Since(last) >= beat
			lastStamp = stamp
		}
		if tell {
			last = time.Now()
			v.renew(ctx)
		}
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

// renew works everything out anew, if there are people who look, and tells them.
func (v *View) renew(ctx context.Context) {
	v.mu.Lock()
	wanted := time.Since(v.looked) < idle
	v.mu.Unlock()
	var s *shot
	if wanted {
		v.work.Lock()
		if v.read() == nil {
			s, _ = v.scan(ctx) // what went wrong is told to who looks
		}
		v.work.Unlock()
	}
	v.tell(s)
}

// tell has s looked at from now on, and who looks on look again.
func (v *View) tell(s *shot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shot = s
	close(v.changed)
	v.changed = make(chan struct{})
}

// Forget has everything be worked out anew, as after a change, and tells who looks on.
func (v *View) Forget() { v.tell(nil) }

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
	v.looked = time.Now()
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
	if err := v.read(); err != nil {
		return nil, err
	}
	s, err := v.scan(ctx)
	if err == nil {
		v.mu.Lock()
		v.shot = s
		v.mu.Unlock()
	}
	return s, err
}

// AllReleases are those of every channel, newest first in each.
func (v *View) AllReleases() ([]Release, error) {
	v.work.Lock()
	defer v.work.Unlock()
	err := v.read()
	return v.past, err
}
