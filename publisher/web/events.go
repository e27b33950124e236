package web

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"shoal/publisher/access"
	"shoal/publisher/gate"
)

// Browsers that look on, at a time. More are told to ask again; their pages stay as they are.
const (
	maxStreams     = 256
	maxStreamsFrom = 64               // of one address; a proxy is many people
	writeTime      = 10 * time.Second // in which one takes a line, or is let go
	streamTime     = time.Hour        // then a browser connects again by itself
)

// streams counts who looks on.
type streams struct {
	mu   *sync.Mutex // guards what follows
	all  int
	from map[netip.Addr]int
}

func newStreams() streams { return streams{mu: new(sync.Mutex), from: map[netip.Addr]int{}} }

func (s *streams) begin(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.from[from] >= maxStreamsFrom {
		return false
	}
	s.all++
	s.from[from]++
	return true
}

func (s *streams) end(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

// Watchers is how many browsers follow a page now.
func (s *Web) Watchers() int {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	return s.streams.all
}

// follow tells a browser when to look again (server-sent events). What changed is not
// said: nothing waits here for a reader that is slow, and one that misses ten changes
// looks once.
func (s *Web) follow(w http.ResponseWriter, r *http.Request) {
	from := gate.Source(r.RemoteAddr)
	if !s.streams.begin(from) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer s.streams.end(from)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	say := func(line string) bool {
		rc.SetWriteDeadline(time.Now().Add(writeTime))
		_, err := w.Write([]byte(line))
		return err == nil && rc.Flush() == nil
	}
	changed := s.cfg.View.Changed()
	if r.Method == http.MethodHead || !say("retry: 5000\n\n") {
		return
	}
	end := time.NewTimer(streamTime)
	defer end.Stop()
	for {
		select {
		case <-changed:
		case <-end.C:
			return
		case <-s.cfg.Done:
			return
		case <-r.Context().Done():
			return
		}
		changed = s.cfg.View.Changed()
		if s.cfg.Guard.Who(r).Role < access.Viewer { // they have logged out
			return
		}
		if !say("event: changed\ndata: 1\n\n") {
			return
		}
	}
}
