package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"shoal/agent/follow"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
)

const (
	stopControl   = 5 * time.Second // for commands under way when the agent stops
	readHeader    = 5 * time.Second
	statusRefresh = 5 * time.Second
	extendStart   = "EXTEND_TIMEOUT_USEC=30000000" // told every statusRefresh
	maxReason     = 120                            // bytes of a reason in the status line
)

// Run follows the channels, installs what is new, gives what it has to neighbours and
// takes commands on the control socket, until ctx ends. Only what would keep it from
// working at all is an error: a port in use, a socket it may not make. Documents that
// have expired, sources that do not answer and updates that fail are not. [ErrRestart]
// says that the agent has replaced itself, and is to be started again.
func (a *Agent) Run(ctx context.Context) error {
	node, err := a.swarm(a.cfg.Listen)
	if err != nil {
		return err
	}
	l, err := control.Listen(a.cfg.StateDir)
	if err != nil {
		return coded(err, "listening for commands")
	}
	a.serving.Store(true)
	defer a.serving.Store(false)
	a.log.Info("agent started", "agent", a.id, "apps", len(a.apps), "listen", node.Addr())
	g, ctx := errgroup.WithContext(ctx)
	srv := &http.Server{Handler: control.Handler(a.commands()), ReadHeaderTimeout: readHeader}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return coded(err, "listening for commands")
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		notify(daemon.SdNotifyStopping)
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopControl)
		defer cancel()
		if srv.Shutdown(stopping) != nil {
			srv.Close()
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-a.ending:
			return ErrRestart
		case <-ctx.Done():
			return nil
		}
	})
	a.do(ctx, a.recoverItself)
	a.followNeighbours(node)
	ready := make(chan struct{})
	g.Go(func() error { a.keepChecking(ctx, ready); return nil })
	g.Go(func() error { a.keepTelling(ctx, ready); return nil })
	g.Go(func() error { a.reports.Run(ctx); return nil })
	err = g.Wait()
	a.log.Info("agent stopped")
	return err
}

// keepChecking asks the channels now, and then again and again. It closes ready after
// the first time.
func (a *Agent) keepChecking(ctx context.Context, ready chan<- struct{}) {
	var next time.Duration
	plan := func() {
		next = a.nextCheck(rand.Float64())
		for _, app := range a.apps {
			app.status.NextCheck = a.cfg.Clock().UTC().Add(next)
		}
	}
	check := func() {
		a.cycle(ctx, follow.Ask{}, a.apps, func(report *follow.Report) { // else the agent stops
			for _, app := range a.apps {
				a.check(app, report)
			}
			a.prune()
			plan()
		})
	}
	check()
	if ctx.Err() != nil {
		return
	}
	// One full cycle is done: from here on this agent can install the next update.
	close(ready)
	timer := time.NewTimer(next)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			check()
		case <-a.replan: // an update ended in a way that may pass
			a.do(ctx, plan)
		}
		timer.Reset(next)
	}
}

// keepTelling tells the supervisor that the agent lives, and how it stands.
func (a *Agent) keepTelling(ctx context.Context, ready <-chan struct{}) {
	every := statusRefresh
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err == nil && watchdog > 0 {
		every = min(every, watchdog/2)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := ""
	for {
		if s := statusLine(a.Status()); s != last {
			notify("STATUS=" + s)
			last = s
		}
		// Only an owner that answers is alive.
		if a.do(ctx, func() {}) == nil {
			if watchdog > 0 {
				notify(daemon.SdNotifyWatchdog)
			}
			if ready != nil { // sources may be slow, or away
				notify(extendStart)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ready:
			notify(daemon.SdNotifyReady)
			ready = nil
		case <-tick.C:
		}
	}
}

// notify tells systemd; without one it does nothing.
func notify(state string) { daemon.SdNotify(false, state) }

// statusLine is the status in one line: how each app stands and, where it is not well,
// why; and what was wrong with the last check.
func statusLine(s *Status) string {
	if len(s.Apps) == 0 {
		return "no app is configured"
	}
	var parts []string
	for _, app := range s.Apps {
		part := fmt.Sprintf("%s/%s %s %s", app.App, app.Channel, app.Version, app.State)
		if u := app.Update; app.State == manifest.StateDownloading && u != nil && u.Length > 0 {
			part += fmt.Sprintf(" %s, %d%%", u.Version, 100*u.Done/u.Length)
		}
		if app.Why != nil && app.Why.Code != fault.OK {
			part += reason(app.Why.Code, app.Why.Text)
		} else if c := app.LastCheck; c != nil && c.Code != fault.OK && c.Code != fault.Same {
			part += ", last check" + reason(c.Code, c.Text)
		}
		parts = append(parts, part)
	}
	return strings.ToValidUTF8(strings.ReplaceAll(strings.Join(parts, "; "), "\n", " "), "")
}

func reason(code fault.Code, text string) string {
	return fmt.Sprintf(" (%s: %s)", code, text[:min(len(text), maxReason)])
}

// UpdateRequest is what "update" over the control socket takes.
type UpdateRequest struct {
	Apps []string `json:"apps,omitempty"`
	Wait bool     `json:"wait"`
	Choice
}

// CheckRequest is what "check" takes.
type CheckRequest struct {
	Apps []string `json:"apps,omitempty"`
}

// commands are what the control socket offers.
func (a *Agent) commands() map[string]control.Command {
	return map[string]control.Command{
		"status": func(ctx context.Context, _ json.RawMessage, _ func(any)) (any, error) {
			// Fresh numbers when the owner has a moment, else the last ones.
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			a.do(ctx, func() {
				for _, app := range a.apps {
					a.settle(app, Choice{})
				}
			})
			return a.Status(), nil
		},
		"check": func(ctx context.Context, raw json.RawMessage, _ func(any)) (any, error) {
			var req CheckRequest
			if err := json.Unmarshal(raw, &req); err != nil {
				return nil, fault.New(fault.Usage, "reading the request: %w", err)
			}
			checks, err := a.Check(ctx, req.Apps)
			if err != nil {
				return nil, err
			}
			return checks, nil
		},
		"update": func(ctx context.Context, raw json.RawMessage, progress func(any)) (any, error) {
			var req UpdateRequest
			if err := json.Unmarshal(raw, &req); err != nil {
				return nil, fault.New(fault.Usage, "reading the request: %w", err)
			}
			relay := newRelay(progress)
			updated, err := a.Update(ctx, req.Apps, req.Choice, req.Wait, relay.send)
			relay.close()
			if err != nil {
				return nil, err
			}
			return updated, nil
		},
		"import": func(ctx context.Context, raw json.RawMessage, progress func(any)) (any, error) {
			var req ImportRequest
			if err := json.Unmarshal(raw, &req); err != nil {
				return nil, fault.New(fault.Usage, "reading the request: %w", err)
			}
			relay := newRelay(progress)
			updated, err := a.Import(ctx, req.Path, relay.send)
			relay.close()
			if err != nil {
				return nil, err
			}
			return updated, nil
		},
		"wish":     command(func(ctx context.Context, r WishRequest) (any, error) { return a.Wish(ctx, r.Apps, r.Wish) }),
		"revert":   command(func(ctx context.Context, r RevertRequest) (any, error) { return a.Revert(ctx, r.App, r.To) }),
		"cache":    command(func(ctx context.Context, _ struct{}) (any, error) { return a.Stored(ctx) }),
		"cache-rm": command(func(ctx context.Context, r DropRequest) (any, error) { return a.Drop(ctx, r.Which) }),
		"peers":    command(func(context.Context, struct{}) (any, error) { return a.peers(), nil }),
		"examine": command(func(context.Context, struct{}) (any, error) {
			return &Examined{Inside: true, Findings: a.cfg.examine()}, nil
		}),
		"report":          command(func(ctx context.Context, _ struct{}) (any, error) { return a.Report(ctx) }),
		"reported":        command(func(ctx context.Context, env json.RawMessage) (any, error) { return nil, a.Reported(ctx, env) }),
		"examine-network": command(func(ctx context.Context, _ struct{}) (any, error) { return a.examineNetwork(ctx), nil }),
		"unban":           command(func(context.Context, struct{}) (any, error) { return a.unban(), nil }),
		"read-join":       command(func(ctx context.Context, _ struct{}) (any, error) { return nil, a.readJoin(ctx) }),
	}
}

// command is f for the control socket.
func command[Request any](f func(context.Context, Request) (any, error)) control.Command {
	return func(ctx context.Context, raw json.RawMessage, _ func(any)) (any, error) {
		var r Request
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fault.New(fault.Usage, "reading the request: %w", err)
		}
		return f(ctx, r)
	}
}

// relay takes progress from a job, which must not wait, to a writer, which may be
// slow: what the writer has no time for is left out.
type relay struct {
	lines chan Progress
	done  chan struct{}

	mu     sync.Mutex // guards closed
	closed bool
}

func newRelay(write func(any)) *relay {
	r := &relay{lines: make(chan Progress, 64), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for p := range r.lines {
			write(p)
		}
	}()
	return r
}

func (r *relay) send(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	select {
	case r.lines <- p:
	default:
	}
}

// close returns when all that was taken is written.
func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	close(r.lines)
	r.mu.Unlock()
	<-r.done
}
