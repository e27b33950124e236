// Package web is the fleet page: how many machines are on target, which need a look and
// why, where the bytes came from, and when something runs out of date.
//
// It is plain HTML, drawn here, and whole without JavaScript; a small script has the parts
// that change drawn again when the publisher says that something did. Nothing is loaded
// from elsewhere, and the page may run no script but that one, whatever a machine calls
// itself. It can sign nothing: what needs the release keys is shown as the command to run.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/publisher/access"
	"shoal/publisher/view"
)

const (
	maxForm  = 16 << 10 // bytes of a form; they have a few words
	maxQuery = 4 << 10
)

// The first is what the page needs. The second is what the first cannot say.
const (
	policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:"
	limits = "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

//go:embed pages/*.html
var sources embed.FS

//go:embed static
var static embed.FS

// Config says what is shown, and to whom.
type Config struct {
	View  *view.View
	Guard *access.Guard
	// Done is closed when those who look on are to be let go.
	Done <-chan struct{}
	// Logger receives who did what. It must be set.
	Logger *slog.Logger
}

// Web answers requests for pages. Its methods may be called concurrently.
type Web struct {
	cfg     Config
	pages   map[string]*template.Template
	files   map[string]file
	streams streams
}

// file is one that never changes while the process runs.
type file struct {
	kind, tag string
	content   []byte
}

// New returns the fleet page.
func New(cfg Config) (*Web, error) {
	w := &Web{cfg: cfg, pages: map[string]*template.Template{}, files: map[string]file{}, streams: newStreams()}
	layout, err := template.New("layout.html").Funcs(functions(cfg.View.Clock)).ParseFS(sources, "pages/layout.html")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"rollout", "agents", "agent", "releases", "swarm", "audit", "login", "problem"} {
		t, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if w.pages[name], err = t.ParseFS(sources, "pages/"+name+".html"); err != nil {
			return nil, err
		}
	}
	for name, kind := range map[string]string{
		"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			return nil, err
		}
		w.files["/ui/"+name] = file{kind, tag(b), b}
	}
	return w, nil
}

func tag(b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// Has reports whether a path is of the fleet page.
func (s *Web) Has(path string) bool {
	switch path {
	case "/", "/agents", "/releases", "/swarm", "/audit", "/events", "/login", "/logout":
		return true
	}
	_, ok := s.files[path]
	return ok || strings.HasPrefix(path, "/agents/") || strings.HasPrefix(path, "/rollouts/")
}

func (s *Web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Add("Content-Security-Policy", limits)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // an origin is sent with forms, nothing to elsewhere
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Vary", "Cookie, Authorization")
	if !s.cfg.Guard.Host(r) {
		// Nothing of the fleet is for a page elsewhere to read.
		http.Error(w, "This publisher is not known by the name in the address. Open it by its address, or name it in publisher.yaml: serve.public_url, or a certificate in ui.cert.",
			http.StatusMisdirectedRequest)
		return
	}
	if f, ok := s.files[r.URL.Path]; ok && r.Method != http.MethodPost {
		h.Set("Content-Type", f.kind)
		send(w, r, http.StatusOK, f.tag, f.content)
		return
	}
	if len(r.URL.RawQuery) > maxQuery {
		w.WriteHeader(http.StatusRequestURITooLong)
		return
	}
	who := s.cfg.Guard.Who(r)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.show(w, r, who)
	case http.MethodPost:
		s.post(w, r, who)
	default:
		h.Set("Allow", "GET, HEAD, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// page is what every page is made of.
type page struct {
	Name, Title string
	Who         access.Visitor
	Operator    bool
	CSRF        string
	Fleet       string
	Twin        string // the same as JSON
	Data        any
}

// show answers a GET.
func (s *Web) show(w http.ResponseWriter, r *http.Request, who access.Visitor) {
	path := r.URL.Path
	if path == "/login" {
		s.render(w, r, who, http.StatusOK, page{Name: "login", Title: "Log in", Data: login{Once: r.URL.Query().Get("once")}})
		return
	}
	if who.Role < access.Viewer {
		w.Header().Set("WWW-Authenticate", `Bearer realm="shoal"`)
		s.render(w, r, who, http.StatusUnauthorized, page{Name: "login", Title: "Log in", Data: login{}})
		return
	}
	var p page
	var err error
	switch id, one := strings.CutPrefix(path, "/agents/"); {
	case one && id != "":
		p, err = s.agent(r, id)
	case path == "/":
		p, err = s.rollout(r)
	case path == "/agents":
		p, err = s.agents(r)
	case path == "/releases":
		p, err = s.releases(r)
	case path == "/swarm":
		p, err = s.swarm(r)
	case path == "/audit":
		p, err = s.audit(r)
	case path == "/events":
		s.follow(w, r)
		return
	default:
		err = fault.New(fault.NotFound, "there is no such page")
	}
	if err != nil {
		s.problem(w, r, who, err)
		return
	}
	s.render(w, r, who, http.StatusOK, p)
}

// render draws a page whole before any of it is sent.
func (s *Web) render(w http.ResponseWriter, r *http.Request, who access.Visitor, status int, p page) {
	p.Who, p.Operator = who, who.Role >= access.Operator && who.Cookie
	if who.Cookie || p.Name == "login" {
		p.CSRF = s.cfg.Guard.Form(w, r)
	}
	if who.Role >= access.Viewer {
		p.Fleet = s.cfg.View.ID.String()
	}
	var b bytes.Buffer
	if err := s.pages[p.Name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		s.cfg.Logger.Error("drawing a page", "page", p.Name, "err", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	send(w, r, status, tag(b.Bytes()), b.Bytes())
}

// send sends b, or says that the browser has it.
func send(w http.ResponseWriter, r *http.Request, status int, tag string, b []byte) {
	if status == http.StatusOK {
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// problem shows why not. What went wrong inside is for the log.
func (s *Web) problem(w http.ResponseWriter, r *http.Request, who access.Visitor, err error) {
	e := &fault.Error{Code: fault.CodeOf(err), Message: err.Error()}
	errors.As(err, &e)
	status := http.StatusConflict
	switch e.Code {
	case fault.NotFound, fault.ChannelGone:
		status = http.StatusNotFound
	case fault.Usage, fault.Malformed:
		status = http.StatusBadRequest
	case fault.Permission:
		status = http.StatusForbidden
	case fault.IO, fault.Interrupted:
		s.cfg.Logger.Error("answering a request", "err", err)
		status, e = http.StatusInternalServerError, fault.New(fault.IO, "the publisher could not tell; its log says why")
	}
	s.render(w, r, who, status, page{Name: "problem", Title: "Not done", Data: e})
}

// within bounds how long something a person asked for may take; it goes on when they hang up.
func within(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), 20*time.Second)
}
