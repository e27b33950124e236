package fleet

import (
	"context"
	"slices"
	"strings"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// MaxAgentsPage is how many machines one answer has at most.
const MaxAgentsPage = 100

// Query asks for machines. The zero value asks for all of them; members that are set must
// all fit.
type Query struct {
	After   keys.ID          `json:"after,omitempty"` // only those with a higher id: where the page before ended
	Limit   int              `json:"limit,omitempty"` // at most MaxAgentsPage, also when zero
	Name    string           `json:"name,omitempty"`  // part of the host, or the beginning of the id
	Labels  []manifest.Label `json:"labels,omitempty"`
	Channel manifest.Channel `json:"channel,omitzero"`  // follows it
	State   string           `json:"state,omitempty"`   // an app stands so: a state of a report, not-seen or unapproved
	Version string           `json:"version,omitempty"` // an app runs it
	// Trouble leaves out machines with which all is well.
	Trouble bool `json:"trouble,omitempty"`
}

// Page is what a Query found, in the order of the ids.
type Page struct {
	Agents []*Agent `json:"agents"`
	Next   keys.ID  `json:"next,omitempty"` // for After; empty when these were the last
}

// Agents returns machines. Each answer is of one moment; between two pages machines may
// come, go and change, and none is in two.
func (s *Store) Agents(_ context.Context, q Query) (*Page, error) {
	if q.Limit <= 0 || q.Limit > MaxAgentsPage {
		q.Limit = MaxAgentsPage
	}
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	page := &Page{Agents: []*Agent{}}
	from, found := slices.BinarySearch(s.ids, q.After)
	if found {
		from++
	}
	for _, id := range s.ids[from:] {
		a := s.view(s.agents[id], now)
		if !q.fits(a) {
			continue
		}
		if len(page.Agents) == q.Limit {
			page.Next = page.Agents[q.Limit-1].ID
			break
		}
		page.Agents = append(page.Agents, a)
	}
	return page, nil
}

func (q *Query) fits(a *Agent) bool {
	if q.Name != "" && !strings.Contains(a.Report.Host, q.Name) && !strings.HasPrefix(string(a.ID), q.Name) {
		return false
	}
	for _, l := range q.Labels {
		if !slices.Contains(a.Report.Labels, l) && !slices.Contains(a.Notes, l) {
			return false
		}
	}
	if q.Trouble && a.Approved && !a.NotSeen && !a.Cloned && !slices.ContainsFunc(a.Report.Apps, inTrouble) {
		return false
	}
	if q.State == StateUnapproved && len(a.Report.Apps) == 0 {
		return !a.Approved
	}
	if q.Channel == (manifest.Channel{}) && q.State == "" && q.Version == "" {
		return true
	}
	for i, r := range a.Report.Apps {
		if (q.Channel == (manifest.Channel{}) || q.Channel.App == r.App && q.Channel.Name == r.Channel) &&
			(q.State == "" || q.State == a.State(i)) && (q.Version == "" || q.Version == r.Version) {
			return true
		}
	}
	return false
}

func inTrouble(r manifest.AppReport) bool {
	switch r.State {
	case manifest.StateFailed, manifest.StateReverted, manifest.StateBlocked:
		return true
	}
	return false
}

// Find returns the machine meant by an id, a host, or the beginning of an id, with or
// without its "SHA256:". The code is not_found when there is none, usage when there are
// several.
func (s *Store) Find(_ context.Context, name string) (*Agent, error) { return s.find(name) }

func (s *Store) find(name string) (*Agent, error) {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if a := s.agents[keys.ID(name)]; a != nil {
		return s.view(a, now), nil
	}
	var fits []*Agent
	for _, id := range s.ids {
		a := s.agents[id]
		if name != "" && (a.Report.Host == name || len(name) >= 4 && (strings.HasPrefix(string(id), name) || strings.HasPrefix(string(id), "SHA256:"+name))) {
			fits = append(fits, s.view(a, now))
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) == 0:
		return nil, unknown(name)
	}
	return nil, several(fits, name)
}

func several(fits []*Agent, name string) error {
	e := fault.New(fault.Usage, "%d machines are meant by %q", len(fits), name)
	return listed(e, fits).Do("name one by its id")
}

// listed adds a few machines to what a person is told.
func listed(e *fault.Error, machines []*Agent) *fault.Error {
	for _, a := range machines[:min(len(machines), 5)] {
		e.Line("%s  %s", a.ID, a.Report.Host)
	}
	return e
}

const (
	idPrefix = "SHA256:"
	// leastOfID is how much of an id, in letters of six bits behind the prefix, names a
	// machine that is to count: nobody finds a key whose id begins so, too.
	leastOfID = 8
)

// findKey returns the machine meant by its id, or by the beginning of it. A host is no name
// here: whoever has a key can call itself anything, also what another's id is. The codes
// are those of [Store.Find].
func (s *Store) findKey(name string) (*Agent, error) {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if a := s.agents[keys.ID(name)]; a != nil {
		return s.view(a, now), nil
	}
	begins := strings.TrimPrefix(name, idPrefix)
	var fits, hosts []*Agent
	for _, id := range s.ids {
		a := s.agents[id]
		switch {
		case begins != "" && strings.HasPrefix(string(id), idPrefix+begins):
			fits = append(fits, s.view(a, now))
		case name != "" && a.Report.Host == name:
			hosts = append(hosts, s.view(a, now))
		}
	}
	switch {
	case len(fits) == 1 && len(begins) >= leastOfID:
		return fits[0], nil
	case len(fits) == 1:
		return nil, listed(fault.New(fault.Usage, "%q is too little of an id: %d letters behind %s are wanted", name, leastOfID, idPrefix), fits).
			Line("Another's id may begin so, too. Nothing was changed.")
	case len(fits) > 1:
		return nil, several(fits, name)
	case len(hosts) > 0:
		return nil, listed(fault.New(fault.Usage, "%q is what a machine calls itself, and no id: any machine can", name), hosts).
			Line("Nothing was changed.").Do("compare the id with what shoal agent status shows on the machine, and approve that")
	}
	return nil, unknown(name)
}

// Summary is the fleet in numbers. Only approved machines count, but in Unapproved.
type Summary struct {
	Agents     int       `json:"agents"` // approved
	NotSeen    int       `json:"not_seen"`
	Unapproved int       `json:"unapproved"`
	Cloned     int       `json:"cloned"`
	Channels   []Channel `json:"channels"` // by name
	Counters   Counters  `json:"counters"`
}

// Channel is one channel in numbers: of the approved machines that follow it.
type Channel struct {
	Channel  manifest.Channel   `json:"channel"`
	Agents   int                `json:"agents"`
	States   map[string]int     `json:"states"`   // not-seen apart from the others
	Versions map[string]int     `json:"versions"` // that run, of those seen; "" is none
	Bytes    manifest.ByteCount `json:"bytes"`    // of each machine's update under way, or its last one
}

// Summary counts the fleet.
func (s *Store) Summary(context.Context) (*Summary, error) {
	sum := &Summary{Channels: []Channel{}, Counters: s.Counters()}
	at := map[manifest.Channel]*Channel{}
	for _, a := range s.snapshot(s.now()) {
		if !a.Approved {
			sum.Unapproved++
			continue
		}
		sum.Agents++
		if a.NotSeen {
			sum.NotSeen++
		}
		if a.Cloned {
			sum.Cloned++
		}
		for i, r := range a.Report.Apps {
			ch := manifest.Channel{App: r.App, Name: r.Channel}
			c := at[ch]
			if c == nil {
				c = &Channel{Channel: ch, States: map[string]int{}, Versions: map[string]int{}}
				at[ch] = c
			}
			c.Agents++
			c.States[a.State(i)]++
			if !a.NotSeen {
				c.Versions[r.Version]++
			}
			c.Bytes.LAN += r.Bytes.LAN
			c.Bytes.WAN += r.Bytes.WAN
			c.Bytes.Origin += r.Bytes.Origin
			c.Bytes.Webseed += r.Bytes.Webseed
			c.Bytes.Given += r.Bytes.Given
		}
	}
	for _, c := range at {
		sum.Channels = append(sum.Channels, *c)
	}
	slices.SortFunc(sum.Channels, func(a, b Channel) int { return strings.Compare(a.Channel.String(), b.Channel.String()) })
	return sum, nil
}
