package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"shoal/agent/apply"
	"shoal/agent/cache"
	"shoal/agent/follow"
	"shoal/agent/report"
	"shoal/agent/self"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// Agent is one machine's agent. Open makes one, which then holds the lock of its state
// directory until Close. Its methods may be called concurrently.
//
// One goroutine, the owner, holds the state; every method and every background job
// sends it what it wants done. What others may read at any time is the last Status the
// owner published.
type Agent struct {
	cfg     Config
	id      keys.ID
	log     *slog.Logger
	store   *state.Store
	cache   *cache.Cache
	engine  *apply.Engine
	member  *fleet.Member // nil in an open fleet
	sources []source.Source
	reports *report.Reporter

	ctx       context.Context // of everything in the background; from Open to Close
	cancel    context.CancelFunc
	jobs      sync.WaitGroup
	events    chan func()   // for the owner, one at a time
	stop      chan struct{} // closed to end the owner
	done      chan struct{} // closed when it has ended
	serving   atomic.Bool   // Run is running: others come to us for what they want
	published atomic.Pointer[Status]

	replan chan struct{} // wakes Run to plan its next check again
	ending chan struct{} // tells Run that only the next process can go on
	gate   *self.Gate    // for a new version of this agent

	nodeMu sync.Mutex // guards node
	node   *swarm.Node

	channelsMu sync.Mutex // guards channels
	channels   map[manifest.Channel]*swarm.Channel

	// What follows belongs to the owner.
	follow  *follow.Follower
	pin     *state.Pin
	apps    []*app
	shared  map[manifest.Infohash]manifest.Digest // what is given, or about to be
	recent  []Event
	closing bool // nothing new is started

	savedStates string // of the status on disk
	savedAt     time.Time
}

// app is one program and how it stands.
type app struct {
	cfg      AppConfig
	channel  manifest.Channel
	program  apply.Program
	self     bool // it is this agent
	status   AppStatus
	checked  error             // how its channel's last check ended
	offered  manifest.Infohash // of the payload the channel asks for; zero for none
	asked    bool              // whether this process has asked for its channel
	job      *job              // under way, or nil
	ahead    *ahead            // the same, of a download before its time
	early    early             // what such a download has brought
	retries  int               // updates in a row that something passing ended
	trouble  *trouble          // how the last of them ended
	silences int               // checks in a row that nobody answered
}

// trouble is why an update was not begun, or not finished, that is tried again.
type trouble struct {
	d     manifest.Digest // of what was to be installed
	state manifest.AppState
	err   error
}

// Open takes the state directory, verifies what it holds as far as that goes without
// the network, and begins to recover what a crash interrupted.
func Open(ctx context.Context, cfg Config) (_ *Agent, err error) {
	cfg, err = cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	programs := make([]apply.Program, len(cfg.Apps))
	for i, a := range cfg.Apps {
		if programs[i], err = a.program(); err != nil {
			return nil, err
		}
	}
	pin, err := state.ReadPin(cfg.JoinFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := checkPin(cfg, pin); err != nil {
		return nil, err
	}
	if _, err := cfg.fleetKeys(); err != nil {
		return nil, err
	}
	store, err := state.Open(cfg.StateDir, cfg.AnchorFile)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, store: store, pin: pin,
		events: make(chan func()), stop: make(chan struct{}), done: make(chan struct{}),
		shared: map[manifest.Infohash]manifest.Digest{}, replan: make(chan struct{}, 1),
		channels: map[manifest.Channel]*swarm.Channel{},
		ending:   make(chan struct{}, 1), gate: self.NewGate(cfg.Self.Settle),
	}
	defer func() {
		if err != nil {
			store.Close()
		}
	}()
	key, made, err := store.Identity(ctx)
	if err != nil {
		return nil, err
	}
	a.id = key.Public().ID()
	if made {
		a.log.Info("new agent key", "agent", a.id)
	}
	if a.member, err = cfg.joinFleet(made); err != nil {
		return nil, err
	}
	if a.sources, err = openSources(cfg, a.member); err != nil {
		return nil, err
	}
	if a.reports, err = a.reporter(key); err != nil {
		return nil, err
	}
	if a.cache, err = cache.Open(cfg.CacheDir, cache.Options{MaxFile: cfg.Disk.Cache, Reserve: cfg.Disk.Reserve}); err != nil {
		return nil, err
	}
	a.engine, err = apply.New(apply.Options{StateDir: filepath.Join(cfg.StateDir, "apply"), Now: cfg.Clock, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	var channels []manifest.Channel
	for i, ac := range cfg.Apps {
		app := &app{cfg: ac, channel: ac.channel(), program: programs[i], self: cfg.Self.Program.Is(ac.Target)}
		if app.self {
			app.program = cfg.ownProgram(app.program, a.gate)
		}
		app.status = AppStatus{App: ac.Name, Channel: ac.Channel, Target: ac.Target, State: manifest.StateWaiting, Since: cfg.Clock().UTC()}
		a.apps = append(a.apps, app)
		channels = append(channels, app.channel)
	}
	a.follow = follow.New(follow.Config{
		Store: store, Pin: pin, Channels: channels, Sources: a.sources, Floor: a.installedFloor, Stored: a.tellNeighbours, Logger: cfg.Logger,
		Options: manifest.Options{Clock: cfg.Clock, Build: cfg.Build, TimeFloor: cfg.Time == "floor", AgentVersion: cfg.Version},
	})
	if err := a.loadQuietly(ctx); err != nil {
		return nil, err
	}
	a.remember()
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.publish() // while nobody else is there yet
	go a.own()
	return a, a.do(context.WithoutCancel(ctx), a.recover)
}

// loadQuietly reads the state. That a first root has still to come from a source, which
// does not answer, is no reason not to start.
func (a *Agent) loadQuietly(ctx context.Context) error {
	err := a.follow.Load(ctx)
	if errors.Is(err, fault.Unreachable) {
		a.log.Info("nothing is trusted yet")
		return nil
	}
	return err
}

// checkPin refuses what no agent should start with: no pin, or another one than the
// configuration expects.
func checkPin(cfg Config, pin *state.Pin) error {
	if pin == nil {
		if state.Exists(cfg.StateDir, cfg.AnchorFile) {
			return nil // the state knows the fleet, and verifies itself
		}
		return fault.New(fault.Config, "this machine has not joined a fleet").
			Line("There is no %s, and no state in %s.", cfg.JoinFile, cfg.StateDir).
			Do("shoal agent join LINK")
	}
	if cfg.FleetID != "" && cfg.FleetID != pin.Repo.String() {
		return fault.New(fault.PinMismatch, "the configuration names another fleet than this machine joined").
			Line("fleet_id in the configuration: %s", cfg.FleetID).
			Line("Pinned by %s: %s", cfg.JoinFile, pin.Repo).
			Do("shoal agent leave, and join again, if the machine really moves to the other fleet").
			Fact("pin", pin.Repo.String()).Fact("found", cfg.FleetID)
	}
	return nil
}

func openSources(cfg Config, m *fleet.Member) ([]source.Source, error) {
	var all []source.Source
	via := fleet.Transport(m)
	for _, ref := range cfg.sourceRefs() {
		s, err := source.Open(ref, source.Options{Transport: via, UserAgent: "shoal/" + cfg.Version})
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (c Config) sourceRefs() []string {
	var refs []string
	if c.Sources.Publisher != "" {
		refs = append(refs, c.Sources.Publisher)
	}
	return append(refs, c.Sources.Mirrors...)
}

// installedFloor is the highest order this machine ever installed from ch, for when
// its state is lost.
func (a *Agent) installedFloor(ch manifest.Channel) manifest.Order {
	var floor manifest.Order
	for _, app := range a.apps {
		history, err := a.engine.History(app.program.Target)
		if app.channel != ch || err != nil {
			continue
		}
		for _, r := range history {
			if r.State != apply.Confirmed || a.pin != nil && !r.Ended.After(a.pin.ResetAt) {
				continue // orders of the fleet before mean nothing in this one
			}
			if o := (manifest.Order{Epoch: r.To.Epoch, Sequence: r.To.Sequence}); o.Compare(floor) > 0 {
				floor = o
			}
		}
	}
	return floor
}

// Close ends what runs in the background, an update before its swap included, and
// gives the state directory back.
func (a *Agent) Close() error {
	a.cancel()
	a.do(context.Background(), func() { a.closing = true }) // no more jobs
	a.jobs.Wait()                                           // they still tell the owner how they ended
	a.follow.Close()
	close(a.stop)
	<-a.done
	a.nodeMu.Lock()
	defer a.nodeMu.Unlock()
	var err error
	if a.node != nil {
		err = a.node.Close()
	}
	return errors.Join(err, a.store.Close())
}

var errClosed = fault.New(fault.Interrupted, "the agent is stopping")

// own is the owner. It ends when the agent is closed.
func (a *Agent) own() {
	defer close(a.done)
	for {
		select {
		case event := <-a.events:
			event()
		case <-a.stop:
			a.saveStatus()
			return
		}
	}
}

// do has the owner run f, and waits until that and what it changed can be seen. The
// error says that f was not run.
func (a *Agent) do(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	select {
	case a.events <- func() { defer close(ran); f(); a.publish() }:
		<-ran
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.done:
		return errClosed
	}
}

// within bounds ctx by the agent's own life.
func (a *Agent) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// swarm returns the node, made when it is first needed.
func (a *Agent) swarm(listen string) (*swarm.Node, error) {
	a.nodeMu.Lock()
	defer a.nodeMu.Unlock()
	if a.node != nil {
		return a.node, nil
	}
	l := a.cfg.Limits
	node, err := swarm.New(swarm.Config{
		Listen: listen, Fleet: a.member, TrackerTransport: fleet.Transport(a.member),
		LAN: a.cfg.Sources.LAN, Origins: a.cfg.origins(), MaxPeers: l.Peers, Logger: a.log,
		Limits: swarm.Limits{Up: l.Up, Down: l.Down, LANUp: l.LANUp, LANDown: l.LANDown},
	})
	var port *swarm.PortError
	if errors.As(err, &port) {
		code := fault.PortInUse
		if errors.Is(err, fs.ErrPermission) {
			code = fault.Permission
		}
		return nil, fault.New(code, "cannot listen on %s: %w", port.Addr, port.Err).
			Line("Neighbours reach this machine there. What runs keeps running; nothing was changed.").
			Do(`choose another port with listen: ":PORT" in the configuration, or port 0 for any`).
			Fact("listen", port.Addr)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "starting the swarm node: %w", err)
	}
	a.node = node
	return node, nil
}

// recover finishes, in the background, what a crash interrupted. An update of the agent
// itself is for Run: only an agent that serves can prove itself.
func (a *Agent) recover() {
	for _, app := range a.apps {
		if !app.self {
			a.start(app, &job{app: app, recovery: true})
		}
	}
}

// note keeps events for the status.
func (a *Agent) note(events ...manifest.Event) {
	a.reports.Note(events...)
	for _, e := range events {
		if n := len(a.recent); n > 0 && a.recent[n-1].Event == e {
			a.recent[n-1].At = a.cfg.Clock().UTC() // again
			continue
		}
		a.recent = append(a.recent, Event{a.cfg.Clock().UTC(), e})
	}
	if over := len(a.recent) - maxEvents; over > 0 {
		a.recent = append([]Event(nil), a.recent[over:]...)
	}
}

// remember takes up from the last status what only it knows.
func (a *Agent) remember() {
	old, err := ReadStatus(a.cfg.StateDir)
	if err != nil {
		return
	}
	a.recent = old.Events
	for _, app := range a.apps {
		for _, s := range old.Apps {
			if s.App == app.cfg.Name && s.Channel == app.cfg.Channel {
				app.status.Update, app.status.LastCheck, app.status.Freshness = s.Update, s.LastCheck, s.Freshness
				app.status.State, app.status.Why, app.status.Since = s.State, s.Why, s.Since
				app.status.FailedAt = s.FailedAt
			}
		}
	}
}

func (a *Agent) appNamed(name string) (*app, error) {
	for _, app := range a.apps {
		if app.cfg.Name == name || app.channel.String() == name || app.cfg.Channel == name && len(a.apps) == 1 {
			return app, nil
		}
	}
	e := fault.New(fault.Usage, "this machine follows no channel %q", name)
	for _, app := range a.apps {
		e.Line("It follows %s.", app.channel)
	}
	return nil, e
}

// selected returns the apps that names mean; all of them for none.
func (a *Agent) selected(names []string) ([]*app, error) {
	if len(a.apps) == 0 {
		return nil, fault.New(fault.Config, "no app is configured").Do("shoal agent join LINK --target PATH, or add one to apps: in the configuration")
	}
	if len(names) == 0 {
		return a.apps, nil
	}
	var chosen []*app
	for _, name := range names {
		app, err := a.appNamed(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, app)
	}
	return chosen, nil
}

// setState changes how an app stands, and says so once.
func (a *Agent) setState(app *app, s manifest.AppState, reason error) {
	var w *Why
	if s != manifest.StateHealthy && reason != nil {
		w = why(reason)
	}
	if app.status.State != s {
		app.status.Since = a.cfg.Clock().UTC()
		attrs := []any{"app", app.cfg.Name, "channel", app.cfg.Channel, "state", s}
		if w != nil {
			attrs = append(attrs, "code", w.Code, "why", w.Text)
		}
		a.log.Info("state", attrs...)
	}
	app.status.State, app.status.Why = s, w
}
