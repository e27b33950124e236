package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"shoal/internal/fault"
)

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
