package publisher

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/access"
	"shoal/publisher/api"
	"shoal/publisher/fleet"
	"shoal/publisher/gate"
	"shoal/publisher/metrics"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
	"shoal/publisher/web"
	members "shoal/swarm/fleet"
)

// UIConfig says who may look at the fleet page, the interface and the metrics.
type UIConfig struct {
	// Disabled leaves them out.
	Disabled bool
	// TokensFile holds the tokens that let people in; see [access.Guard]. Empty means that
	// there are none.
	TokensFile string
	// Cert and Key are files of a certificate that browsers trust, in PEM. Who asks for one
	// of its names over TLS gets it instead of the fleet's. Empty means none.
	Cert, Key string
	// Version is the program's, for those who look.
	Version string
}

// ui is what people and programs look at while a publisher serves. Its zero value has
// nothing.
type ui struct {
	view     *view.View
	guard    *access.Guard
	page     *web.Web
	api      *api.API
	metrics  http.Handler
	cert     *tls.Certificate // may be nil
	handlers bool
}

// openCert reads the certificate for browsers; nil when there is none.
func (c *Config) openCert(keyed bool) (*tls.Certificate, error) {
	if c.UI.Disabled || c.UI.Cert == "" && c.UI.Key == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.UI.Cert, c.UI.Key)
	if err != nil {
		return nil, fault.New(fault.Config, "ui.cert: %w", err).Line("Both files are wanted, in PEM: ui.cert and ui.key.").Fact("key", "ui.cert")
	}
	if u, err := parsePublicURL(c.Serve.PublicURL); keyed && err == nil && cert.Leaf.VerifyHostname(u.Hostname()) == nil {
		return nil, fault.New(fault.Config, "ui.cert: it is for %q, the name by which machines reach this publisher", u.Hostname()).
			Line("They would get it instead of the fleet's certificate, and refuse it where they do not trust who signed it.").
			Do("give people another name, such as fleet.%s, and a certificate for that", u.Hostname()).Fact("key", "ui.cert")
	}
	return &cert, nil
}

// openUI makes what people look at, until ctx ends.
func (p *Publisher) openUI(ctx context.Context, s *server, steering *rollout.Controller) (*ui, error) {
	if p.cfg.UI.Disabled {
		return &ui{}, nil
	}
	cert, err := p.cfg.openCert(s.keyed)
	if err != nil {
		return nil, err
	}
	names := []string{}
	if u, err := parsePublicURL(p.cfg.Serve.PublicURL); err == nil {
		names = append(names, u.Hostname())
	}
	if cert != nil {
		names = append(names, cert.Leaf.DNSNames...)
	}
	u := &ui{cert: cert, handlers: true}
	u.guard, err = access.New(access.Config{TokensFile: p.cfg.UI.TokensFile, Keyed: s.keyed, Names: names, Port: s.http.Port(), Clock: p.now, Logger: p.log})
	if err != nil {
		return nil, err
	}
	if u.view, err = p.newView(s, steering); err != nil {
		return nil, err
	}
	u.view.Overview(ctx) // so that the first page waits for nothing; what went wrong is told to who asks
	u.api = api.New(u.view, u.guard, p.log)
	u.metrics = metrics.Handler(u.view, u.guard)
	u.page, err = web.New(web.Config{View: u.view, Guard: u.guard, Done: ctx.Done(), Logger: p.log})
	return u, err
}

// newView is what is to be seen of p while s serves.
func (p *Publisher) newView(s *server, steering *rollout.Controller) (*view.View, error) {
	id, err := p.repo.FleetID()
	if err != nil {
		return nil, err
	}
	return view.New(view.Source{
		Fleet: s.reports, ID: id, Stamp: p.repo.Stamp, Tree: p.repo.Read, Releases: p.viewReleases,
		Rollout: func(ch manifest.Channel) (*rollout.Status, error) { return p.rolloutStatus(steering, s.reports, ch) },
		Do: func(ctx context.Context, cmd rollout.Command) (*rollout.Done, error) {
			return brake(ctx, steering, cmd)
		},
		Torrents: func() []view.Torrent {
			all := []view.Torrent{}
			for _, t := range s.status().Torrents {
				all = append(all, view.Torrent{
					Infohash: t.Infohash, Channel: t.Channel, Version: t.Version, Platform: t.Platform, Length: t.Length,
					Seeding: t.Seeding, Current: t.Current, Given: t.Given, Peers: t.Peers,
				})
			}
			return all
		},
		Given:  func() view.Given { return view.Given{Swarm: s.node.Stats().Given.Sum(), HTTP: s.files.Given()} },
		Copies: func(h manifest.Infohash) []int { return s.node.Copies(h) },
		Clock:  p.now, Started: s.started, Version: p.cfg.UI.Version, Open: !s.keyed || s.openData,
	}), nil
}

// viewReleases are the releases of every channel that can be believed.
func (p *Publisher) viewReleases() ([]view.Release, error) {
	state, err := p.repo.Read()
	if err != nil {
		return nil, err
	}
	all := []view.Release{}
	for i := range state.Channels {
		infos, err := p.Releases(state.Channels[i].Name)
		if err != nil {
			p.log.Warn("releases are not shown", "channel", state.Channels[i].Name.String(), "err", err)
			continue
		}
		for i := range infos {
			all = append(all, viewRelease(&infos[i]))
		}
	}
	return all, nil
}

func viewRelease(r *ReleaseInfo) view.Release {
	v := view.Release{
		Channel: r.Channel, Version: r.Version, Epoch: r.Epoch, Sequence: r.Sequence, Issued: r.Issued, Expires: r.Expires,
		State: r.State, Severity: r.Severity, Notes: r.Notes, Manifest: r.Manifest, Signers: []view.Signer{}, Artifacts: []view.Artifact{},
	}
	for _, s := range r.SignedBy {
		v.Signers = append(v.Signers, view.Signer{Name: s.Name, ID: s.ID})
	}
	for _, a := range r.Artifacts {
		v.Artifacts = append(v.Artifacts, view.Artifact{Platform: a.Platform, Length: a.Length, SHA256: a.SHA256, Infohash: a.Infohash, File: a.File})
	}
	for _, a := range r.Attached {
		v.Attachments = append(v.Attachments, view.Attachment{Name: a.Name, Length: a.Length, SHA256: a.SHA256})
	}
	return v
}

// door is how a listener is answered: plain HTTP, TLS, or each as it comes.
func (u *ui) door(ln *gate.Gate, member *members.Member, scheme string) net.Listener {
	d := gate.Door{Patience: headerTimeout}
	switch {
	case scheme == "https":
		d.TLS = member.Serving()
		if u.handlers {
			d.Plain = netip.Addr.IsLoopback // for the page: no browser trusts the fleet's certificate
		}
		if u.cert == nil {
			break
		}
		theirs := u.tls()
		d.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != "" && u.cert.Leaf.VerifyHostname(hello.ServerName) == nil {
				return theirs, nil
			}
			return nil, nil
		}
	case u.cert != nil:
		d.TLS, d.Plain = u.tls(), func(netip.Addr) bool { return true }
	default:
		return ln
	}
	return d.Listen(ln)
}

func (u *ui) tls() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*u.cert}, NextProtos: []string{"http/1.1"}}
}

// handler is what answers a path, or nil.
func (u *ui) handler(path string) http.Handler {
	switch {
	case !u.handlers:
		return nil
	case path == metrics.Path:
		return u.metrics
	case path == statusPath, path == fleet.ReportsPath: // for whoever may read the tree, and for machines
	case strings.HasPrefix(path, "/api/"):
		return u.api
	case u.page.Has(path):
		return u.page
	}
	return nil
}

// run notices what changes, for those who look on.
func (u *ui) run(ctx context.Context) {
	if u.handlers {
		u.view.Run(ctx)
	}
}

// What the control socket of Serve offers for the fleet page.
const (
	loginCommand    = "ui-login"
	watchersCommand = "ui-watchers" // how many browsers follow it
)

// page is where the fleet page is, for a browser on this machine.
func (s Serving) page() string {
	addr, scheme := s.HTTP, s.Scheme
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	if addr.Addr().IsLoopback() {
		scheme = "http"
	}
	return scheme + "://" + addr.String() + "/"
}

// loginURL is where one can log in once, from this machine.
func (u *ui) loginURL(s Serving, role access.Role) string {
	return s.page() + "login?once=" + u.guard.Once(role)
}

// commands are what the control socket offers for it: who can open that owns the store.
func (u *ui) commands(s Serving) map[string]control.Command {
	login := func(_ context.Context, raw json.RawMessage, _ func(any)) (any, error) {
		var viewer bool
		if err := json.Unmarshal(raw, &viewer); err != nil {
			return nil, fault.New(fault.Usage, "reading the request: %w", err)
		}
		if !u.handlers {
			return nil, fault.New(fault.NotFound, "the running publisher has no fleet page").Line("ui.enabled is false.")
		}
		role := access.Operator
		if viewer {
			role = access.Viewer
		}
		return Login{URL: u.loginURL(s, role), Role: role.String(), Until: u.view.Clock().Add(access.OnceTime).UTC().Truncate(time.Second)}, nil
	}
	watchers := func(context.Context, json.RawMessage, func(any)) (any, error) {
		if !u.handlers {
			return 0, nil
		}
		return u.page.Watchers(), nil
	}
	return map[string]control.Command{loginCommand: login, watchersCommand: watchers}
}

// Login is a way to log in once.
type Login struct {
	URL   string    `json:"url"`
	Role  string    `json:"role"`
	Until time.Time `json:"until"`
}

// Login asks the publisher that serves this store for a URL with which somebody can log in
// once, to the fleet page, as an operator or as a viewer. Code not_found when none serves.
func (p *Publisher) Login(ctx context.Context, viewer bool) (*Login, error) {
	client, err := control.Dial(ctx, p.cfg.Store, "publisher")
	if err != nil {
		return nil, fault.New(fault.NotFound, "no publisher serves %q: %w", p.cfg.Store, err).Do("shoal serve")
	}
	var l Login
	return &l, client.Do(ctx, loginCommand, viewer, nil, &l)
}
