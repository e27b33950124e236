package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/access"
	"shoal/publisher/rollout"
)

// login is what its page is made of.
type login struct {
	Once   string // the secret of a one-use login
	Failed bool
}

// post answers a form.
func (s *Web) post(w http.ResponseWriter, r *http.Request, who access.Visitor) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.problem(w, r, who, fault.New(fault.Malformed, "the form did not come whole, or is larger than %d bytes", maxForm))
		return
	}
	if !s.cfg.Guard.Meant(r) {
		s.problem(w, r, who, fault.New(fault.Permission, "this was not sent by a page of this publisher that is still good").
			Line("Nothing was changed.").Do("go back, load the page again, and try once more"))
		return
	}
	switch r.URL.Path {
	case "/login":
		if !s.cfg.Guard.Login(w, r, strings.TrimSpace(r.PostForm.Get("token"))) {
			s.cfg.Logger.Warn("somebody did not log in", "from", r.RemoteAddr)
			s.render(w, r, who, http.StatusForbidden, page{Name: "login", Title: "Log in", Data: login{Failed: true}})
			return
		}
		s.cfg.Logger.Info("somebody logged in", "from", r.RemoteAddr)
		redirect(w, "/")
		return
	case "/logout":
		s.cfg.Guard.Logout(w, r)
		redirect(w, "/login")
		return
	}
	if who.Role < access.Operator || !who.Cookie {
		s.problem(w, r, who, fault.New(fault.Permission, "this takes an operator, who has logged in").Line("Nothing was changed.").Do("log in: /login"))
		return
	}
	to, err := s.act(r)
	s.cfg.View.Forget()
	if err != nil {
		s.problem(w, r, who, err)
		return
	}
	s.cfg.Logger.Info("an operator did something", "what", r.URL.Path, "by", who.Name)
	redirect(w, to)
}

// redirect leads to a page of ours.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

var brakes = map[string]rollout.Action{"promote": rollout.Promote, "pause": rollout.Pause, "halt": rollout.Halt, "resume": rollout.Resume}

// act does what an operator asked for, and returns the page to go on with.
func (s *Web) act(r *http.Request) (string, error) {
	ctx, cancel := within(r)
	defer cancel()
	rest, what := r.URL.Path, ""
	if i := strings.LastIndexByte(rest, '/'); i > 0 {
		rest, what = rest[:i], rest[i+1:]
	}
	if name, ok := strings.CutPrefix(rest, "/rollouts/"); ok && brakes[what] != "" {
		ch, err := manifest.ParseChannel(name)
		if err != nil {
			return "", fault.New(fault.NotFound, "there is no channel %q", name)
		}
		wave := 0 // the gate that the page showed as the next one
		if n := r.PostForm.Get("wave"); n != "" {
			if wave, err = strconv.Atoi(n); err != nil {
				return "", fault.New(fault.Usage, "%q is no wave", n)
			}
		}
		_, err = s.cfg.View.Do(ctx, rollout.Command{Channel: ch, Action: brakes[what], Reason: strings.TrimSpace(r.PostForm.Get("reason")), Wave: wave})
		if r.PostForm.Get("alone") != "" {
			return "/?" + url.Values{"channel": {ch.String()}}.Encode(), err
		}
		return "/", err
	}
	id, ok := strings.CutPrefix(rest, "/agents/")
	if !ok {
		return "", fault.New(fault.NotFound, "there is nothing to do by that name")
	}
	fleet, page := s.cfg.View.Fleet, agentPath(id)
	switch what {
	case "approve":
		_, err := fleet.Approve(ctx, []string{id}, false)
		return page, err
	case "forget":
		_, err := fleet.Forget(ctx, []string{id})
		return "/agents", err
	case "label":
		_, err := fleet.Label(ctx, id, []manifest.Label{{Name: r.PostForm.Get("name"), Value: r.PostForm.Get("value")}})
		return page, err
	}
	return "", fault.New(fault.NotFound, "there is nothing to do by that name")
}

// agentPath is the page of a machine.
func agentPath(id string) string { return "/agents/" + url.PathEscape(id) }
