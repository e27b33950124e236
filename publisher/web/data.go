package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"shoal/internal/fault"
	"shoal/publisher/api"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
)

// How much is on a page, so that it stays below 300 KB whatever machines say.
const (
	agentsShown   = 50
	timelineShown = 50
	releasesShown = 10
	eventsShown   = 100
	linesShown    = 150 // of channels: a few, the waves and the versions of each
	ringsShown    = 4   // of a wave
)

func (s *Web) rollout(r *http.Request) (page, error) {
	o, err := s.cfg.View.Overview(r.Context())
	if err != nil {
		return page{}, err
	}
	d := struct {
		*view.Overview
		Channels, Others []view.Channel
		Alone            bool // one channel was asked for
		Throughput       []int64
	}{Overview: o, Throughput: s.cfg.View.Throughput()}
	if name := r.URL.Query().Get("channel"); name != "" {
		d.Alone = true
		d.Channels, d.Others = part(o.Channels, func(c *view.Channel) bool { return c.Channel.String() == name })
		if len(d.Channels) == 0 {
			return page{}, fault.New(fault.NotFound, "there is no channel %q", name)
		}
	} else {
		d.Channels, d.Others = foremost(o.Channels)
	}
	return page{Name: "rollout", Title: "Rollout", Twin: "/api/v1/overview", Data: d}, nil
}

// foremost parts the channels that the page has room for from the others: those that are
// held or where machines failed come before those under way, and these before the rest,
// the newest first. Both are in the order they came in, so that nothing moves about while
// somebody reads.
func foremost(all []view.Channel) (shown, others []view.Channel) {
	rank := func(c *view.Channel) int {
		switch st := c.Rollout; {
		case st == nil:
			return 3
		case st.Hold || st.Total.Failed > 0:
			return 0
		case st.Phase != rollout.PhaseFinished && st.Phase != rollout.PhaseEveryone:
			return 1
		}
		return 2
	}
	start := func(c *view.Channel) (t time.Time) {
		if c.Rollout != nil {
			t = c.Rollout.Start
		}
		return t
	}
	ranked := make([]*view.Channel, len(all))
	for i := range all {
		ranked[i] = &all[i]
	}
	slices.SortStableFunc(ranked, func(a, b *view.Channel) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), start(b).Compare(start(a)))
	})
	fits := map[*view.Channel]bool{}
	for lines := 0; len(fits) < len(ranked); {
		c := ranked[len(fits)]
		if lines += 6 + len(c.Versions); c.Rollout != nil {
			lines += len(c.Rollout.Waves)
		}
		if lines > linesShown && len(fits) > 0 {
			break
		}
		fits[c] = true
	}
	return part(all, func(c *view.Channel) bool { return fits[c] })
}

// part parts all in those that are wanted and the others.
func part(all []view.Channel, wanted func(*view.Channel) bool) (these, others []view.Channel) {
	for i := range all {
		if wanted(&all[i]) {
			these = append(these, all[i])
		} else {
			others = append(others, all[i])
		}
	}
	return these, others
}

// filters are what the page of machines was asked for.
type filters struct {
	Q, State, Channel, Version, Label, Trouble string
	States                                     []string
	Channels                                   []string
}

// states are those that can be asked for.
var states = []string{
	"waiting", "held", "downloading", "staged", "committing", "confirming", "healthy", "reverted", "failed", "blocked",
	fleet.StateNotSeen, fleet.StateUnapproved,
}

func (s *Web) agents(r *http.Request) (page, error) {
	v := r.URL.Query()
	q, err := api.AgentQuery(v)
	if err != nil {
		return page{}, err
	}
	q.Limit = agentsShown
	found, err := s.cfg.View.Fleet.Agents(r.Context(), q)
	if err != nil {
		return page{}, err
	}
	o, err := s.cfg.View.Overview(r.Context())
	if err != nil {
		return page{}, err
	}
	f := filters{
		Q: v.Get("q"), State: v.Get("state"), Channel: v.Get("channel"), Version: v.Get("version"),
		Label: v.Get("label"), Trouble: v.Get("trouble"), States: states,
	}
	for i := range o.Channels {
		f.Channels = append(f.Channels, o.Channels[i].Channel.String())
	}
	first, next := "", ""
	if q.After != "" {
		first = "/agents" + with(v, "after", "")
	}
	if found.Next != "" {
		next = "/agents" + with(v, "after", string(found.Next))
	}
	return page{Name: "agents", Title: "Agents", Twin: "/api/v1/agents" + with(v, "limit", strconv.Itoa(agentsShown)), Data: struct {
		Agents      []*fleet.Agent
		F           filters
		First, Next string
		Overview    *view.Overview
	}{found.Agents, f, first, next, o}}, nil
}

// with is v as a query, with one value set, or taken away if it is empty.
func with(v url.Values, name, value string) string {
	to := url.Values{}
	for k, all := range v {
		for _, one := range all {
			if one != "" && k != name {
				to.Add(k, one)
			}
		}
	}
	if value != "" {
		to.Set(name, value)
	}
	if len(to) == 0 {
		return ""
	}
	return "?" + to.Encode()
}

func (s *Web) agent(r *http.Request, id string) (page, error) {
	a, err := s.cfg.View.Fleet.Find(r.Context(), id)
	if err != nil {
		return page{}, err
	}
	events, err := s.cfg.View.Fleet.Events(r.Context(), fleet.EventQuery{Agent: a.ID, Last: true, Limit: timelineShown})
	if err != nil {
		return page{}, err
	}
	return page{Name: "agent", Title: "Agent", Twin: "/api/v1" + agentPath(string(a.ID)), Data: struct {
		*fleet.Agent
		Path   string
		Events []fleet.Event
	}{a, agentPath(string(a.ID)), newestFirst(events.Events)}}, nil
}

func newestFirst(events []fleet.Event) []fleet.Event {
	turned := make([]fleet.Event, len(events))
	for i, e := range events {
		turned[len(events)-1-i] = e
	}
	return turned
}

func (s *Web) releases(r *http.Request) (page, error) {
	all, err := s.cfg.View.AllReleases(r.Context())
	if err != nil {
		return page{}, err
	}
	after := r.URL.Query().Get("after")
	found, err := api.Releases(all, after, releasesShown)
	if err != nil {
		return page{}, err
	}
	next := ""
	if found.Next != "" {
		next = "/releases?" + url.Values{"after": {found.Next}}.Encode()
	}
	return page{Name: "releases", Title: "Releases", Twin: "/api/v1/releases" + with(r.URL.Query(), "limit", strconv.Itoa(releasesShown)), Data: struct {
		Releases []view.Release
		Next     string
		Later    bool // than the newest
		Links    bool // a browser can follow them
	}{found.Releases, next, after != "", s.cfg.View.Open}}, nil
}

func (s *Web) swarm(r *http.Request) (page, error) {
	sw, err := s.cfg.View.Swarm(r.Context())
	return page{Name: "swarm", Title: "Swarm", Twin: "/api/v1/swarm", Data: sw}, err
}

func (s *Web) audit(r *http.Request) (page, error) {
	q := fleet.EventQuery{Last: true, Limit: eventsShown}
	if before := r.URL.Query().Get("before"); before != "" {
		n, err := strconv.ParseUint(before, 10, 63)
		if err != nil || n == 0 {
			return page{}, fault.New(fault.Usage, "before is %q, the number of an event is wanted", before)
		}
		q.Before = n
	}
	found, err := s.cfg.View.Fleet.Events(r.Context(), q)
	if err != nil {
		return page{}, err
	}
	d := struct {
		Events []fleet.Event
		Older  uint64 // for before; 0 when there are none
		Later  bool
	}{Events: newestFirst(found.Events), Later: q.Before > 0}
	if n := len(found.Events); n > 0 && found.Events[0].Seq > found.First {
		d.Older = found.Events[0].Seq
	}
	twin := "/api/v1/events?last=1&limit=" + strconv.Itoa(eventsShown)
	if q.Before > 0 {
		twin += "&before=" + strconv.FormatUint(q.Before, 10)
	}
	return page{Name: "audit", Title: "Audit", Twin: twin, Data: d}, nil
}

// canDo says which buttons of the brake a rollout has.
func canDo(st *rollout.Status) []string {
	if st == nil || !st.Controlled {
		return nil
	}
	if st.Hold {
		return []string{"resume"}
	}
	var do []string
	if !st.Paused && st.NextGate > 0 {
		do = append(do, "promote")
	}
	return append(do, "pause", "halt")
}
