package publisher

import (
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/hook"
	"shoal/publisher/rollout"
	"shoal/swarm"
)

// Where a publisher listens by default.
const (
	DefaultListen = ":7800" // HTTP: documents, data, tracker
	DefaultSwarm  = ":7801" // BitTorrent
)

// Config is what a publisher is told by its operator.
type Config struct {
	// Store is the directory of the repository. It must be set.
	Store string
	// App is the app meant where a request names only a channel. It may be empty when
	// root has one app.
	App string
	// Keys say who signs.
	Keys KeysConfig
	// Channels holds the habits of channels; a channel of root need not be in it.
	Channels []ChannelConfig
	// Serve says how releases are given away.
	Serve ServeConfig
	// Approve is whose reports count: "manual", also when empty, for those of keys that a
	// person has approved, or "members" for whoever reports over the fleet's TLS too.
	Approve string
	// Webhooks are told what happens in the fleet, while Serve runs.
	Webhooks []hook.Config
	// UI says who may look at the fleet page.
	UI UIConfig
	// Mirrors are other places that serve copies of the repository: base URLs, or
	// directories. What they have is compared before anything is signed.
	Mirrors []string
	// FleetKeyFile holds the fleet's key, and FleetCredentials is the directory in which a
	// service manager hands one over, which goes before it. Without either the fleet is
	// open: strangers can read what it releases.
	FleetKeyFile, FleetCredentials string
	// Logger receives what Serve does. If nil, nothing is logged.
	Logger *slog.Logger
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
}

// KeysConfig names keys, by reference as keys.Open takes it, with paths that are
// absolute or relative to the working directory. Opening them is the caller's business.
type KeysConfig struct {
	// Release keys sign releases when a request names no key.
	Release []string
	// Beacon signs beacons; may be empty.
	Beacon string
	// PassphraseFile holds their passphrase where nobody can be asked; may be empty.
	PassphraseFile string
}

// ChannelConfig is the habits of one channel.
type ChannelConfig struct {
	// Name is the channel's, without the app. It must be set, and unique.
	Name string
	// Expires is how long a release stays believed; zero means as long as root allows.
	Expires time.Duration
	// Rollout is the plan of releases that come without one; the zero value is everyone at
	// once.
	Rollout rollout.Plan
}

// ServeConfig says how releases are given away.
type ServeConfig struct {
	// Listen is where HTTP is served, "host:port"; empty means DefaultListen.
	Listen string
	// Swarm is where the origin seed listens, "host:port"; empty means DefaultSwarm.
	Swarm string
	// PublicURL is how machines reach Listen, "https://host:port". Empty: join links need
	// it said, and peers are sent to the address at which they reached us.
	PublicURL string
	// TLS is "auto", also when empty: HTTPS, with the fleet's own certificates, in a fleet
	// with a key. "off" is HTTP, where nobody can show to be of the fleet.
	TLS string
	// OpenData lets strangers read the tree in a fleet with a key, not the tracker.
	OpenData bool
	// Up bounds what is given away, in bytes per second: to peers on the LAN, to peers
	// elsewhere and over HTTP, each. Zero is no bound.
	Up int64
	// LAN says whether and where machines on the publisher's own networks are looked for.
	LAN swarm.LAN
	// Beacon signs beacons: Serve then steers the rollouts of the channels whose root names
	// it. If nil, nobody does.
	Beacon keys.Signer
}

// Validate reports what is wrong with c, with the code config.
func (c *Config) Validate() error {
	bad := func(key, format string, args ...any) error {
		return fault.New(fault.Config, key+": "+format, args...).Fact("key", key)
	}
	if c.Store == "" {
		return bad("store", "the directory of the repository is not set")
	}
	if c.App != "" && !manifest.ValidName(c.App) {
		return bad("app", "%q is not a name: a-z, 0-9, dot, underscore and hyphen", c.App)
	}
	seen := map[string]bool{}
	for _, ch := range c.Channels {
		switch {
		case !manifest.ValidName(ch.Name):
			return bad("channels", "%q is not a name: a-z, 0-9, dot, underscore and hyphen", ch.Name)
		case seen[ch.Name]:
			return bad("channels", "%q is there twice", ch.Name)
		case ch.Expires < 0 || ch.Expires%time.Second != 0:
			return bad("channels", "%q expires after %s: whole seconds are wanted, or 0 for as long as root allows", ch.Name, ch.Expires)
		}
		if _, err := ch.Rollout.Rollout(true, true, time.Time{}); err != nil {
			return bad("channels", "%q: rollout: %w", ch.Name, err)
		}
		seen[ch.Name] = true
	}
	for _, listen := range []struct{ key, addr string }{{"serve.listen", c.Serve.Listen}, {"serve.swarm", c.Serve.Swarm}} {
		if listen.addr == "" {
			continue
		}
		_, port, err := net.SplitHostPort(listen.addr)
		if err != nil {
			return bad(listen.key, "%q is not host:port", listen.addr)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return bad(listen.key, "%q has no port between 0 and 65535", listen.addr)
		}
	}
	if c.Serve.PublicURL != "" {
		if _, err := parsePublicURL(c.Serve.PublicURL); err != nil {
			return bad("serve.public_url", "%w", err)
		}
	}
	if err := c.Serve.LAN.Validate(); err != nil {
		return bad("serve.lan.interfaces", "%w", err)
	}
	switch c.Serve.TLS {
	case "", "auto", "off":
	default:
		return bad("serve.tls", "%q is neither auto nor off", c.Serve.TLS)
	}
	if (c.UI.Cert == "") != (c.UI.Key == "") {
		return bad("ui.cert", "ui.cert and ui.key go together")
	}
	for i := range c.Webhooks {
		if err := c.Webhooks[i].Validate(); err != nil {
			return bad("webhooks", "number %d: %w", i+1, err)
		}
	}
	switch c.Approve {
	case "", fleet.ApproveManual, fleet.ApproveMembers:
	default:
		return bad("approve", "%q is neither manual nor members", c.Approve)
	}
	if c.FleetKeyFile != "" {
		if err := c.checkKeyed(); err != nil {
			return err
		}
	}
	for _, m := range c.Mirrors {
		if _, err := parsePublicURL(m); m == "" || err != nil && strings.Contains(m, "://") {
			return bad("mirrors", "%q is neither a base URL such as https://mirror.acme.lan/shoal nor a directory", m)
		}
	}
	if c.Serve.Up < 0 {
		return bad("serve.up", "%d is not a rate", c.Serve.Up)
	}
	return nil
}

// checkKeyed reports what is wrong with c for a fleet with a key.
func (c *Config) checkKeyed() error {
	off := c.Serve.TLS == "off"
	switch {
	case off && !c.Serve.OpenData:
		return fault.New(fault.Config, "serve.tls: off leaves no way to tell the fleet's machines from strangers").
			Line("This fleet has a key, and what is served is for its machines alone.").
			Do("leave serve.tls at auto").
			Do("or say that strangers may read every release: serve.open_data: true, or --open-data").Fact("key", "serve.tls")
	case !off && strings.HasPrefix(c.Serve.PublicURL, "http://"):
		return fault.New(fault.Config, "serve.public_url: %q would be answered over https only", c.Serve.PublicURL).
			Line("This fleet has a key, and its publisher serves with a certificate of the fleet.").
			Do("serve.public_url: %q", "https"+strings.TrimPrefix(c.Serve.PublicURL, "http")).Fact("key", "serve.public_url")
	}
	return nil
}

// scheme is what Serve speaks.
func (c *Config) scheme(keyed bool) string {
	if keyed && c.Serve.TLS != "off" {
		return "https"
	}
	return "http"
}

// Places are where copies of the repository are served: the mirrors, and Serve itself
// under its public URL.
func (c *Config) Places() []string {
	places := slices.Clone(c.Mirrors)
	if c.Serve.PublicURL != "" && !slices.Contains(places, c.Serve.PublicURL) {
		places = append(places, c.Serve.PublicURL)
	}
	return places
}

// parsePublicURL checks the base URL that machines are given.
func parsePublicURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Usage, "%q is not a base URL such as https://updates.acme.lan:7800", s)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// habits are those of ch: what holds when a request does not say.
func (c *Config) habits(ch manifest.Channel) ChannelConfig {
	if c.App == "" || c.App == ch.App {
		for _, habit := range c.Channels {
			if habit.Name == ch.Name {
				return habit
			}
		}
	}
	return ChannelConfig{}
}
