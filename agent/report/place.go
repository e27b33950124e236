package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"shoal/internal/fault"
)

const (
	leastGap    = 5 * time.Second  // between two reports to one place
	firstRetry  = 15 * time.Second // after one that was not taken; then ever later
	postTimeout = 30 * time.Second
	maxAnswer   = 4 << 10
	jitter      = 0.2 // of the time between two reports, either way
)

// place is one publisher that is reported to, by a goroutine of its own.
type place struct {
	r       *Reporter
	base    string
	changed chan struct{}
	http    *http.Client
	retry   *backoff.ExponentialBackOff
	last    string // what was reported last, but for what always changes

	mu     sync.Mutex // guards status
	status Status
}

// Status is how reporting to one place stands.
type Status struct {
	To       string     `json:"to"`
	At       time.Time  `json:"at,omitzero"`    // of the last try
	Code     fault.Code `json:"code,omitempty"` // ok when it was taken; empty before the first try
	Text     string     `json:"text,omitempty"` // why it was not
	Approved bool       `json:"approved"`       // the publisher counts this machine
	Next     time.Time  `json:"next,omitzero"`  // when it is tried again, at the latest
}

func newPlace(r *Reporter, base string) *place {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = min(firstRetry, r.cfg.Every), r.cfg.Every
	return &place{
		r: r, base: base, changed: make(chan struct{}, 1), retry: retry, status: Status{To: base},
		http: &http.Client{Transport: r.cfg.Transport, Timeout: postTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range r.places {
		wg.Go(func() { p.run(ctx) })
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.save(); err != nil {
		r.cfg.Logger.Warn("events that were not reported yet may be lost", "err", err)
	}
}

// Status says how reporting stands, for each place.
func (r *Reporter) Status() []Status {
	var all []Status
	for _, p := range r.places {
		p.mu.Lock()
		all = append(all, p.status)
		p.mu.Unlock()
	}
	return all
}

func (p *place) run(ctx context.Context) {
	// Machines that start together do not report together.
	wait, failing := p.soon(), false
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			if failing || p.say() == p.last && !p.waits() {
				continue // it is told with the next try
			}
			if !sleep(ctx, p.soon()) {
				return
			}
		case <-timer.C:
		}
		err := p.report(ctx)
		if ctx.Err() != nil {
			return
		}
		failing = err != nil
		if failing {
			wait = max(p.retry.NextBackOff(), p.r.cfg.gap)
			p.r.cfg.Logger.Info("a report was not taken", "to", p.base, "code", fault.CodeOf(err), "err", err, "again_in", wait.Round(time.Second))
		} else {
			p.retry.Reset()
			every := float64(p.r.cfg.Every)
			wait = time.Duration(every * (1 + jitter*(2*rand.Float64()-1)))
		}
		p.note(err, wait)
		if !sleep(ctx, min(p.r.cfg.gap, wait)) {
			return
		}
		timer.Reset(wait - min(p.r.cfg.gap, wait))
		p.r.nudge(p)
	}
}

// nudge has p look again at what may have changed while it was at work.
func (r *Reporter) nudge(p *place) {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// soon is a moment, so that a fleet in which the same has changed everywhere is not heard
// all at once.
func (p *place) soon() time.Duration { return time.Duration(rand.Float64() * float64(p.r.cfg.gap)) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// say is what there is to report, but for what always changes.
func (p *place) say() string {
	doc := p.r.cfg.Report()
	var b strings.Builder
	for _, a := range doc.Apps {
		code := fault.Code("")
		if a.Why != nil {
			code = a.Why.Code
		}
		fmt.Fprintln(&b, a.App, a.Channel, a.Epoch, a.Sequence, a.Version, a.SHA256, a.Offered, a.State, a.FailedAt, code)
	}
	return b.String()
}

// waits reports whether there are events that p was not told of.
func (p *place) waits() bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return len(p.r.kept.Events[p.base]) > 0
}

// report sends one report.
func (p *place) report(ctx context.Context) error {
	said := p.say()
	env, events, err := p.r.sign(ctx, p.base)
	if err != nil {
		return err
	}
	answer, err := p.post(ctx, env)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.status.Approved = answer.Approved
	p.mu.Unlock()
	p.r.mu.Lock()
	p.r.told(p.base, events)
	p.r.mu.Unlock()
	p.last = said
	return nil
}

// answer is what a publisher says to a report.
type answer struct {
	Code     fault.Code `json:"code"`
	Message  string     `json:"message"`
	Approved bool       `json:"approved"`
}

func (p *place) post(ctx context.Context, env []byte) (*answer, error) {
	url := strings.TrimRight(p.base, "/") + "/api/v1/reports"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(env))
	if err != nil {
		return nil, fault.New(fault.Config, "reporting to %q: %w", p.base, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.r.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", p.r.cfg.UserAgent)
	}
	res, err := p.http.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unreachable, "reporting: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fault.New(fault.Unreachable, "reporting: %w", err)
	}
	var a answer
	known := json.Unmarshal(b, &a) == nil
	if res.StatusCode == http.StatusOK && known && a.Code == fault.OK {
		return &a, nil
	}
	code := fault.Unreachable
	if _, ours := fault.Lookup(a.Code); known && ours && a.Code != fault.OK {
		code = a.Code
	}
	return nil, fault.New(code, "the publisher answers %s %s", strconv.Itoa(res.StatusCode), strconv.Quote(a.Message[:min(len(a.Message), 200)]))
}

// note keeps how the last try ended.
func (p *place) note(err error, wait time.Duration) {
	now := p.r.cfg.Clock().UTC()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.At, p.status.Code, p.status.Text, p.status.Next = now, fault.OK, "", now.Add(wait)
	if err != nil {
		p.status.Code, p.status.Text = fault.CodeOf(err), err.Error()
	}
}
