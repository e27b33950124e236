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
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"shoal/internal/fault"
	"shoal/publisher/access"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
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
