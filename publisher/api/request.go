package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"shoal/internal/fault"
)

const (
	maxBody  = 16 << 10 // of a request; they have a few words
	maxQuery = 4 << 10
)

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
	if _, err := d.Token(); err != io.EOF {
		return fault.New(fault.Malformed, "reading the body: there is more after its end")
	}
	return nil
}

// limit is how many entries of a list a request asks for: most, unless it says less.
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
