package fleet

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// How often one machine is heard, and how much of the log it may fill: it reports every
// ten minutes, and on a change. In the 90 days that events are kept it fills an eighth of
// its share of the log; all newcomers together, 10,000 at once and one a second.
const (
	reportEvery    = 2 * time.Second
	reportBurst    = 30
	eventEvery     = 10 * time.Minute
	eventBurst     = 200
	newcomersEvery = time.Second
	newcomersBurst = 10_000
)

// pace bounds what one key may send.
type pace struct{ reports, events *rate.Limiter }

func newPace() *pace {
	return &pace{rate.NewLimiter(rate.Every(reportEvery), reportBurst), rate.NewLimiter(rate.Every(eventEvery), eventBurst)}
}

// Counters count, since the start, what became of reports.
type Counters struct {
	Taken    uint64 `json:"taken"`
	Bad      uint64 `json:"bad"`      // no report, or not signed by the key it names
	Foreign  uint64 `json:"foreign"`  // of another fleet
	Replayed uint64 `json:"replayed"` // the counter was not above the last one
	Limited  uint64 `json:"limited"`  // too many, from one key or address, or in all
	Unlogged uint64 `json:"unlogged"` // events of machines that had too many
}

// Counters returns what became of reports since the store was opened.
func (s *Store) Counters() Counters {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.counts
}

// Taken says how a report was taken in.
type Taken struct {
	Agent    keys.ID `json:"agent"`
	Approved bool    `json:"approved"` // it counts
}

// Take verifies a report and takes it in, and returns when it is on the disk. The codes
// are those of [manifest.OpenReport], rollback for a counter that is not above the last
// one, which is a report played back or another machine with the same key, and quota for
// too many.
func (s *Store) Take(ctx context.Context, env []byte, via Via) (Taken, error) {
	t, b, err := s.take(env, via, s.now())
	if err != nil {
		return t, err
	}
	return t, b.written(ctx)
}

func (s *Store) take(env []byte, via Via, now time.Time) (Taken, *batch, error) {
	r, key, err := manifest.OpenReport(env, manifest.Digest(s.cfg.Repo))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if errors.Is(err, fault.WrongTarget) {
			s.counts.Foreign++
		} else {
			s.counts.Bad++
		}
		return Taken{}, nil, err
	}
	t := Taken{Agent: r.Agent}
	old, last := s.agents[r.Agent], s.forgotten[r.Agent]
	if old != nil {
		last = old.Report.Counter
	}
	if r.Counter <= last {
		s.counts.Replayed++
		return t, nil, fault.New(fault.Rollback, "the report's counter %d is not above %d, the last one of this key", r.Counter, last).
			Line("It was sent before, or two machines use one key.")
	}
	seen := now
	if !via.From.IsValid() && r.Time.Before(now) {
		seen = r.Time // from a file: it was so then
		if old != nil && seen.Before(old.Seen) {
			seen = old.Seen
		}
	}
	a, copied := after(old, r, key, via, seen)
	if err := s.room(old, a, now); err != nil {
		s.counts.Limited++
		return t, nil, err
	}
	s.counts.Taken++
	if t.Approved = s.approved(a); t.Approved {
		s.newsOf(old, a, copied)
	}
	s.put(a.ID, a)
	return t, s.wake(), nil
}

// room makes room for a, or says that there is none. The caller holds mu.
func (s *Store) room(old, a *Agent, now time.Time) error {
	if a.From.IsValid() && !s.approved(a) && !s.loose.allow(a.From, now) {
		return fault.New(fault.Quota, "too many machines that are not approved report from this address")
	}
	if old != nil {
		p := s.paces[a.ID]
		if p == nil {
			p = newPace()
			s.paces[a.ID] = p
		}
		if !p.reports.AllowN(now, 1) {
			return fault.New(fault.Quota, "this machine reports too often")
		}
		return nil
	}
	if len(s.agents) >= s.most.agents {
		return fault.New(fault.Quota, "%d machines report here, which is all there is room for", len(s.agents)).
			Do("shoal fleet forget ID, for those that are gone")
	}
	if s.approved(a) || s.strangers < MaxUnapproved {
		return nil
	}
	var oldest *Agent
	for _, o := range s.agents {
		if !s.approved(o) && (oldest == nil || o.Seen.Before(oldest.Seen)) {
			oldest = o
		}
	}
	s.forget(s.view(oldest, now), ofMachines, "")
	return nil
}

// logs reports whether an event of this machine still goes into its share of the log. The
// caller holds mu.
func (s *Store) logs(id keys.ID, sh share) bool {
	p := s.paces[id]
	if p == nil {
		p = newPace()
		s.paces[id] = p
	}
	now := s.now()
	return p.events.AllowN(now, 1) && (sh != ofNewcomers || s.newcomers.AllowN(now, 1))
}

// Imported says what became of reports from a file.
type Imported struct {
	Taken      int          `json:"taken"`
	Unapproved int          `json:"unapproved"` // of them
	Old        int          `json:"old"`        // this or a later report of the machine is here already
	Refused    []fault.Code `json:"refused"`    // why, of each that was
}

// Import takes in reports that came in a file, with the same checks. What a machine said
// some time ago counts as heard then, and never as heard later.
func (s *Store) Import(ctx context.Context, envs [][]byte) (*Imported, error) {
	res := &Imported{Refused: []fault.Code{}}
	var last *batch
	for _, env := range envs {
		t, b, err := s.take(env, Via{}, s.now())
		switch code := fault.CodeOf(err); {
		case code == fault.Rollback:
			res.Old++
		case err != nil:
			res.Refused = append(res.Refused, code)
		default:
			res.Taken++
			if !t.Approved {
				res.Unapproved++
			}
			if last != nil && last != b {
				if err := last.written(ctx); err != nil {
					return res, err
				}
			}
			last = b
		}
	}
	if last == nil {
		return res, nil
	}
	return res, last.written(ctx)
}
