package api

import (
	"net/http"
	"net/url"
	"strings"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// AgentQuery reads which machines a request asks for. Code usage.
func AgentQuery(v url.Values) (fleet.Query, error) {
	q := fleet.Query{After: keys.ID(v.Get("after")), Name: v.Get("q"), State: v.Get("state"), Version: v.Get("version"), Trouble: v.Get("trouble") != ""}
	var err error
	if q.Limit, err = limit(v, fleet.MaxAgentsPage); err != nil {
		return q, err
	}
	if ch := v.Get("channel"); ch != "" {
		if q.Channel, err = manifest.ParseChannel(ch); err != nil {
			return q, fault.New(fault.Usage, "%q is not APP/CHANNEL", ch)
		}
	}
	for _, l := range v["label"] {
		name, value, ok := strings.Cut(l, "=")
		if l == "" {
			continue
		}
		if !ok {
			return q, fault.New(fault.Usage, "%q is not NAME=VALUE", l)
		}
		q.Labels = append(q.Labels, manifest.Label{Name: name, Value: value})
	}
	return q, nil
}

func (a *API) agents(r *http.Request, _ params) (any, error) {
	q, err := AgentQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	page, err := a.view.Fleet.Agents(r.Context(), q)
	return struct {
		Schema string `json:"schema"`
		*fleet.Page
	}{"shoal.agents/v1", page}, err
}

func (a *API) agent(r *http.Request, p params) (any, error) {
	m, err := a.view.Fleet.Find(r.Context(), p["id"])
	return struct {
		Schema string `json:"schema"`
		*fleet.Agent
	}{"shoal.agent/v1", m}, err
}

func (a *API) approve(r *http.Request, p params) (any, error) {
	if err := body(r, &struct{}{}); err != nil {
		return nil, err
	}
	_, err := a.view.Fleet.Approve(r.Context(), []string{p["id"]}, false)
	if err != nil {
		return nil, err
	}
	return a.agent(r, p)
}

func (a *API) label(r *http.Request, p params) (any, error) {
	var notes struct {
		Notes []manifest.Label `json:"notes"`
	}
	if err := body(r, &notes); err != nil {
		return nil, err
	}
	if _, err := a.view.Fleet.Label(r.Context(), p["id"], notes.Notes); err != nil {
		return nil, err
	}
	return a.agent(r, p)
}

func (a *API) forget(r *http.Request, p params) (any, error) {
	if err := body(r, &struct{}{}); err != nil {
		return nil, err
	}
	gone, err := a.view.Fleet.Forget(r.Context(), []string{p["id"]})
	return struct {
		Schema string `json:"schema"`
		Agents int    `json:"agents"`
	}{"shoal.forgotten/v1", len(gone)}, err
}
