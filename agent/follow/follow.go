// Package follow keeps what a machine trusts up with what its sources offer.
//
// A cycle takes the roots first, then each channel's manifest, then its beacon, and
// stores each as soon as it is trusted. No source is believed: one that gives a bad
// document is left out for the rest of the cycle, with an event, and stops nothing
// while another is good. Only when none is good does a cycle fail.
package follow

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

const (
	minBackoff = 5 * time.Second
	maxBackoff = 5 * time.Minute
	laggards   = 10 * time.Second
)

// Config is what a Follower is made of.
type Config struct {
	Store *state.Store
	// Pin is what join.json says; nil for a checker, whose state has it.
	Pin *state.Pin
	// Channels are the ones that will be asked for.
	Channels []manifest.Channel
	Sources  []source.Source
	// Options are those of manifest, without the floors: those come from the pin.
	Options manifest.Options
	// Floor is what else this machine knows of the past, used when its state is lost:
	// such as what it once installed. It may be nil.
	Floor func(manifest.Channel) manifest.Order
	// Stored, unless nil, is called when something was stored, with the follower's lock
	// held.
	Stored func()
	// Laggards is how long sources may take when another has answered; zero means 10 seconds.
	Laggards time.Duration
	// Logger receives progress. If nil, nothing is logged.
	Logger *slog.Logger
}

// Follower is one machine's trust and where it comes from. It is safe for concurrent
// use: nobody waits for a source but who asked for a cycle.
type Follower struct {
	c       Config
	members []*member
	cycling chan struct{} // holds one token while there is a cycle, and for good once closed

	mu           sync.Mutex // guards what follows and the store; a cycle gives it up while it asks
	trust        *manifest.Trust
	local        state.Local
	events       []manifest.Event // of loading, told with the next cycle
	allowExpired bool             // of the cycle under way
}

// Ask says how a cycle asks.
type Ask struct {
	Force        bool // also sources that did not answer lately
	AllowExpired bool // this once, an expired manifest is as good as another
	// From, unless empty, are asked instead of the configured sources.
	From []source.Source
}

// member is a source and how it has been doing.
type member struct {
	source.Source
	failures backoff.ExponentialBackOff
	until    time.Time // left alone until then
}

// Outcome is how a channel stands after a cycle.
type Outcome struct {
	Channel   manifest.Channel
	Verified  *manifest.Verified // what is trusted; nil for nothing
	New       bool               // it was accepted in this cycle
	Freshness manifest.Freshness
	Err       error // why the channel's manifest could not be checked or is not good
}

// Report is what a cycle found.
type Report struct {
	// Err ended the cycle before any channel was looked at.
	Err         error
	Outcomes    []Outcome
	Events      []manifest.Event
	RootVersion int64
}

// New returns a Follower. Nothing is read before Load.
func New(c Config) *Follower {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Options.Clock == nil {
		c.Options.Clock = time.Now
	}
	if c.Laggards == 0 {
		c.Laggards = laggards
	}
	f := &Follower{c: c, cycling: make(chan struct{}, 1)}
	f.members = membersOf(c.Sources)
	return f
}

func membersOf(sources []source.Source) []*member {
	var all []*member
	for _, s := range sources {
		all = append(all, &member{Source: s, failures: backoff.ExponentialBackOff{
			InitialInterval: minBackoff, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: maxBackoff,
		}})
	}
	return all
}

// Close waits for the end of a cycle under way, and lets none begin any more.
func (f *Follower) Close() { f.cycling <- struct{}{} }

// Root returns the trusted root and the fleet it is of; nil before anything is trusted.
func (f *Follower) Root() (*manifest.Root, manifest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trust == nil {
		return nil, manifest.Digest{}
	}
	return f.trust.Root(), f.trust.Repo()
}

// SetPin has another pin of the same fleet count from now on: one with higher floors.
func (f *Follower) SetPin(ctx context.Context, pin *state.Pin) error {
	select {
	case f.cycling <- struct{}{}:
		defer func() { <-f.cycling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.c.Pin, f.trust = pin, nil // what is stored is opened again, above the new floors
	return f.load(ctx, nil)
}

// Local returns what is remembered beside the trust. Changes are kept by SetLocal.
func (f *Follower) Local() state.Local {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local
}

// SetLocal stores l.
func (f *Follower) SetLocal(l state.Local) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local = l
	if f.trust == nil {
		return fault.New(fault.StateLost, "nothing is trusted yet")
	}
	// What is trusted is on disk already, so it may stay in memory if this fails.
	return f.c.Store.Save(f.trust.Snapshot(), f.local)
}

// Held returns what is trusted of ch. It may be out of date.
func (f *Follower) Held(ch manifest.Channel) (*manifest.Verified, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trust == nil {
		return nil, false
	}
	return f.trust.Held(ch)
}

// Cycle asks the sources, after a cycle that is under way. The error of a cycle is in
// the report; only ctx's is returned.
func (f *Follower) Cycle(ctx context.Context, ask Ask, channels ...manifest.Channel) (*Report, error) {
	select {
	case f.cycling <- struct{}{}:
		defer func() { <-f.cycling }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Report{}
	defer func() { r.RootVersion = f.rootVersion() }()
	run := &run{f: f, ctx: ctx, report: r, live: f.awake(ask.Force)}
	if len(ask.From) > 0 {
		run.live = membersOf(ask.From)
	}
	if ask.AllowExpired {
		f.setAllowExpired(true)
		defer f.setAllowExpired(false)
	}
	if err := f.load(ctx, run.live); err != nil {
		r.Err = err
		return r, ctx.Err()
	}
	r.Events = append(r.Events, f.events...)
	f.events = nil
	if r.Err = run.roots(); r.Err != nil {
		return r, ctx.Err()
	}
	for _, ch := range channels {
		if f.trust == nil { // what the channel before brought could not be stored
			r.Outcomes = append(r.Outcomes, Outcome{Channel: ch, Freshness: manifest.FreshNone, Err: run.unstored})
			continue
		}
		r.Outcomes = append(r.Outcomes, run.channel(ch))
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
	return r, nil
}

func (f *Follower) rootVersion() int64 {
	if f.trust == nil {
		return 0
	}
	return f.trust.RootVersion()
}

// awake returns the sources that are not left alone; all of them when that is none.
func (f *Follower) awake(force bool) []*member {
	now := f.c.Options.Clock()
	var live []*member
	for _, m := range f.members {
		if force || !now.Before(m.until) {
			live = append(live, m)
		}
	}
	if len(live) == 0 {
		return append(live, f.members...)
	}
	return live
}

// answered notes whether m could be reached.
func (f *Follower) answered(m *member, err error) {
	if errors.Is(err, fault.Unreachable) {
		m.until = f.c.Options.Clock().Add(m.failures.NextBackOff())
		return
	}
	m.failures.Reset()
	m.until = time.Time{}
}

func (f *Follower) save() error {
	if f.trust == nil {
		return errUnstored
	}
	err := f.c.Store.Save(f.trust.Snapshot(), f.local)
	if err != nil {
		// What is not stored must not be acted on: begin again from the disk.
		f.trust = nil
		return err
	}
	if f.c.Stored != nil {
		f.c.Stored()
	}
	return nil
}

// errUnstored is for a cycle during which what a neighbour gave could not be stored.
var errUnstored = fault.New(fault.IO, "what is trusted could not be stored")

// Reread verifies what is on disk from its first byte, and returns it: for the last
// question before something is installed.
func (f *Follower) Reread(allowExpired bool) (*manifest.Trust, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.c.Store.Read()
	if err != nil {
		return nil, err
	}
	if !m.Known {
		return nil, StateLost(f.c.Store.Dir(), "").Line("Nothing is installed before it is known again.")
	}
	o := f.options(f.pin(m))
	o.AllowExpired = allowExpired
	trust, _, err := manifest.Load(m.Snapshot, o)
	return trust, err
}

// setAllowExpired has what is trusted follow another rule. Should that fail, which no
// stored state makes it, the next load begins again from the disk.
func (f *Follower) setAllowExpired(allow bool) {
	f.allowExpired = allow
	if f.trust == nil {
		return
	}
	trust, _, err := manifest.Load(f.trust.Snapshot(), f.options(f.pin(&state.Memory{Local: f.local})))
	if err != nil {
		f.c.Logger.Error("loading what is trusted again", "err", err)
		trust = nil
	}
	f.trust = trust
}

// pin is join.json, or what a checker's state has in its place; nil for neither.
func (f *Follower) pin(m *state.Memory) *state.Pin {
	if f.c.Pin != nil {
		return f.c.Pin
	}
	return m.Local.Checker
}

// options adds the floors of pin.
func (f *Follower) options(pin *state.Pin) manifest.Options {
	o := f.c.Options
	o.AllowExpired = f.allowExpired
	o.MinSequence = map[manifest.Channel]manifest.Order{}
	if pin == nil {
		return o
	}
	o.MinRoot, o.TOFU = pin.MinRoot, pin.TOFU
	for _, ch := range f.c.Channels {
		if least, ok := pin.Least(ch); ok {
			o.MinSequence[ch] = least
		}
	}
	return o
}

// StateLost is the error of a machine that no longer knows what it trusted; why goes
// on where the first line ends.
func StateLost(dir, why string) *fault.Error {
	e := fault.New(fault.StateLost, "this machine no longer knows what it trusted")
	e.Line("The state in %s and its second copy are both gone%s.", dir, why)
	return e.Fact("state", dir)
}

// rootOne returns the first root from wherever it is: stored, told by the pin, or
// from a source. Its hash and its own signatures decide. The caller holds f.mu.
func (f *Follower) rootOne(ctx context.Context, repo manifest.Digest, stored [][]byte, pin *state.Pin, live []*member) ([]byte, error) {
	good := func(b []byte) bool {
		_, _, err := manifest.Pin(b, repo, manifest.Options{})
		return err == nil
	}
	if len(stored) > 0 && good(stored[0]) {
		return stored[0], nil
	}
	if pin != nil && good(pin.Root) {
		return pin.Root, nil
	}
	if len(live) == 0 {
		return nil, fault.New(fault.Unreachable, "no source is configured").Do("shoal agent join LINK")
	}
	// All at once, and the first that has it is enough.
	answers := make([]answer, len(live))
	asking, enough := context.WithCancel(ctx)
	defer enough()
	var wg sync.WaitGroup
	f.mu.Unlock()
	for i, m := range live {
		wg.Go(func() {
			doc, err := m.Document(asking, tree.Root(1), manifest.MaxRoot)
			if err == nil && !good(doc) {
				err = fault.New(fault.PinMismatch, "%s serves another fleet", m.Name()).
					Line("Pinned here: %s.", repo.Prefixed()).
					Do("check the address of the source, or the join link").
					Fact("source", m.Name()).Fact("pin", repo.Prefixed())
			}
			if err == nil {
				enough()
			}
			answers[i] = answer{m, doc, err}
		})
	}
	wg.Wait()
	f.mu.Lock()
	for _, a := range answers {
		if a.err == nil {
			f.answered(a.from, nil)
			return a.doc, nil // who did not answer as quickly is asked again
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var failed failures
	for _, a := range answers {
		f.answered(a.from, a.err)
		failed.add(a.err)
	}
	return nil, failed.first()
}
