// Package report tells a publisher how a machine stands.
//
// A report is signed by the machine's own key and has a counter that never falls, so that
// nobody can forge one or play one back. It is sent soon after something has changed and
// about every ten minutes besides, and the more rarely the longer nobody takes it; when
// somebody does again, it is how the machine stands now, with the events of the time
// between counted. Events may be told twice, when an answer is lost or a file is not
// written, and are never dropped for it. Reporting owns its goroutines and its file;
// updates never wait for it.
package report

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// DefaultEvery is how often a machine reports when nothing changes.
const DefaultEvery = 10 * time.Minute

const (
	stateFile = "report.json"
	maxState  = 1 << 20
	maxEvents = 64  // kinds of events that wait for one place; others are counted together
	maxDetail = 300 // bytes of an event's detail

	// toFile is the place that stands for files.
	toFile = "file"
)

// Config says who reports, to whom, and what.
type Config struct {
	// Dir is where the counter and the events that nobody took yet are kept. It must be set.
	Dir string
	// Key signs. It must be set.
	Key keys.Signer
	// Report returns how the machine stands, from any goroutine and without waiting. Who
	// reports, the counter, the time and the events are filled in here. It must be set.
	Report func() *manifest.Report
	// To are base URLs of publishers that serve. There may be none.
	To []string
	// Transport is how they are reached; nil means as any web server.
	Transport http.RoundTripper
	// Every is the mean time between two reports; zero means [DefaultEvery].
	Every time.Duration
	// UserAgent names the agent.
	UserAgent string
	// Clock tells the time; nil means the system's.
	Clock manifest.Clock
	// Logger receives progress. If nil, nothing is logged.
	Logger *slog.Logger

	// gap replaces the least time between two reports, in tests.
	gap time.Duration
}

// Reporter reports for one machine. Its methods may be called concurrently.
type Reporter struct {
	cfg    Config
	run    string
	places []*place

	mu       sync.Mutex // guards what follows
	kept     kept
	exported exported
}

// exported is the last report for a file. It may not be in one.
type exported struct {
	report manifest.Digest // of its payload
	events []manifest.EventCount
}

// kept is what is on the disk.
type kept struct {
	V       int                              `json:"v"`
	Counter int64                            `json:"counter"`
	Events  map[string][]manifest.EventCount `json:"events,omitempty"` // by place, that it was not told yet
}

// New returns a reporter. What is damaged on the disk is begun anew: the counter goes by
// the clock then.
func New(cfg Config) (*Reporter, error) {
	if cfg.Every == 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.gap == 0 {
		cfg.gap = leastGap
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reporter{cfg: cfg}
	b := make([]byte, 8)
	rand.Read(b)
	r.run = hex.EncodeToString(b)
	if err := r.read(); err != nil {
		return nil, err
	}
	for _, base := range cfg.To {
		r.places = append(r.places, newPlace(r, base))
	}
	for name := range r.kept.Events { // those that are not reported to any more
		if name != toFile && !slices.Contains(cfg.To, name) {
			delete(r.kept.Events, name)
		}
	}
	return r, nil
}

func (r *Reporter) read() error {
	path := filepath.Join(r.cfg.Dir, stateFile)
	r.kept = kept{V: 1, Events: map[string][]manifest.EventCount{}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var b []byte
	if err == nil && info.Size() <= maxState {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return fault.New(fault.IO, "reading what was reported: %w", err)
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil || k.V != 1 {
		r.cfg.Logger.Warn("what was reported is damaged, and begun anew", "file", path)
		return nil
	}
	if k.Events == nil {
		k.Events = map[string][]manifest.EventCount{}
	}
	for name, events := range k.Events {
		k.Events[name] = events[:min(len(events), maxEvents)]
	}
	r.kept = k
	return nil
}

// save writes what must not be forgotten. The caller holds mu.
func (r *Reporter) save() error {
	b, err := json.Marshal(r.kept)
	if err == nil {
		err = durable.WriteFile(filepath.Join(r.cfg.Dir, stateFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fault.New(fault.IO, "keeping the counter of reports: %w", err)
	}
	return nil
}

// Note counts events until they are reported.
func (r *Reporter) Note(events ...manifest.Event) {
	if len(events) == 0 {
		return
	}
	r.mu.Lock()
	for _, e := range events {
		detail := e.Detail
		if e.Doc != "" {
			detail = e.Doc + ": " + detail
		}
		one := manifest.EventCount{Code: e.Code, Count: 1, Detail: detail[:min(len(detail), maxDetail)]}
		for _, p := range r.places {
			r.kept.Events[p.base] = merge(r.kept.Events[p.base], one)
		}
		r.kept.Events[toFile] = merge(r.kept.Events[toFile], one)
	}
	r.mu.Unlock()
	r.Changed()
}

// merge counts e among events.
func merge(events []manifest.EventCount, e manifest.EventCount) []manifest.EventCount {
	same := func(o manifest.EventCount) bool { return o.Code == e.Code && o.Detail == e.Detail }
	i := slices.IndexFunc(events, same)
	if i < 0 && len(events) >= maxEvents-1 { // the last ones are for what had no room
		e.Detail = ""
		if i = slices.IndexFunc(events, same); i < 0 && len(events) >= maxEvents {
			i = len(events) - 1
		}
	}
	if i >= 0 {
		events[i].Count += e.Count
		return events
	}
	return append(events, e)
}

// told takes what was reported out of the events that wait for a place. The caller holds
// mu.
func (r *Reporter) told(name string, events []manifest.EventCount) {
	left := r.kept.Events[name]
	for _, e := range events {
		for i := range left {
			if left[i].Code == e.Code && left[i].Detail == e.Detail {
				left[i].Count -= e.Count
			}
		}
	}
	left = slices.DeleteFunc(left, func(e manifest.EventCount) bool { return e.Count <= 0 })
	if len(left) == 0 {
		delete(r.kept.Events, name)
		return
	}
	r.kept.Events[name] = left
}

// Changed says that the machine may stand otherwise than before. It does not wait.
func (r *Reporter) Changed() {
	for _, p := range r.places {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// sign returns a new report for a place, and the events in it.
func (r *Reporter) sign(ctx context.Context, name string) ([]byte, []manifest.EventCount, error) {
	now := r.cfg.Clock()
	doc := r.cfg.Report()
	if doc.Repo.IsZero() {
		return nil, nil, fault.New(fault.NotFound, "this machine does not know its fleet yet")
	}
	r.mu.Lock()
	r.kept.Counter = manifest.NextCounter(r.kept.Counter, now)
	events := slices.Clone(r.kept.Events[name])
	doc.Counter, doc.Events = r.kept.Counter, slices.Clone(events)
	// On the disk before it is seen: the same number must never be given out twice.
	err := r.save()
	r.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	doc.Agent, doc.Time, doc.Run = r.cfg.Key.Public().ID(), now, r.run
	payload, err := draft(doc)
	if err != nil {
		return nil, nil, err
	}
	sig, err := r.cfg.Key.Sign(ctx, string(manifest.TypeReport), payload)
	if err != nil {
		return nil, nil, fault.New(fault.IO, "signing the report: %w", err)
	}
	env := manifest.NewEnvelope(manifest.TypeReport, payload)
	if err := env.Attach(keys.Entry{KeyID: doc.Agent, Sig: sig}); err != nil {
		return nil, nil, err
	}
	b := env.Marshal()
	if len(b) > manifest.MaxReport {
		return nil, nil, fault.New(fault.TooLarge, "the report has %d bytes", len(b))
	}
	return b, events, nil
}

// draft writes doc, with fewer words where it would be too large.
func draft(doc *manifest.Report) ([]byte, error) {
	for most := 1024; ; most /= 4 {
		payload, err := manifest.DraftReport(doc)
		// In its envelope a document is a third longer.
		if err == nil && len(payload)*4/3+1024 <= manifest.MaxReport {
			return payload, nil
		}
		if err != nil && !errors.Is(err, fault.TooLarge) {
			return nil, err
		}
		if most == 0 {
			if len(doc.Apps)+len(doc.Labels) == 0 {
				return nil, fault.New(fault.TooLarge, "the report has %d bytes", len(payload))
			}
			doc.Apps, doc.Labels = doc.Apps[:len(doc.Apps)/2], doc.Labels[:len(doc.Labels)/2]
		}
		doc.Apps = slices.Clone(doc.Apps)
		for i := range doc.Apps {
			if w := doc.Apps[i].Why; w != nil {
				doc.Apps[i].Why = &manifest.Why{Code: w.Code, Text: cut(w.Text, most), Until: w.Until, Next: cut(w.Next, most/2)}
			}
		}
		for i := range doc.Events {
			doc.Events[i].Detail = cut(doc.Events[i].Detail, most)
		}
	}
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

// Export returns a report for a file, with the events that no file has yet. They wait
// until [Reporter.Exported] says that this one has them.
func (r *Reporter) Export(ctx context.Context) ([]byte, error) {
	b, events, err := r.sign(ctx, toFile)
	if err != nil {
		return nil, err
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeReport)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exported = exported{env.PayloadHash(), events}
	return b, nil
}

// Exported says that a report of [Reporter.Export] is in its file, for good. The events of
// any but the last one go into another file too.
func (r *Reporter) Exported(report []byte) error {
	env, err := manifest.ParseEnvelope(report, manifest.TypeReport)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if env.PayloadHash() != r.exported.report {
		return nil
	}
	r.told(toFile, r.exported.events)
	r.exported = exported{}
	return r.save()
}
