// Package access says who may look at a publisher's page and interface, and who may do
// something there.
//
// There are two roles: a viewer sees, an operator also does what needs no signature. Both
// are shown by a token, in a header or, in a browser, once at a login that gives a cookie.
// Who connects from this very machine may look without one, if the request came neither by
// another name nor through a proxy and the fleet has no key: a page elsewhere, which a
// browser can be made to open under a name that leads here, and a proxy that lets others
// in are both refused. Nobody ever does something without a token.
//
// A certificate of the fleet is no token: every machine has one.
package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxSessions  = 1000 // the oldest goes
	sessionTime  = 12 * time.Hour
	maxOnce      = 16
	secretLength = 32
)

// OnceTime is how long the secret of [Guard.Once] is good.
const OnceTime = 15 * time.Minute

// Role is what somebody may do.
type Role int

// The roles; each may do what those before it may.
const (
	Nobody Role = iota
	Viewer
	Operator
)

func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	}
	return "nobody"
}

// Config says who is let in.
type Config struct {
	// TokensFile holds the tokens, see [Guard]. Empty means that there are none.
	TokensFile string
	// Keyed says that the fleet has a key: then this machine's users need a token too.
	Keyed bool
	// Names are the host names, without ports, under which the publisher is known besides
	// its addresses and localhost; as in certificates, "*.acme.lan" is any one label there.
	Names []string
	// Port tells cookies of publishers on one machine apart.
	Port uint16
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
	// Logger receives why the file of tokens is no good any more. If nil, nothing is logged.
	Logger *slog.Logger
}

// Guard knows who may come in. Its methods may be called concurrently.
//
// The file of tokens has lines "ROLE NAME TOKEN": viewer or operator, what the log calls
// its holder, and 32 or more letters, digits, "-" and "_". It is read again when it has
// changed; who logged in with a token that is gone is out.
type Guard struct {
	cfg    Config
	now    func() time.Time
	key    [secretLength]byte // of what is derived from cookies
	tokens *tokens

	mu       sync.Mutex // guards what follows
	sessions map[[sha256.Size]byte]session
	once     map[[sha256.Size]byte]onceKey
}

// session is somebody who logged in with a browser.
type session struct {
	role  Role
	name  string
	token [sha256.Size]byte // which it ends with; zero for a one-use login
	until time.Time
}

type onceKey struct {
	role  Role
	until time.Time
}

// Visitor is who sent a request.
type Visitor struct {
	Role Role
	// Name is what to call them in a log; empty without a token.
	Name string
	// Cookie says that a browser sent what shows this by itself, so that anything that
	// changes something must show that the page meant it: see [Guard.Meant].
	Cookie bool
}

// New returns a guard. Code config when the tokens cannot be read.
func New(cfg Config) (*Guard, error) {
	g := &Guard{cfg: cfg, now: cfg.Clock, sessions: map[[sha256.Size]byte]session{}, once: map[[sha256.Size]byte]onceKey{}}
	if g.now == nil {
		g.now = time.Now
	}
	rand.Read(g.key[:]) // never fails
	var err error
	g.tokens, err = openTokens(cfg.TokensFile, cfg.Logger)
	return g, err
}

// Host reports whether the request is meant for this publisher: by an address, as
// localhost, or by a name it is known under. A page elsewhere can have its own name lead
// here (DNS rebinding), and a browser then takes us for it.
func (g *Guard) Host(r *http.Request) bool {
	host := hostOf(r.Host)
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return host != "" && slices.ContainsFunc(g.cfg.Names, func(n string) bool { return named(n, host) })
}

// named reports whether name is host's. In the names of certificates "*" stands for a whole
// first label (RFC 9525, 6.3).
func named(name, host string) bool {
	if rest, wild := strings.CutPrefix(name, "*."); wild {
		label, behind, ok := strings.Cut(host, ".")
		return ok && label != "" && strings.EqualFold(rest, behind)
	}
	return strings.EqualFold(name, host)
}

// hostOf is the host of "host" or "host:port".
func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// viaProxy are headers that proxies add, beside all that begin with forwarded.
var viaProxy = []string{"Forwarded", "X-Real-Ip", "Via", "Cf-Connecting-Ip", "True-Client-Ip"}

const forwarded = "X-Forwarded-"

// local reports whether the request comes straight from a user of this machine.
func local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	// HTTP/1.0 is what nginx speaks to what is behind it, with our address for the host and
	// no header of its own, where it is not told otherwise. No browser speaks it.
	if !r.ProtoAtLeast(1, 1) {
		return false
	}
	for h := range r.Header {
		if strings.HasPrefix(h, forwarded) || slices.Contains(viaProxy, h) {
			return false
		}
	}
	host := hostOf(r.Host)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// Who says who sent r.
func (g *Guard) Who(r *http.Request) Visitor {
	if !g.Host(r) {
		return Visitor{}
	}
	if auth := r.Header.Get("Authorization"); auth != "" {
		scheme, token, _ := strings.Cut(auth, " ")
		if t, ok := g.tokens.find(sha256.Sum256([]byte(token))); ok && strings.EqualFold(scheme, "Bearer") {
			return Visitor{Role: t.role, Name: t.name}
		}
		return Visitor{} // a wrong token is not less than none
	}
	if s, ok := g.session(r); ok {
		return Visitor{Role: s.role, Name: s.name, Cookie: true}
	}
	if !g.cfg.Keyed && local(r) {
		return Visitor{Role: Viewer}
	}
	return Visitor{}
}

func (g *Guard) session(r *http.Request) (session, bool) {
	value := g.cookie(r)
	if value == "" {
		return session{}, false
	}
	id := sha256.Sum256([]byte(value))
	g.mu.Lock()
	s, ok := g.sessions[id]
	if ok && !g.now().Before(s.until) {
		delete(g.sessions, id)
		ok = false
	}
	g.mu.Unlock()
	if !ok || s.token == ([sha256.Size]byte{}) {
		return s, ok
	}
	t, ok := g.tokens.find(s.token)
	s.role, s.name = t.role, t.name // as the file says today
	return s, ok
}

// Once returns a secret with which somebody can log in once, within 15 minutes.
func (g *Guard) Once(role Role) string {
	secret := rand.Text() + rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.once) >= maxOnce {
		clear(g.once)
	}
	g.once[sha256.Sum256([]byte(secret))] = onceKey{role, g.now().Add(OnceTime)}
	return secret
}

// Login has a browser remember who it is, for a token or a secret of [Guard.Once], and
// reports whether it was one.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request, secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	now := g.now()
	s := session{until: now.Add(sessionTime)}
	t, ok := g.tokens.find(sum)
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok {
		s.role, s.name, s.token = t.role, t.name, sum
	} else {
		k, ok := g.once[sum]
		delete(g.once, sum)
		if !ok || !now.Before(k.until) {
			return false
		}
		s.role, s.name = k.role, "one-use login"
	}
	if len(g.sessions) >= maxSessions {
		g.makeRoom()
	}
	value := rand.Text() + rand.Text()
	g.sessions[sha256.Sum256([]byte(value))] = s
	g.setCookie(w, r, value, sessionTime)
	return true
}

func (g *Guard) makeRoom() {
	var oldest [sha256.Size]byte
	until := time.Time{}
	for id, s := range g.sessions {
		if until.IsZero() || s.until.Before(until) {
			oldest, until = id, s.until
		}
	}
	delete(g.sessions, oldest)
}

// Logout ends the session of a browser.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	delete(g.sessions, sha256.Sum256([]byte(g.cookie(r))))
	g.mu.Unlock()
	g.setCookie(w, r, "", -time.Second)
}

// Form returns what a form of a page must send back as the field "csrf". A browser
// without a cookie gets one, which says nothing of who it is.
func (g *Guard) Form(w http.ResponseWriter, r *http.Request) string {
	value := g.cookie(r)
	if value == "" {
		value = rand.Text()
		g.setCookie(w, r, value, sessionTime)
	}
	return g.mark(value)
}

// Meant reports whether r, a POST whose body was parsed, was sent by a page of ours and
// not by another that the browser has open.
func (g *Guard) Meant(r *http.Request) bool {
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "same-origin":
	default:
		return false
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return false
		}
	}
	value := g.cookie(r)
	return value != "" && hmac.Equal([]byte(r.PostForm.Get("csrf")), []byte(g.mark(value)))
}

// mark is what only we can make of a cookie's value.
func (g *Guard) mark(value string) string {
	h := hmac.New(sha256.New, g.key[:])
	h.Write([]byte(value))
	return hex.EncodeToString(h.Sum(nil))
}
