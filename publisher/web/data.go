package web

import (
	"net/http"
	"net/url"
	"strconv"

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
)

func (s *Web) rollout(r *http.Request) (page, error) {
	o, err := s.cfg.View.Overview(r.Context())
	return page{Name: "rollout", Title: "Rollout", Twin: "/api/v1/overview", Data: struct {
		*view.Overview
		Throughput []int64
	}{o, s.cfg.View.Throughput()}}, err
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
