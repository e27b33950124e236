package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"shoal/internal/fault"
	"shoal/swarm/fleet"
)

const (
	defaultDocumentDeadline = 30 * time.Second // a document is at most 1 MiB
	defaultWindow           = 10 * time.Second // how long a sender may be slow
	defaultMinRate          = 1 << 10          // bytes per second
	maxRedirects            = 3
	maxRemembered           = 8 << 20 // bytes of documents kept to answer "not modified"
	maxRefusal              = 4 << 10 // bytes of the text of an error that are read
)

// Options set the patience of a web source; zeros are useful.
type Options struct {
	DocumentDeadline time.Duration     // for a whole document; zero means 30 seconds
	Window           time.Duration     // at least Window x MinRate bytes must come in each; zero means 10 seconds
	MinRate          int64             // bytes per second; zero means 1 KiB
	Transport        http.RoundTripper // nil means one for servers that the system trusts
	UserAgent        string            // empty means "shoal"
}

// web is a tree on a web server.
type web struct {
	base *url.URL
	o    Options
	http *http.Client

	mu   sync.Mutex // guards what follows
	seen map[string]remembered
	held int64 // bytes in seen
}

// remembered is a document the server named with an entity tag.
type remembered struct {
	tag  string
	body []byte
}

func newWeb(base *url.URL, o Options) *web {
	if o.DocumentDeadline == 0 {
		o.DocumentDeadline = defaultDocumentDeadline
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.MinRate == 0 {
		o.MinRate = defaultMinRate
	}
	if o.UserAgent == "" {
		o.UserAgent = "shoal"
	}
	if o.Transport == nil {
		o.Transport = fleet.Transport(nil)
	}
	w := &web{base: base, o: o, seen: map[string]remembered{}}
	w.http = &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect}
	return w
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected from https to an unencrypted address")
	}
	return nil
}

func (w *web) Name() string { return w.base.Redacted() }

func (w *web) Document(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, w.o.DocumentDeadline,
		fmt.Errorf("no whole answer within %s", w.o.DocumentDeadline))
	defer cancel()
	header := http.Header{}
	last, known := w.recall(path)
	if known {
		header.Set("If-None-Match", last.tag)
	}
	res, stop, err := w.get(ctx, path, header)
	if err != nil {
		return nil, err
	}
	defer stop()
	switch {
	case res.StatusCode == http.StatusNotModified && known:
		if int64(len(last.body)) > limit {
			return nil, tooLarge(path, w.Name(), limit)
		}
		return last.body, nil
	case res.StatusCode != http.StatusOK:
		return nil, w.refused(path, res)
	case res.ContentLength > limit:
		return nil, tooLarge(path, w.Name(), limit)
	}
	b, err := readAtMost(res.Body, limit, path, w.Name())
	if err != nil {
		return nil, w.failure(res.Request.Context(), path, err)
	}
	w.remember(path, res.Header.Get("ETag"), b)
	return b, nil
}

func (w *web) Data(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, stop, err := w.get(ctx, path, header)
	if err != nil {
		return nil, 0, err
	}
	body := &webBody{w: w, path: path, res: res, stop: stop}
	switch {
	case res.StatusCode == http.StatusOK:
		return body, 0, nil
	case res.StatusCode == http.StatusPartialContent && rangeStart(res.Header.Get("Content-Range")) == offset:
		return body, offset, nil
	}
	err = w.refused(path, res)
	stop()
	if res.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		return w.Data(ctx, path, 0)
	}
	return nil, 0, err
}

// rangeStart reads the first byte's number from "bytes 5-9/10"; -1 if it is not there.
func rangeStart(v string) int64 {
	v, ok := strings.CutPrefix(v, "bytes ")
	first, _, ok2 := strings.Cut(v, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || err != nil {
		return -1
	}
	return n
}

// get asks for path. The caller calls stop when it has what it wants; a sender below
// the minimum rate is cut off before.
func (w *web) get(ctx context.Context, path string, header http.Header) (*http.Response, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base.JoinPath(path).String(), nil)
	if err != nil {
		cancel(nil)
		return nil, nil, fault.New(fault.Unreachable, "asking for %q: %w", path, err)
	}
	req.Header = header
	req.Header.Set("User-Agent", w.o.UserAgent)
	answer := 2 * w.o.Window // dialing included; the transport's own limit does not cover HTTP/2
	patience := time.AfterFunc(answer, func() { cancel(fmt.Errorf("no answer within %s", answer)) })
	res, err := w.http.Do(req)
	patience.Stop()
	if err != nil {
		err = w.failure(ctx, path, err)
		cancel(nil)
		return nil, nil, err
	}
	p := pace(res.Body, w.o.Window, w.o.MinRate, cancel)
	res.Body = p
	res.Request = req // the first one, which carries our context; a redirect's is a copy
	return res, func() { p.Close(); cancel(nil) }, nil
}

// refused tells what an answer other than the document means. Its text is read, or the
// connection could not be used again.
func (w *web) refused(path string, res *http.Response) error {
	io.CopyN(io.Discard, res.Body, maxRefusal)
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone {
		return notFound(path, w.Name())
	}
	e := unreachable("%s answers %q with HTTP %d", w.Name(), path, res.StatusCode).
		Fact("source", w.Name()).Fact("status", res.StatusCode)
	switch {
	case res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusUnauthorized:
		e.Line("It may want a certificate of its fleet, which a machine with the fleet's key presents over https.")
	case res.StatusCode == http.StatusBadRequest && w.base.Scheme == "http":
		e.Line("It may speak https only.")
	}
	return e
}

// failure tells why a request or a body ended; ctx is the request's own.
func (w *web) failure(ctx context.Context, path string, err error) error {
	var coded *fault.Error
	if errors.As(err, &coded) || errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var key *fleet.KeyError
	if errors.As(err, &key) {
		return fault.New(fault.Unreachable, "%s is not of this machine's fleet: %w", w.Name(), key).
			Do("get the fleet's key from its publisher, and put it where fleet_key_file says").
			Fact("source", w.Name()).Fact("found", key.Found).Fact("have", key.Have)
	}
	var slow *fleet.SlowError
	if errors.As(err, &slow) {
		return fault.New(fault.Unreachable, "reading %q from %s: %w", path, w.Name(), slow).
			Line("It is there: its link or its processor may be full.").
			Do("try again in a minute").Fact("source", w.Name())
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text repeats the method and the address
	}
	return unreachable("reading %q from %s: %w", path, w.Name(), err).Fact("source", w.Name())
}

func (w *web) recall(path string) (remembered, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.seen[path]
	return r, ok
}

func (w *web) remember(path, tag string, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held -= int64(len(w.seen[path].body))
	delete(w.seen, path)
	if tag == "" || len(tag) > 256 || w.held+int64(len(body)) > maxRemembered {
		return
	}
	w.seen[path] = remembered{tag, body}
	w.held += int64(len(body))
}

// webBody gives a body's failures our codes.
type webBody struct {
	w    *web
	path string
	res  *http.Response
	stop func()
}

func (b *webBody) Read(p []byte) (int, error) {
	n, err := b.res.Body.Read(p)
	if err != nil && err != io.EOF {
		err = b.w.failure(b.res.Request.Context(), b.path, err)
	}
	return n, err
}

func (b *webBody) Close() error {
	b.stop()
	return nil
}
