package publisher

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/internal/fault"
	"shoal/publisher/origin"
	"shoal/publisher/tracker"
	"shoal/swarm"
)

const (
	headerTimeout   = 5 * time.Second  // a request's head must be here by then
	answerTimeout   = 60 * time.Second // a document must be taken by then; a payload has its own rule
	idleTimeout     = 30 * time.Second // a connection without a request is kept this long
	maxHeader       = 16 << 10
	shutdownTimeout = 5 * time.Second // for answers under way when Serve ends
)

// Serving says where an origin serves.
type Serving struct {
	HTTP  netip.AddrPort // documents, data, tracker
	Swarm netip.AddrPort // BitTorrent
	Seeds int            // payloads given away
}

// Serve is the origin: it serves the repository's tree over HTTP, seeds what current
// manifests offer and answers for it as a tracker. What is published while it runs is
// served within about a second. It returns when ctx is done, with nil, or when it
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
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return portError(listen, "serve.listen", "--listen", err)
	}
	defer ln.Close()
	node, err := swarm.New(swarm.Config{
		Listen: swarmListen, SuperSeed: true, Limits: swarm.Limits{Up: p.cfg.Serve.Up, LANUp: p.cfg.Serve.Up}, Logger: p.log,
	})
	if err != nil {
		var busy *swarm.PortError
		if errors.As(err, &busy) {
			return portError(swarmListen, "serve.swarm", "--swarm", err)
		}
		return fault.New(fault.IO, "starting the origin seed: %w", err)
	}
	defer node.Close()
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
		http:    addrPort(ln.Addr()),
	}
	web := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fault.New(fault.IO, "serving HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := web.Shutdown(end); err != nil {
			web.Close() // whoever is still reading has had its time
		}
		return nil
	})
	g.Go(func() error { where.follow(ctx); return nil })
	g.Go(func() error {
		s.seeds.follow(ctx, s.tracker, func() {
			p.log.Info("serving", "http", s.http.String(), "swarm", node.Addr().String(), "seeds", s.seeds.count())
			s.ready.Store(true)
			if ready != nil {
				ready(Serving{HTTP: s.http, Swarm: node.Addr(), Seeds: s.seeds.count()})
			}
		})
		return nil
	})
	return g.Wait()
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
