// Package api is the HTTP interface of a publisher that serves: what its page shows, as
// JSON, and what an operator may do.
//
// Looking takes a viewer, doing an operator who presents a token with the request; a
// browser's cookie is not enough, since other pages can make a browser send it. Nothing
// can be signed here. Errors are problem documents (RFC 9457) with Shoal's codes, lists
// come in pages, and every answer has an ETag. The interface is written down in
// openapi.yaml, which is served too.
package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/access"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
)

const (
	maxBody     = 16 << 10 // of a request; they have a few words
	maxQuery    = 4 << 10
	maxReleases = 50 // on a page
	maxEvents   = 200
)

//go:embed openapi.yaml
var document []byte

// API answers requests. Its methods may be called concurrently.
type API struct {
	view   *view.View
	guard  *access.Guard
	log    *slog.Logger
	routes []route
}

// route is one thing that can be asked. In a pattern {id} stands for anything, slashes
// included, and any other word in braces for a part without one.
type route struct {
	method, pattern string
	serve           func(*http.Request, params) (any, error)
}

type params map[string]string

// New returns the interface of what v shows, to whom guard lets in.
func New(v *view.View, guard *access.Guard, log *slog.Logger) *API {
	a := &API{view: v, guard: guard, log: log}
	a.routes = []route{
		{"GET", "/api/v1/overview", a.overview},
		{"GET", "/api/v1/agents", a.agents},
		{"POST", "/api/v1/agents/{id}/approve", a.approve},
		{"POST", "/api/v1/agents/{id}/label", a.label},
		{"POST", "/api/v1/agents/{id}/forget", a.forget},
		{"GET", "/api/v1/agents/{id}", a.agent},
		{"GET", "/api/v1/releases", a.releases},
		{"GET", "/api/v1/rollouts", a.rollouts},
		{"GET", "/api/v1/rollouts/{app}/{channel}", a.rollout},
		{"POST", "/api/v1/rollouts/{app}/{channel}/promote", a.brake(rollout.Promote)},
		{"POST", "/api/v1/rollouts/{app}/{channel}/pause", a.brake(rollout.Pause)},
		{"POST", "/api/v1/rollouts/{app}/{channel}/halt", a.brake(rollout.Halt)},
		{"POST", "/api/v1/rollouts/{app}/{channel}/resume", a.brake(rollout.Resume)},
		{"GET", "/api/v1/swarm", a.swarm},
		{"GET", "/api/v1/events", a.events},
		{"GET", "/api/openapi.yaml", nil},
	}
	return a
}

// Routes are the things that can be asked, as "METHOD /pattern".
func (a *API) Routes() []string {
	var all []string
	for _, r := range a.routes {
		all = append(all, r.method+" "+r.pattern)
	}
	return all
}

// match matches a path with a pattern.
func match(pattern, path string) (params, bool) {
	p := params{}
	for {
		open := strings.IndexByte(pattern, '{')
		if open < 0 {
			return p, pattern == path
		}
		end := open + strings.IndexByte(pattern[open:], '}')
		name, rest := pattern[open+1:end], pattern[end+1:]
		if !strings.HasPrefix(path, pattern[:open]) {
			return nil, false
		}
		path = path[open:]
		n := strings.IndexByte(path, '/')
		switch {
		case name == "id":
			if !strings.HasSuffix(path, rest) {
				return nil, false
			}
			n = len(path) - len(rest)
		case n < 0:
			n = len(path)
		}
		if n == 0 {
			return nil, false
		}
		p[name], path, pattern = path[:n], path[n:], rest
	}
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Vary", "Authorization, Cookie")
	h.Set("Content-Security-Policy", "default-src 'none'")
	if !a.guard.Host(r) {
		a.refuse(w, http.StatusMisdirectedRequest, fault.New(fault.Policy, "this publisher is not known by the name in the request").
			Do("name it: serve.public_url in publisher.yaml"))
		return
	}
	who := a.guard.Who(r)
	if who.Role < access.Viewer {
		h.Set("WWW-Authenticate", `Bearer realm="shoal"`)
		a.refuse(w, http.StatusUnauthorized, fault.New(fault.Permission, "this takes a token").
			Do("Authorization: Bearer TOKEN, as in ui.tokens_file of the publisher"))
		return
	}
	if len(r.URL.RawQuery) > maxQuery {
		a.refuse(w, http.StatusRequestURITooLong, fault.New(fault.Usage, "the question is longer than %d bytes", maxQuery))
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	allowed := ""
	for _, rt := range a.routes {
		p, ok := match(rt.pattern, r.URL.Path)
		if !ok {
			continue
		}
		if rt.method != method {
			allowed = rt.method
			continue
		}
		a.answer(w, r, rt, p, who)
		return
	}
	if allowed == "" {
		a.refuse(w, http.StatusNotFound, fault.New(fault.NotFound, "there is no such thing here").Do("GET /api/openapi.yaml"))
		return
	}
	h.Set("Allow", allowed)
	a.refuse(w, http.StatusMethodNotAllowed, fault.New(fault.Usage, "this takes %s", allowed))
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, rt route, p params, who access.Visitor) {
	if rt.serve == nil {
		w.Header().Set("Content-Type", "application/yaml")
		send(w, r, document)
		return
	}
	if rt.method == http.MethodPost {
		if who.Role < access.Operator || who.Cookie {
			a.refuse(w, http.StatusForbidden, fault.New(fault.Permission, "this takes an operator's token in the request's header"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		defer a.view.Forget()
	}
	v, err := rt.serve(r, p)
	if err != nil {
		a.refuse(w, 0, err)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		a.refuse(w, 0, err)
		return
	}
	if rt.method == http.MethodPost {
		a.log.Info("an operator did something", "what", r.URL.Path, "by", who.Name)
	}
	w.Header().Set("Content-Type", "application/json")
	send(w, r, append(b, '\n'))
}

// send sends b, or says that the client has it.
func send(w http.ResponseWriter, r *http.Request, b []byte) {
	sum := sha256.Sum256(b)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", tag)
	if r.Method != http.MethodPost {
		for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
			if strings.TrimPrefix(strings.TrimSpace(have), "W/") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// problem is an error, as RFC 9457 wants it.
type problem struct {
	Type   string     `json:"type"`
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Detail string     `json:"detail"`
	Code   fault.Code `json:"code"`
	Lines  []string   `json:"lines,omitempty"`
	Next   []string   `json:"next,omitempty"`
}

var statuses = map[fault.Code]int{
	fault.NotFound: http.StatusNotFound, fault.ChannelGone: http.StatusNotFound,
	fault.Usage: http.StatusBadRequest, fault.Malformed: http.StatusBadRequest, fault.BadKey: http.StatusBadRequest,
	fault.TooLarge: http.StatusRequestEntityTooLarge, fault.Policy: http.StatusConflict, fault.Held: http.StatusConflict,
	fault.Locked: http.StatusConflict, fault.Quota: http.StatusTooManyRequests, fault.Permission: http.StatusForbidden,
	fault.NoSpace: http.StatusInsufficientStorage, fault.Interrupted: http.StatusServiceUnavailable,
}

// refuse tells why not; without a status it follows from the code. What went wrong inside
// is for the log.
func (a *API) refuse(w http.ResponseWriter, status int, err error) {
	p := problem{Type: "about:blank", Detail: err.Error(), Code: fault.CodeOf(err), Status: status}
	var e *fault.Error
	if errors.As(err, &e) {
		p.Lines, p.Next = e.Detail, e.Next
	}
	if p.Status == 0 {
		p.Status = statuses[p.Code]
	}
	if p.Status == 0 {
		a.log.Error("answering a request", "err", err)
		p.Status, p.Detail, p.Lines, p.Next = http.StatusInternalServerError, "the publisher could not tell; its log says why", nil, nil
	}
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// body reads the request's body into v; an empty one leaves v as it is.
func body(r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return fault.New(fault.TooLarge, "the body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return fault.New(fault.Malformed, "the body did not come whole")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.New(fault.Malformed, "reading the body: %w", err)
	}
	return nil
}

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

func limit(v url.Values, most int) (int, error) {
	s := v.Get("limit")
	if s == "" {
		return most, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, fault.New(fault.Usage, "limit is %q, 1 to %d is wanted", s, most)
	}
	return n, nil
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

// ReleasePage is some of the releases.
type ReleasePage struct {
	Schema   string         `json:"schema"`
	Releases []view.Release `json:"releases"`
	Next     string         `json:"next,omitempty"` // for after; empty when these were the last
}

// Releases returns the releases after the one that a cursor names.
func Releases(all []view.Release, after string, most int) (*ReleasePage, error) {
	page := &ReleasePage{Schema: "shoal.releases/v1", Releases: []view.Release{}}
	for i := range all {
		if after == "" {
			end := min(len(all), i+most)
			page.Releases = all[i:end]
			if end < len(all) {
				page.Next = cursor(&all[end-1])
			}
			return page, nil
		}
		if cursor(&all[i]) == after {
			after = ""
		}
	}
	if after != "" {
		return nil, fault.New(fault.Usage, "%q is no place among the releases", after)
	}
	return page, nil
}

func cursor(r *view.Release) string {
	return r.Channel.String() + "@" + (manifest.Order{Epoch: r.Epoch, Sequence: r.Sequence}).String()
}

func (a *API) releases(r *http.Request, _ params) (any, error) {
	q := r.URL.Query()
	most, err := limit(q, maxReleases)
	if err != nil {
		return nil, err
	}
	all, err := a.view.AllReleases(r.Context())
	if err != nil {
		return nil, err
	}
	return Releases(all, q.Get("after"), most)
}

func (a *API) rollouts(r *http.Request, _ params) (any, error) {
	o, err := a.view.Overview(r.Context())
	if err != nil {
		return nil, err
	}
	all := struct {
		Schema   string            `json:"schema"`
		Rollouts []*rollout.Status `json:"rollouts"`
	}{"shoal.rollouts/v1", []*rollout.Status{}}
	for i := range o.Channels {
		if st := o.Channels[i].Rollout; st != nil {
			all.Rollouts = append(all.Rollouts, st)
		}
	}
	return all, nil
}

func channel(p params) (manifest.Channel, error) {
	ch, err := manifest.ParseChannel(p["app"] + "/" + p["channel"])
	if err != nil {
		return ch, fault.New(fault.NotFound, "there is no channel %q", p["app"]+"/"+p["channel"])
	}
	return ch, nil
}

func (a *API) rollout(_ *http.Request, p params) (any, error) {
	ch, err := channel(p)
	if err != nil {
		return nil, err
	}
	st, err := a.view.Rollout(ch)
	return struct {
		Schema string `json:"schema"`
		*rollout.Status
	}{"shoal.rollout/v1", st}, err
}

// brake has the brake of a rollout do something.
func (a *API) brake(action rollout.Action) func(*http.Request, params) (any, error) {
	return func(r *http.Request, p params) (any, error) {
		ch, err := channel(p)
		if err != nil {
			return nil, err
		}
		var why struct {
			Reason string `json:"reason"`
		}
		if err := body(r, &why); err != nil {
			return nil, err
		}
		// What was begun is not left half done because somebody hung up.
		done, err := a.view.Do(context.WithoutCancel(r.Context()), rollout.Command{Channel: ch, Action: action, Reason: why.Reason})
		return struct {
			Schema string `json:"schema"`
			*rollout.Done
		}{"shoal.rollout-done/v1", done}, err
	}
}

func (a *API) events(r *http.Request, _ params) (any, error) {
	v := r.URL.Query()
	q := fleet.EventQuery{Agent: keys.ID(v.Get("agent")), Last: v.Get("last") != ""}
	var err error
	if q.Limit, err = limit(v, maxEvents); err != nil {
		return nil, err
	}
	if after := v.Get("after"); after != "" {
		if q.After, err = strconv.ParseUint(after, 10, 63); err != nil {
			return nil, fault.New(fault.Usage, "after is %q, a number is wanted", after)
		}
	}
	page, err := a.view.Fleet.Events(r.Context(), q)
	return struct {
		Schema string `json:"schema"`
		*fleet.EventPage
	}{"shoal.events/v1", page}, err
}
