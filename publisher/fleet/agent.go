package fleet

import (
	"net/netip"
	"slices"
	"time"

	"shoal/keys"
	"shoal/manifest"
)

const (
	maxRuns     = 4              // of an agent, remembered to notice a copy
	cloneShown  = 24 * time.Hour // since it was last noticed
	maxNotes    = 32
	maxNoteText = 256 // bytes
)

// Agent is one machine as it is known here. What [Store] returns is a snapshot, with the
// members that depend on the moment filled in; it must not be changed.
type Agent struct {
	ID       keys.ID `json:"agent"`
	Approved bool    `json:"approved"`
	NotSeen  bool    `json:"not_seen"` // for longer than NotSeenAfter
	Cloned   bool    `json:"cloned"`   // two machines use this key, as noticed within a day

	First  time.Time        `json:"first_seen"` // by this publisher's clock, as Seen
	Seen   time.Time        `json:"last_seen"`
	From   netip.Addr       `json:"from,omitzero"` // of the last report over the network; zero for none
	Member bool             `json:"member"`        // it came over the fleet's TLS
	Notes  []manifest.Label `json:"notes,omitempty"`
	Key    string           `json:"key"` // as in authorized_keys

	Report   manifest.Report `json:"report"` // the last one
	Standing []Standing      `json:"standing"`

	Runs     []Run     `json:"runs,omitempty"` // latest last
	ClonedAt time.Time `json:"cloned_at,omitzero"`
}

// Standing is what is known of one app of a machine beyond its last report.
type Standing struct {
	App     string            `json:"app"`
	Channel string            `json:"channel"`
	State   manifest.AppState `json:"state"`
	Since   time.Time         `json:"since"` // when State was first heard of
	// Failed is the artifact that last failed, and FailedAt when that was heard of.
	Failed   manifest.Digest `json:"failed,omitzero"`
	FailedAt time.Time       `json:"failed_at,omitzero"`
	Tried    bool            `json:"tried,omitempty"` // something was under way since then
	Told     time.Time       `json:"told,omitzero"`   // when it last failed, as the machine says
	Logged   string          `json:"logged,omitempty"`
}

// Run is one start of an agent.
type Run struct {
	Run  string    `json:"run"`
	Host string    `json:"host"`
	Seen time.Time `json:"seen"`
}

// Via is the way a report came.
type Via struct {
	From   netip.Addr // zero from a file
	Member bool       // over the fleet's TLS
}

// app returns the report's part about ch, and what stands beside it; nil if it has none.
func (a *Agent) app(ch manifest.Channel) (*manifest.AppReport, *Standing) {
	for i := range a.Report.Apps {
		if r := &a.Report.Apps[i]; r.App == ch.App && r.Channel == ch.Name {
			return r, &a.Standing[i]
		}
	}
	return nil, nil
}

func (a *Agent) rings() []string {
	var rings []string
	for _, l := range a.Report.Labels {
		if l.Name == "ring" {
			rings = append(rings, l.Value)
		}
	}
	return rings
}

// State is how an app of a stands, as everybody is told: what it reported, or one of the
// two words that only the collector has.
func (a *Agent) State(app int) string {
	switch {
	case !a.Approved:
		return StateUnapproved
	case a.NotSeen:
		return StateNotSeen
	}
	return string(a.Report.Apps[app].State)
}

// States beside those of a report.
const (
	StateNotSeen    = "not-seen"
	StateUnapproved = "unapproved"
)

// view is a as it is at now. The caller holds mu, for reading at least.
func (s *Store) view(a *Agent, now time.Time) *Agent {
	v := *a
	v.Approved = s.approved(a)
	v.NotSeen = now.Sub(a.Seen) > NotSeenAfter
	v.Cloned = !a.ClonedAt.IsZero() && now.Sub(a.ClonedAt) <= cloneShown
	return &v
}

// after returns old, which may be nil, as it is once it has reported r, and whether r
// shows that another machine has the same key.
func after(old *Agent, r *manifest.Report, key keys.PublicKey, via Via, seen time.Time) (a *Agent, copied bool) {
	a = &Agent{ID: r.Agent, First: seen}
	if old != nil {
		*a = *old
	}
	a.Seen, a.Key, a.Report = seen, key.String(), *r
	if old == nil || via.From.IsValid() { // a file says nothing of how the machine is reached
		a.From, a.Member = via.From, via.Member
	}
	a.Standing = make([]Standing, len(r.Apps))
	for i := range r.Apps {
		a.Standing[i] = stands(old, &r.Apps[i], seen)
	}
	if r.Run == "" {
		return a, false
	}
	run := Run{r.Run, r.Host, seen}
	a.Runs = slices.Clone(a.Runs)
	at := slices.IndexFunc(a.Runs, func(o Run) bool { return o.Run == r.Run })
	// An agent that was started again never goes back to a run before: one that is heard
	// of again goes on beside the other.
	copied = at >= 0 && at != len(a.Runs)-1
	if at >= 0 {
		a.Runs = slices.Delete(a.Runs, at, at+1)
	}
	if a.Runs = append(a.Runs, run); len(a.Runs) > maxRuns {
		a.Runs = slices.Delete(a.Runs, 0, 1)
	}
	if copied {
		a.ClonedAt = seen
	}
	return a, copied
}

func stands(old *Agent, r *manifest.AppReport, seen time.Time) Standing {
	s := Standing{App: r.App, Channel: r.Channel, State: r.State, Since: seen}
	if old != nil {
		if _, before := old.app(manifest.Channel{App: r.App, Name: r.Channel}); before != nil {
			s = *before
			if s.State != r.State {
				s.State, s.Since = r.State, seen
			}
		}
	}
	switch r.State {
	case manifest.StateDownloading, manifest.StateStaged, manifest.StateCommitting, manifest.StateConfirming, manifest.StateHealthy:
		s.Tried = true
	case manifest.StateFailed, manifest.StateReverted:
		// The same failure, told again after a pause or a restart, is not another one.
		// What began and failed between two reports shows by its moment alone.
		again := !s.Told.IsZero() && !r.FailedAt.IsZero() && !s.Told.Equal(r.FailedAt)
		if s.Tried || again || s.Failed != r.Offered {
			s.Failed, s.FailedAt, s.Tried = r.Offered, seen, false
		}
		if !r.FailedAt.IsZero() {
			s.Told = r.FailedAt
		}
	}
	return s
}

// otherHost is where the same key was used before a's last report, if one was noticed.
func (a *Agent) otherHost() string {
	if n := len(a.Runs); n > 1 {
		return a.Runs[n-2].Host
	}
	return ""
}
