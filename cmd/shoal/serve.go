package main

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/units"
	"shoal/publisher"
)

func newServeCmd(c *cli) *cobra.Command {
	var up units.Size
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Give releases away: origin seed, tracker and files over HTTP",
		Example: `  shoal serve
  shoal serve --listen :7800 --swarm :7801 --public-url http://updates.acme.lan:7800 --up 50MB`,
		Long: `It holds no key and signs nothing. What is published while it runs is served within about a
second. It runs until it is interrupted.

  /m /info /data /releases ...   the repository, as any web server could serve it
  /announce /scrape              BitTorrent tracker for this repository's releases
  /healthz                       200 once everything published is served
  /api/v1/status                 what is given away, as JSON`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.publisherConfig()
			if err != nil {
				return err
			}
			p, err := publisher.Open(cfg)
			if err != nil {
				return err
			}
			return p.Serve(cmd.Context(), func(s publisher.Serving) { c.serving(cfg, s) })
		},
	}
	f := cmd.Flags()
	f.String("listen", "", "serve HTTP on `HOST:PORT` (:7800)")
	f.String("swarm", "", "serve BitTorrent on `HOST:PORT` (:7801)")
	f.String("public-url", "", "how machines reach this: `URL`")
	f.Var(&up, "up", "give at most this much per second (no limit)")
	configFlag(cmd, "listen", "serve.listen")
	configFlag(cmd, "swarm", "serve.swarm")
	configFlag(cmd, "public-url", "serve.public_url")
	configFlag(cmd, "up", "serve.up")
	return cmd
}

// serving tells where the publisher serves, once it does.
func (c *cli) serving(cfg publisher.Config, s publisher.Serving) {
	url := cfg.Serve.PublicURL
	if url == "" {
		url = "http://" + reachable(s.HTTP).String()
	}
	out := struct {
		URL   string `json:"url"`
		HTTP  string `json:"http"`
		Swarm string `json:"swarm"`
		Seeds int    `json:"seeds"`
	}{url, s.HTTP.String(), s.Swarm.String(), s.Seeds}
	err := c.print("shoal.serving/v1", out, func(w io.Writer) {
		fmt.Fprintf(w, "Serving %s   BitTorrent on %s   %d payload(s)\n", url, s.Swarm, s.Seeds)
		fmt.Fprintf(w, "Status: %s/api/v1/status      Next: shoal link create      Stop: Ctrl-C\n", url)
	})
	if err != nil {
		c.warn("%v", err) // nobody reads; serving goes on
	}
}

// reachable is an address as one types it on this machine.
func reachable(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port())
	}
	return a
}
