// Package agent keeps the programs of one machine on what their channels ask for.
//
// It follows each app's channel, decides from the signed manifest alone what should
// run here and when, fetches it from its neighbours, verifies it, puts it in place of
// the old program, confirms that it is well or puts the old one back, and goes on
// serving what it has. Whatever it is told by the network is a hint until package
// manifest has verified it; whatever goes wrong, the program that ran keeps running.
package agent

import (
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"shoal/agent/self"
	"shoal/agent/window"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// Defaults of a zero [Config].
const (
	DefaultListen          = ":7801"
	DefaultCheckEvery      = 15 * time.Minute
	DefaultJitter          = 0.2
	DefaultSeedAfterUpdate = 24 * time.Hour
	DefaultKeep            = 2
)

// Config is what one agent is told by its operator. The zero value of every field
// but StateDir is useful.
type Config struct {
	// StateDir holds what the agent must not forget. It must be set.
	StateDir string
	// JoinFile is where the pin is kept; empty means join.json in StateDir.
	JoinFile string
	// AnchorFile is the second copy of what is trusted; empty means anchor.json in StateDir.
	AnchorFile string
	// CacheDir holds downloads; empty means cache in StateDir.
	CacheDir string

	// FleetID is only compared with the pin in JoinFile; empty compares nothing.
	FleetID string
	// FleetKeyFile holds the fleet's key, and FleetCredentials is the directory in which a
	// service manager hands one over, which goes before it. Without either the fleet is
	// open: strangers can read what this machine gives to neighbours.
	FleetKeyFile, FleetCredentials string
	// FleetKeys, unless nil, count instead of both; [Join] writes them to FleetKeyFile.
	FleetKeys *fleet.Keys
	// Apps are the programs kept up to date; names are unique.
	Apps []AppConfig
	// Sources are where documents come from.
	Sources Sources

	// Listen is the swarm's host:port; empty means [DefaultListen], port 0 any free port.
	Listen string
	// Peers are host:port of peers known for ever.
	Peers []string
	// Origins are host:port of the publisher's swarm listeners, so that bytes are
	// counted under the right source. Empty means those of Peers that live on a
	// publisher's or mirror's host.
	Origins []string
	// Trackers are announce URLs; empty means /announce below every source.
	Trackers []string

	// Check says how often sources are asked.
	Check CheckConfig
	// Reports says who is told how this machine stands.
	Reports ReportsConfig
	// Time is "system" (also empty) or "floor", for machines whose clock nobody should trust.
	Time string
	// Labels are this machine's own words about itself; the ones named "ring" place it in a rollout's rings.
	Labels []Label
	// Limits bound the swarm.
	Limits Limits
	// Disk bounds the cache.
	Disk Disk
	// SeedAfterUpdate is how long a replaced release is still given to neighbours; zero
	// means [DefaultSeedAfterUpdate]. What is installed is given for as long as the agent runs.
	SeedAfterUpdate time.Duration

	// Prefetch is "auto" (also empty), for fetching a release before this machine's wave
	// opens, where the wave is large and near, or "off", as for links that are paid by volume.
	Prefetch string

	// Self says how this agent replaces itself.
	Self SelfConfig

	// Platform is what artifacts are chosen for; zero means this machine.
	Platform manifest.Platform
	// Version is the running build's, compared with a manifest's min_agent.
	Version string
	// Build is when this build was made; a floor for the clock. Zero means unknown.
	Build time.Time
	// Clock tells the time; nil means the system's.
	Clock manifest.Clock
	// Logger receives progress. If nil, nothing is logged.
	Logger *slog.Logger

	// idle replaces the time without a byte from peers, and direct the time a source may
	// take for a payload, in tests.
	idle, direct time.Duration
}

// Sources are base URLs of static trees. A path or a file: URL names a directory.
type Sources struct {
	Publisher string
	Mirrors   []string
	LAN       swarm.LAN // which neighbours are looked for, for what the trees name
}

// CheckConfig says how often sources are asked.
type CheckConfig struct {
	Every  time.Duration // mean time between checks; zero means [DefaultCheckEvery]
	Jitter float64       // share of Every by which a check may be early or late, 0..1; zero means [DefaultJitter]
}

// ReportsConfig says who is told how this machine stands.
type ReportsConfig struct {
	Disabled bool
	To       []string      // base URLs of publishers that serve; empty means the one of Sources, if it is one
	Every    time.Duration // mean time between two reports when nothing changes; zero means [report.DefaultEvery]
}

// Limits bound the swarm; bytes per second, zero is no limit.
type Limits struct {
	Up, Down, LANUp, LANDown int64
	Peers                    int // neighbours per release; zero is a default
}

// Disk bounds the cache; bytes, zero is no bound.
type Disk struct {
	Cache   int64 // size of the cache
	Reserve int64 // what is left free on its filesystem
}

// Label is a name and a value.
type Label struct{ Name, Value string }

// SelfConfig says how an agent replaces the program it runs from, which an app of its
// configuration may have as its target.
type SelfConfig struct {
	// Program is what this process runs from; nil means that it is no app's target.
	Program *self.Program
	// Check are the arguments that a new version is tried with, before it is swapped in.
	Check []string
	// Settle is how long a new version must run before it is confirmed; zero means
	// [self.DefaultSettle].
	Settle time.Duration
}

// AppConfig is one program kept up to date.
type AppConfig struct {
	Name    string // the app's name in the channel
	Channel string
	Target  string // absolute path of what is replaced; see apply.Target for what it is of other kinds
	Kind    string // must equal the artifact's: "binary" (also when empty), "tree" or "installer"
	Variant string // chosen artifact variant; empty means none

	Service ServiceConfig
	Health  HealthConfig
	Hooks   HooksConfig

	Installer InstallerConfig // for kind installer

	Keep             int        // previous versions kept beside the target; zero means [DefaultKeep]
	Windows          window.Set // when an update may begin; empty means any time
	Swap             string     // "rename" (also empty) or "selfupdate"
	RefuseInstall    bool       // a missing target is an error instead of a first install
	AllowInsecureDir bool       // the target's directory may be writable by others
}

// ServiceConfig says what runs the program; the zero value means nothing does.
type ServiceConfig struct {
	Systemd string         // a unit
	Launchd string         // the label of a system-wide job, on macOS
	Windows string         // a Windows service
	Command ServiceCommand // argument lists
}

// ServiceCommand controls a service by running programs, never through a shell.
type ServiceCommand struct{ Start, Stop, Restart, Status []string }

// HealthConfig says when a new version is well.
type HealthConfig struct {
	Type      string // "none", "stay-up", "command", "http" or "tcp"; empty is "stay-up" with a service, else "none"
	Command   []string
	URL       string
	Address   string
	Timeout   time.Duration
	Interval  time.Duration
	Successes int
	Require   bool // a check that failed before the swap too still decides
}

// InstallerConfig are the programs that install packages, as argument lists with {file}
// where the package's path is to stand; see [apply.Installer].
type InstallerConfig struct {
	Command, Revert     []string
	Success, RetryLater []int // exit statuses
	Idempotent          bool
	Timeout             time.Duration
}

// HooksConfig are programs run around an update; each is an argument list.
type HooksConfig struct {
	Pre, Post, OnRevert []string
	Timeout             time.Duration
}

// Channel is the channel the app follows.
func (a AppConfig) channel() manifest.Channel {
	return manifest.Channel{App: a.Name, Name: a.Channel}
}

// WithDefaults returns c with every zero replaced by its default, or what is wrong with it
// as a [fault.Error] with code config.
func (c Config) WithDefaults() (Config, error) {
	if c.StateDir == "" {
		return c, fault.New(fault.Config, "no state directory is set").Do("--state DIR")
	}
	dir, err := filepath.Abs(c.StateDir)
	if err != nil {
		return c, fault.New(fault.Config, "state directory %q: %w", c.StateDir, err)
	}
	c.StateDir = dir
	setString(&c.JoinFile, filepath.Join(dir, "join.json"))
	setString(&c.AnchorFile, filepath.Join(dir, "anchor.json"))
	setString(&c.CacheDir, filepath.Join(dir, "cache"))
	setString(&c.Listen, DefaultListen)
	setString(&c.Time, "system")
	if c.Check.Every == 0 {
		c.Check.Every = DefaultCheckEvery
	}
	if c.Check.Jitter == 0 {
		c.Check.Jitter = DefaultJitter
	}
	if c.SeedAfterUpdate == 0 {
		c.SeedAfterUpdate = DefaultSeedAfterUpdate
	}
	if c.Platform == (manifest.Platform{}) {
		c.Platform = manifest.Host()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Apps = append([]AppConfig(nil), c.Apps...)
	for i := range c.Apps {
		setString(&c.Apps[i].Kind, manifest.KindBinary)
		if c.Apps[i].Keep == 0 {
			c.Apps[i].Keep = DefaultKeep
		}
	}
	return c, c.validate()
}

func setString(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

func (c Config) validate() error {
	bad := func(format string, args ...any) error { return fault.New(fault.Config, format, args...) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return bad("listen %q is not host:port", c.Listen).(*fault.Error).Do(`listen: ":7801"`)
	}
	if err := c.Sources.LAN.Validate(); err != nil {
		return bad("sources.lan.interfaces: %w", err)
	}
	if c.Check.Every < time.Second {
		return bad("check.every %s is below one second", c.Check.Every)
	}
	if c.Check.Jitter < 0 || c.Check.Jitter > 1 {
		return bad("check.jitter %v is not a share between 0 and 1", c.Check.Jitter)
	}
	for _, to := range c.Reports.To {
		if u, err := url.Parse(to); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return bad("reports.to: %q is not a base URL such as https://updates.acme.lan:7800", to)
		}
	}
	if c.Reports.Every < 0 || c.Reports.Every > 0 && c.Reports.Every < time.Second {
		return bad("reports.every %s is below one second", c.Reports.Every)
	}
	switch c.Prefetch {
	case "", "auto", "off":
	default:
		return bad("prefetch %q is neither auto nor off", c.Prefetch)
	}
	if c.Time != "system" && c.Time != "floor" {
		return bad("time %q is neither system nor floor", c.Time)
	}
	if c.FleetKeys != nil && c.FleetKeyFile == "" {
		return bad("a fleet key is given, and no file to keep it in").(*fault.Error).Do("fleet_key_file: /etc/shoal/fleet.key")
	}
	if c.FleetID != "" {
		if _, err := manifest.ParsePrefixed(c.FleetID); err != nil {
			return bad("fleet_id %q is not sha256:<64 hex digits>", c.FleetID)
		}
	}
	for _, p := range append(append([]string(nil), c.Peers...), c.Origins...) {
		if _, _, err := net.SplitHostPort(p); err != nil {
			return bad("peer %q is not host:port", p)
		}
	}
	for _, u := range c.Trackers {
		if p, err := url.Parse(u); err != nil || (p.Scheme != "http" && p.Scheme != "https" && p.Scheme != "udp") {
			return bad("tracker %q is not an http, https or udp URL", u)
		}
	}
	names := map[string]bool{}
	targets := map[string]string{}
	for _, a := range c.Apps {
		if err := a.validate(); err != nil {
			return err
		}
		if names[a.Name] {
			return bad("app %q is configured twice", a.Name)
		}
		names[a.Name] = true
		target := filepath.Clean(a.Target)
		if other, ok := targets[target]; ok {
			return bad("apps %q and %q have the same target %q", other, a.Name, a.Target)
		}
		targets[target] = a.Name
		if c.Self.Program.Is(a.Target) && !a.leavesItself() {
			return bad("app %q is this agent itself: it restarts and checks itself, so service, health and swap are not to be set", a.Name)
		}
	}
	return nil
}

func (a AppConfig) validate() error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Config, "app %q: "+format, append([]any{a.Name}, args...)...)
	}
	if _, err := manifest.ParseChannel(a.Name + "/" + a.Channel); err != nil || strings.Contains(a.Channel, "/") {
		return bad("%q is not a channel name", a.Name+"/"+a.Channel)
	}
	if !filepath.IsAbs(a.Target) {
		return bad("target %q is not an absolute path", a.Target)
	}
	switch a.Kind {
	case manifest.KindBinary, manifest.KindTree, manifest.KindInstaller:
	default:
		return bad("kind %q is not one this agent can install (binary, tree, installer)", a.Kind)
	}
	if in := a.Installer; a.Kind != manifest.KindInstaller && len(in.Command)+len(in.Revert) > 0 {
		return bad("installer goes with kind installer")
	}
	if a.Kind != manifest.KindBinary && a.Swap != "" {
		return bad("swap is for binaries alone")
	}
	if a.Keep < 0 {
		return bad("keep %d is negative", a.Keep)
	}
	if a.Swap != "" && a.Swap != "rename" && a.Swap != "selfupdate" {
		return bad("swap %q is neither rename nor selfupdate", a.Swap)
	}
	return nil
}

// announceURLs are the trackers, or where the sources have one.
func (c Config) announceURLs() []string {
	if len(c.Trackers) > 0 {
		return c.Trackers
	}
	var urls []string
	for _, ref := range c.sourceRefs() {
		if u, err := url.Parse(ref); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
			urls = append(urls, u.JoinPath("announce").String())
		}
	}
	return urls
}

// origins are the publisher's swarm listeners, as far as they are known: what the
// configuration says, else the peers on the host of a source.
func (c Config) origins() []string {
	if len(c.Origins) > 0 {
		return c.Origins
	}
	hosts := map[string]bool{}
	for _, ref := range c.sourceRefs() {
		if u, err := url.Parse(ref); err == nil && u.Hostname() != "" {
			hosts[u.Hostname()] = true
		}
	}
	var origins []string
	for _, p := range c.Peers {
		if host, _, err := net.SplitHostPort(p); err == nil && hosts[host] {
			origins = append(origins, p)
		}
	}
	return origins
}

// anyPort is listen with a port that the system chooses.
func anyPort(listen string) string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		host = ""
	}
	return net.JoinHostPort(host, "0")
}
