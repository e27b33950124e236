// Package deliverycmd has the verbs by which what is published gets about: serve, link,
// mirror and bundle at the publisher's, fetch and seed anywhere else. None of them signs a
// release, and none installs one.
package deliverycmd

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/units"
	"shoal/publisher"
	"shoal/publisher/fleet"
)

// Serve is shoal serve.
func Serve(c *cli.CLI) *cobra.Command {
	var up units.Size
	var beacon string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Give releases away: origin seed, tracker and files over HTTP",
		Example: `  shoal serve
  shoal serve --listen :7800 --swarm :7801 --public-url https://updates.acme.lan:7800 --up 50MB`,
		Long: `It signs no release. What is published while it runs is served within about a second. It runs until
it is interrupted.

With a beacon key it steers the rollouts: it opens the gates of a signed plan while the machines that
went before are well, and holds the release when they fail. That key can do no more.

In a fleet with a key it speaks https, with a certificate of the fleet, and everything but /healthz is
for machines that present one, too: others get 403. --open-data lets everyone read the files.

  /m /info /data /releases ...   the repository, as any web server could serve it
  /announce /scrape              BitTorrent tracker for this repository's releases
  /healthz                       200 once everything published is served
  /api/v1/status                 what is given away, as JSON

People and programs look at the fleet on the same port: on this machine, in an open fleet, without a token,
and otherwise with one of ui.tokens_file. On a terminal a link for one login as an operator is printed;
shoal fleet login prints another.

  / /agents /releases /swarm /audit   the fleet page
  /api/openapi.yaml /api/v1/...       the same as JSON
  /metrics                            the same for Prometheus`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			if cfg.Serve.Beacon, err = publishing.Beacon(cmd.Context(), c, beacon, cfg.Keys.Beacon); err != nil {
				return err
			}
			if cfg.Keys.Beacon != "" && cfg.Serve.Beacon == nil {
				c.Warn("keys.beacon: %s is not here: no gate is opened, and nothing is held by itself", cfg.Keys.Beacon)
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			if cfg.Serve.OpenData && cfg.FleetKeyFile != "" {
				c.Warn("--open-data: whoever reaches this publisher can read every release, although the fleet has a key")
			}
			if cfg.Approve == fleet.ApproveMembers && cfg.FleetKeyFile == "" {
				c.Warn("approve: members counts no machine: this fleet has no key, so nobody is a member")
			}
			return p.Serve(cmd.Context(), func(s publisher.Serving) { serving(c, cfg, s) })
		},
	}
	f := cmd.Flags()
	f.String("listen", "", "serve HTTP on `HOST:PORT` (:7800)")
	f.String("swarm", "", "serve BitTorrent on `HOST:PORT` (:7801)")
	f.String("public-url", "", "how machines reach this: `URL`")
	f.Bool("open-data", false, "in a fleet with a key: let strangers read every release")
	f.StringVar(&beacon, "beacon-key", "", "steer the rollouts with this key: `REF` (keys.beacon)")
	c.PassphraseFlag(cmd)
	f.Bool("ui", true, "serve the fleet page, its interface and /metrics")
	f.Var(&up, "up", "give at most this much per second (no limit)")
	cli.ConfigFlag(cmd, "listen", "serve.listen")
	cli.ConfigFlag(cmd, "swarm", "serve.swarm")
	cli.ConfigFlag(cmd, "public-url", "serve.public_url")
	cli.ConfigFlag(cmd, "open-data", "serve.open_data")
	cli.ConfigFlag(cmd, "ui", "ui.enabled")
	cli.ConfigFlag(cmd, "up", "serve.up")
	return cmd
}

// serving tells where the publisher serves, once it does.
func serving(c *cli.CLI, cfg publisher.Config, s publisher.Serving) {
	url := cfg.Serve.PublicURL
	if url == "" {
		url = s.Scheme + "://" + reachable(s.HTTP).String()
	}
	out := struct {
		URL      string `json:"url"`
		HTTP     string `json:"http"`
		Swarm    string `json:"swarm"`
		Seeds    int    `json:"seeds"`
		FleetKey bool   `json:"fleet_key"` // members alone are served
		OpenData bool   `json:"open_data,omitempty"`
		Steers   bool   `json:"steers"`         // it has the beacon key
		Page     string `json:"page,omitempty"` // the fleet page, on this machine
	}{url, s.HTTP.String(), s.Swarm.String(), s.Seeds, s.Keyed, s.OpenData, s.Steers, s.Page}
	err := c.Print("shoal.serving/v1", out, func(w io.Writer) {
		fmt.Fprintf(w, "Serving %s   BitTorrent on %s   %d payload(s)\n", url, s.Swarm, s.Seeds)
		switch {
		case s.OpenData:
			fmt.Fprintf(w, "Strangers can READ EVERY RELEASE here (serve.open_data); peers are the fleet's machines alone\n")
		case s.Keyed:
			fmt.Fprintf(w, "Only machines with the fleet key get anything\n")
		default:
			fmt.Fprintf(w, "Status: %s/api/v1/status      The fleet is open: strangers can read releases\n", url)
		}
		if s.Steers {
			fmt.Fprintf(w, "It has the beacon key, and steers the rollouts: shoal rollout status\n")
		}
		if s.Login != nil {
			// The link lets in whoever has it, so it goes to a person and into no log.
			if c.OutTTY {
				fmt.Fprintf(w, "Fleet page: %s   (one login, as operator)\n", s.Login())
			} else {
				fmt.Fprintf(w, "Fleet page: %s      Log in: shoal fleet login\n", s.Page)
			}
		}
		fmt.Fprintf(w, "Next: shoal link create      Stop: Ctrl-C\n")
	})
	if err != nil {
		c.Warn("%v", err) // nobody reads; serving goes on
	}
}

// reachable is an address as one types it on this machine.
func reachable(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port())
	}
	return a
}
