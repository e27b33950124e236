package fleet

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/gate"
	members "shoal/swarm/fleet"
)

// How often reports are looked at from one address. Behind one may be a large site, so
// what bounds a flood is far above what machines need: a report every ten minutes.
const (
	perSecond      = 100
	perSecondBurst = 2000
	strangersEvery = 1 // per second
	strangersBurst = 100
)

// ReportsPath is where machines post their reports.
const ReportsPath = "/api/v1/reports"

// Answer is what a machine that has reported is told. Code is "ok" when its report was
// taken in.
type Answer struct {
	Code     fault.Code `json:"code"`
	Message  string     `json:"message,omitempty"`
	Approved bool       `json:"approved"` // its reports count
}

// statuses of refusals, besides 500.
var statuses = map[fault.Code]int{
	fault.Malformed: http.StatusBadRequest, fault.WrongType: http.StatusBadRequest, fault.BadKey: http.StatusBadRequest,
	fault.TooLarge: http.StatusRequestEntityTooLarge, fault.Threshold: http.StatusForbidden, fault.WrongTarget: http.StatusForbidden,
	fault.Rollback: http.StatusConflict, fault.Quota: http.StatusTooManyRequests, fault.NoSpace: http.StatusServiceUnavailable,
	fault.IO: http.StatusServiceUnavailable,
}

// ServeHTTP takes a report, the body of a POST. It bounds its size and how many come from
// one address; the caller sets the deadlines, and has shut out who is not of a fleet with
// a key.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	answer := func(status int, a Answer) {
		if status != http.StatusOK {
			h.Set("Connection", "close") // what is left of the body is not read
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(a)
	}
	if r.Method != http.MethodPost {
		h.Set("Allow", http.MethodPost)
		answer(http.StatusMethodNotAllowed, Answer{Code: fault.Usage, Message: "reports are posted"})
		return
	}
	from := gate.Source(r.RemoteAddr)
	if !s.loud.allow(from, s.now()) {
		s.limit()
		h.Set("Retry-After", "10")
		answer(http.StatusTooManyRequests, Answer{Code: fault.Quota, Message: "too many reports from this address"})
		return
	}
	env, err := io.ReadAll(http.MaxBytesReader(w, r.Body, manifest.MaxReport))
	if err != nil {
		a, status := Answer{Code: fault.IO, Message: "the report did not come whole"}, http.StatusRequestTimeout
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			a, status = Answer{Code: fault.TooLarge, Message: "a report has at most " + strconv.Itoa(manifest.MaxReport) + " bytes"}, http.StatusRequestEntityTooLarge
		}
		answer(status, a)
		return
	}
	_, member := members.Peer(r.TLS)
	t, err := s.Take(r.Context(), env, Via{From: from, Member: member})
	if err == nil {
		answer(http.StatusOK, Answer{Code: fault.OK, Approved: t.Approved})
		return
	}
	code := fault.CodeOf(err)
	status := statuses[code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	if status == http.StatusTooManyRequests {
		h.Set("Retry-After", "10")
	}
	answer(status, Answer{Code: code, Message: err.Error()})
}

func (s *Store) limit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Limited++
}
