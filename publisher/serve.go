package publisher

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/publisher/access"
	"shoal/publisher/fleet"
	"shoal/publisher/gate"
	"shoal/publisher/origin"
	"shoal/publisher/rollout"
	"shoal/publisher/tracker"
	"shoal/swarm"
)

const (
	headerTimeout   = 15 * time.Second // a TLS handshake must be done by then, and then a request's head be here
	bodyTimeout     = 10 * time.Second // and its body, where one is taken
	answerTimeout   = 60 * time.Second // a document must be taken by then; a payload has its own rule
	idleTimeout     = 30 * time.Second // a connection without a request is kept this long
	maxConns        = 4096             // connections at a time
	maxConnsFrom    = 512              // of one address; a site behind one is many machines
	maxHeader       = 16 << 10
	shutdownTimeout = 5 * time.Second // for answers under way when Serve ends
)

// Serving says where an origin serves.
type Serving struct {
	HTTP  netip.AddrPort // documents, data, tracker
	Swarm netip.AddrPort // BitTorrent
	Seeds int            // payloads given away

	Scheme   string // of HTTP: "http" or "https"
	Keyed    bool   // the fleet has a key
	OpenData bool   // and strangers read its releases all the same
	Steers   bool   // it has the beacon key, and opens gates
	Page     string // URL of the fleet page, on this machine; empty when there is none
	// Login returns where one can log in once, as an operator, to the fleet page. It is nil
	// when there is none.
	Login func() string
}

// Serve is the origin: it serves the repository's tree over HTTP, seeds what current
// manifests offer and answers for it as a tracker. In a fleet with a key all of that is
// for members alone, over TLS. What is published while it runs is served within about a
// second. With the beacon's key it steers the rollouts. It returns when ctx is done, with nil, or when it
// cannot go on. ready, unless nil, is called once, when all that is published already
// is served.
func (p *Publisher) Serve(ctx context.Context, ready func(Serving)) error {
	listen, swarmListen := p.cfg.Serve.Listen, p.cfg.Serve.Swarm
	if listen == "" {
		listen = DefaultListen
	}
	if swarmListen == "" {
		swarmListen = DefaultSwarm
	}
	member, err := p.cfg.member(p.cfg.Store)
	if err != nil {
		return err
	}
	if member != nil {
		if err := p.cfg.checkKeyed(); err != nil {
			return err
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return portError(listen, "serve.listen", "--listen", err)
	}
	defer ln.Close()
	node, err := swarm.New(swarm.Config{
		Listen: swarmListen, Fleet: member, SuperSeed: true, Limits: swarm.Limits{Up: p.cfg.Serve.Up, LANUp: p.cfg.Serve.Up},
		LAN: p.cfg.Serve.LAN, Logger: p.log,
	})
	if err != nil {
		var busy *swarm.PortError
		if errors.As(err, &busy) {
			return portError(swarmListen, "serve.swarm", "--swarm", err)
		}
		return fault.New(fault.IO, "starting the origin seed: %w", err)
	}
	defer node.Close()
	// A command that looks at the reports, or steers once, has them for a moment.
	reports, err := turn.Service(ctx, p.cfg.Store, p.openReports)
	if err != nil {
		return err
	}
	defer reports.Close()
	hooks, err := p.hooks(reports)
	if err != nil {
		return err
	}
	var steering *rollout.Controller
	if key := p.cfg.Serve.Beacon; key != nil {
		if steering, err = turn.Service(ctx, p.cfg.Store, func() (*rollout.Controller, error) { return p.openController(key, reports) }); err != nil {
			return err
		}
		defer steering.Close()
	}
	commands, err := control.Listen(p.cfg.Store)
	if err != nil {
		return fault.New(fault.IO, "listening for commands: %w", err)
	}
	defer commands.Close()
	files, err := origin.Open(p.Tree(), p.cfg.Serve.Up)
	if err != nil {
		return fault.New(fault.IO, "opening the tree: %w", err)
	}
	defer files.Close()

	where := newAddresses(p.cfg.Serve.PublicURL, node.Addr())
	s := &server{
		p: p, node: node, files: files, started: p.now(),
		tracker: tracker.New(tracker.Config{Origin: where.from}),
		seeds:   newSeeds(p, node),
		reports: reports,
		http:    addrPort(ln.Addr()),
		keyed:   member != nil, openData: p.cfg.Serve.OpenData,
	}
	serving := Serving{
		HTTP: s.http, Swarm: node.Addr(), Scheme: p.cfg.scheme(s.keyed), Keyed: s.keyed, OpenData: s.keyed && s.openData,
		Steers: steering != nil,
	}
	if s.ui, err = p.openUI(ctx, s, steering); err != nil {
		return err
	}
	if s.ui.handlers {
		serving.Page = serving.page()
		serving.Login = func() string { return s.ui.loginURL(serving, access.Operator) }
	}
	doors := gate.New(ln, maxConns, maxConnsFrom)
	door := s.ui.door(doors, member, serving.Scheme)
	web := &http.Server{
		Handler: doors.Handler(s), ConnContext: doors.ConnContext,
		ReadHeaderTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}

	told := reports.Commands()
	maps.Copy(told, p.steeringCommands(steering, reports))
	maps.Copy(told, s.ui.commands(serving))
	g, ctx := errgroup.WithContext(ctx)
	local := &http.Server{
		Handler: control.Handler(told), ReadHeaderTimeout: headerTimeout,
		BaseContext: func(net.Listener) context.Context { return ctx }, // who waits for news does not keep us
	}
	g.Go(func() error {
		if err := local.Serve(commands); !errors.Is(err, http.ErrServerClosed) {
			return fault.New(fault.IO, "listening for commands: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		if err := web.Serve(door); !errors.Is(err, http.ErrServerClosed) {
			return fault.New(fault.IO, "serving HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		for _, srv := range []*http.Server{local, web} {
			if err := srv.Shutdown(end); err != nil {
				srv.Close() // whoever is still reading has had its time
			}
		}
		return nil
	})
	g.Go(func() error { where.follow(ctx); return nil })
	g.Go(func() error { s.ui.run(ctx); return nil })
	g.Go(func() error { p.watchExpiry(ctx, reports); return nil })
	if hooks != nil {
		g.Go(func() error { hooks.Run(ctx); return nil })
	}
	if steering != nil {
		g.Go(func() error { steering.Run(ctx); return nil })
	}
	g.Go(func() error {
		s.seeds.follow(ctx, s.tracker, func() {
			serving.Seeds = s.seeds.count()
			p.log.Info("serving", "scheme", serving.Scheme, "http", s.http.String(), "swarm", node.Addr().String(), "seeds", serving.Seeds)
			if serving.OpenData {
				p.log.Warn("strangers may read every release", "because", "serve.open_data")
			}
			s.ready.Store(true)
			if ready != nil {
				ready(serving)
			}
		})
		return nil
	})
	return g.Wait()
}

// FleetConfig is the store of what the fleet's machines report.
func (p *Publisher) FleetConfig() (fleet.Config, error) {
	repo, err := p.repo.FleetID()
	return fleet.Config{Dir: p.cfg.Store, Repo: repo, Approve: p.cfg.Approve, Clock: p.cfg.Clock, Logger: p.log}, err
}

func (p *Publisher) openReports() (*fleet.Store, error) {
	cfg, err := p.FleetConfig()
	if err != nil {
		return nil, err
	}
	return fleet.Open(cfg)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
