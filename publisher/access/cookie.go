package access

import (
	"net/http"
	"strconv"
	"time"
)

const maxCookie = 256 // bytes; ours are shorter

// Browsers send a cookie to every port of a host, so the port is in the name.
func (g *Guard) cookieName() string { return "shoal-" + strconv.Itoa(int(g.cfg.Port)) }

// cookie is the value of the request's cookie of ours, or empty.
func (g *Guard) cookie(r *http.Request) string {
	c, err := r.Cookie(g.cookieName())
	if err != nil || len(c.Value) > maxCookie {
		return ""
	}
	return c.Value
}

func (g *Guard) setCookie(w http.ResponseWriter, r *http.Request, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: g.cookieName(), Value: value, Path: "/", MaxAge: int(age / time.Second),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}
