package publisher

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/publisher/tracker"
	"shoal/swarm"
)

const (
	pollEvery = 500 * time.Millisecond // how often the tree is looked at
	retryFail = 30 * time.Second       // when a payload that could not be seeded is tried again
	// keepOld is how long a payload is still given after no manifest offers it any
	// more: machines on their way to it may finish.
	keepOld = 10 * time.Minute
)

// seeds keeps the origin giving what the repository's current manifests offer. One
// goroutine, in follow, changes it.
type seeds struct {
	p    *Publisher
	node *swarm.Node
	news *news

	mu   sync.Mutex // guards what follows; others only read
	have map[[20]byte]*seed
}

// seed is one payload that is, or was lately, on offer.
type seed struct {
	Channel  manifest.Channel
	Version  string
	Platform manifest.Platform
	payload  manifest.Payload
	serving  bool
	oldSince time.Time // zero: on offer
}

func newSeeds(p *Publisher, node *swarm.Node) *seeds {
	return &seeds{p: p, node: node, news: newNews(p, node), have: map[[20]byte]*seed{}}
}

// follow seeds what is published until ctx is done. It calls ready after the first round.
func (s *seeds) follow(ctx context.Context, tr *tracker.Tracker, ready func()) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "nothing was looked at yet"
	var again time.Time // when to try once more although nothing has changed
	for ctx.Err() == nil {
		stamp, err := s.p.repo.Stamp()
		if err != nil {
			stamp = err.Error() // the same trouble again is no news
		}
		now := time.Now()
		if stamp != last || !again.IsZero() && now.After(again) {
			last, again = stamp, time.Time{}
			if !s.round(ctx, tr, now) {
				again = now.Add(retryFail)
			}
			if ready != nil && ctx.Err() == nil {
				ready()
				ready = nil
			}
		}
		s.retire(tr, now)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// round brings what is given in line with what is published, and reports whether all
// of it could be.
func (s *seeds) round(ctx context.Context, tr *tracker.Tracker, now time.Time) (ok bool) {
	state, offered, ok := s.offered()
	s.mu.Lock()
	for hash, old := range s.have {
		if _, still := offered[hash]; still {
			old.oldSince = time.Time{}
		} else if old.oldSince.IsZero() {
			old.oldSince = now
		}
	}
	var fresh []*seed
	for hash, o := range offered {
		if s.have[hash] == nil {
			s.have[hash] = o
		}
		if !s.have[hash].serving {
			fresh = append(fresh, s.have[hash])
		}
	}
	s.mu.Unlock()
	s.register(tr) // machines may find each other while the origin still hashes
	for _, f := range fresh {
		if err := s.start(ctx, f); err != nil {
			if ctx.Err() == nil {
				s.p.log.Error("seeding failed", "channel", f.Channel.String(), "version", f.Version,
					"platform", f.Platform.String(), "err", err)
			}
			ok = false
			continue
		}
		s.mu.Lock()
		f.serving = true
		s.mu.Unlock()
		s.register(tr)
		s.p.log.Info("seeding", "channel", f.Channel.String(), "version", f.Version,
			"platform", f.Platform.String(), "infohash", f.payload.Infohash.String(), "length", f.payload.Length)
	}
	if state != nil { // whoever hears of it finds the bytes here
		s.news.update(state)
		s.register(tr)
	}
	return ok
}

// offered is what the repository holds, nil if that cannot be read, and every payload that
// a verified manifest of it offers.
func (s *seeds) offered() (*repo.State, map[[20]byte]*seed, bool) {
	offered := map[[20]byte]*seed{}
	state, err := s.p.repo.Read()
	if err != nil {
		s.p.log.Error("reading the repository failed", "err", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		for hash, h := range s.have { // a repository that cannot be read withdraws nothing
			offered[hash] = h
		}
		return nil, offered, false
	}
	ok := true
	for _, ch := range state.Channels {
		if ch.Err != nil {
			s.p.log.Error("a manifest of the repository is not good", "channel", ch.Name.String(), "err", ch.Err)
			ok = false
		}
		if ch.Held == nil {
			continue
		}
		m := ch.Held.Manifest
		for i := range m.Artifacts {
			for _, pl := range m.Artifacts[i].Payloads {
				offered[pl.Infohash] = &seed{Channel: ch.Name, Version: m.Release.Version, Platform: m.Artifacts[i].Platform(), payload: pl}
			}
		}
	}
	return state, offered, ok
}

// start checks a payload against what was signed and gives it away.
func (s *seeds) start(ctx context.Context, f *seed) error {
	path := func(name string) string { return filepath.Join(s.p.Tree(), filepath.FromSlash(name)) }
	b, err := readLimited(path(tree.Info(f.payload.InfoSHA256)), swarm.MaxInfoSize)
	if err != nil {
		return err
	}
	info, err := swarm.OpenInfo(b, swarm.Ref{
		Infohash: f.payload.Infohash, InfoSHA256: f.payload.InfoSHA256, Length: f.payload.Length,
	})
	if err != nil {
		return err
	}
	data := path(tree.Data(f.payload.SHA256))
	if _, err := os.Stat(data); err != nil {
		return err
	}
	return s.node.Seed(ctx, info, data, nil)
}

// register tells the tracker what to answer for.
func (s *seeds) register(tr *tracker.Tracker) {
	s.mu.Lock()
	list := make([]tracker.Torrent, 0, len(s.have))
	for hash, h := range s.have {
		list = append(list, tracker.Torrent{Infohash: hash, Origin: h.serving})
	}
	s.mu.Unlock()
	tr.Set(append(list, s.news.torrents()...))
}

// retire stops giving what has not been on offer for a while.
func (s *seeds) retire(tr *tracker.Tracker, now time.Time) {
	var gone [][20]byte
	s.mu.Lock()
	for hash, h := range s.have {
		if !h.oldSince.IsZero() && now.Sub(h.oldSince) >= keepOld {
			gone = append(gone, hash)
		}
	}
	s.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	for _, hash := range gone {
		s.node.Drop(hash)
		s.mu.Lock()
		s.p.log.Info("no longer seeding", "channel", s.have[hash].Channel.String(), "version", s.have[hash].Version)
		delete(s.have, hash)
		s.mu.Unlock()
	}
	s.register(tr)
}

func (s *seeds) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.have {
		if h.serving {
			n++
		}
	}
	return n
}
