package api

import (
	"net/http"
	"strconv"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/publisher/fleet"
	"shoal/publisher/view"
)

const maxEvents = 200 // on a page

func (a *API) overview(r *http.Request, _ params) (any, error) {
	o, err := a.view.Overview(r.Context())
	return struct {
		Schema string `json:"schema"`
		*view.Overview
	}{"shoal.overview/v1", o}, err
}

func (a *API) swarm(r *http.Request, _ params) (any, error) {
	s, err := a.view.Swarm(r.Context())
	return struct {
		Schema string `json:"schema"`
		*view.Swarm
	}{"shoal.swarm/v1", s}, err
}

func (a *API) events(r *http.Request, _ params) (any, error) {
	v := r.URL.Query()
	q := fleet.EventQuery{Agent: keys.ID(v.Get("agent")), Last: v.Get("last") != ""}
	var err error
	if q.Limit, err = limit(v, maxEvents); err != nil {
		return nil, err
	}
	for name, to := range map[string]*uint64{"after": &q.After, "before": &q.Before} {
		if n := v.Get(name); n != "" {
			if *to, err = strconv.ParseUint(n, 10, 63); err != nil {
				return nil, fault.New(fault.Usage, "%s is %q, a number is wanted", name, n)
			}
		}
	}
	page, err := a.view.Fleet.Events(r.Context(), q)
	return struct {
		Schema string `json:"schema"`
		*fleet.EventPage
	}{"shoal.events/v1", page}, err
}
