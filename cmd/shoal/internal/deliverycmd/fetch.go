package deliverycmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/agent/acquire"
	"shoal/agent/holder"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/swarm/fleet"
)

// Fetch is shoal fetch.
func Fetch(c *cli.CLI) *cobra.Command {
	var (
		platform, out, fleetKey, listen string
		seed                            bool
	)
	cmd := &cobra.Command{
		Use:   "fetch CHANNEL | LINK",
		Short: "Get a channel's newest release as a file, verified; install nothing",
		Example: `  shoal fetch acme/stable --out ./acme
  shoal fetch 'shoal:join?repo=sha256:...' --fleet-key ./fleet.key --platform linux/arm64 --out ./acme-arm64`,
		Long: `The file comes from peers and, when they have nothing for a while, from the sources. It has its name
when it is whole and the signed one; until then what had the name stays. A fetch that is cut off goes on
from where it was.

On a machine that has joined a fleet, a CHANNEL of that fleet is enough, and nothing older is taken than
what its agent has seen; the agent is not disturbed. Elsewhere the join link says whom to trust; - reads
it from standard input. --seed goes on giving the file to peers until it is interrupted.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.CompleteChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := holder.Request{Platform: manifest.Host(), Out: out, Seed: seed}
			if platform != "" {
				var err error
				if req.Platform, err = manifest.ParsePlatform(platform); err != nil {
					return cli.Usagef("--platform: %w", err)
				}
			}
			cfg, err := holding(c, args[:1], fleetKey, "")
			if err != nil {
				return err
			}
			cfg.Listen = listen
			lines := machine.NewProgress(c)
			req.Tell = func(f holder.Fetched, p acquire.Progress) {
				lines.Show(agent.Progress{App: f.App, Version: f.Version, State: manifest.StateDownloading,
					Done: p.Done, Total: f.Length, Rate: p.Rate, Peers: p.Peers})
			}
			req.Done = func(f holder.Fetched) error { return tellFetched(c, f, seed) }
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			return gaveUp(ctx, c, holder.Fetch(ctx, cfg, req))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&platform, "platform", "", "the artifact for `OS/ARCH`; by default this machine's")
	fl.StringVar(&out, "out", ".", "the `FILE` to write, or a directory")
	fl.StringVar(&fleetKey, "fleet-key", "", "with a link: `FILE` with the fleet's key")
	fl.BoolVar(&seed, "seed", false, "then give it to peers until interrupted")
	fl.StringVar(&listen, "listen", ":0", "where peers reach this command, `HOST:PORT`")
	return cmd
}

// holding is what a holder is made of for channels and links, as a person names them.
// leaf is where its identity among peers is kept.
func holding(c *cli.CLI, what []string, fleetKey, leaf string) (holder.Config, error) {
	c.MakesConfig = true // a link says enough
	cfg, err := machine.Config(c)
	if err != nil {
		return holder.Config{}, err
	}
	cfg.Logger = c.Log() // a person reads this, not a journal
	if fleetKey != "" {
		if cfg.FleetKeys, err = fleet.Read(fleetKey); err != nil {
			return holder.Config{}, cli.KeyError(fleetKey, err)
		}
		cfg.FleetKeyFile = fleetKey
	}
	var links []*link.Link
	var channels []manifest.Channel
	for _, w := range what {
		if w == "-" || strings.HasPrefix(w, "shoal:") {
			l, err := readLink(c, w)
			if err != nil {
				return holder.Config{}, err
			}
			links = append(links, l)
			continue
		}
		ch, err := channelOf(cfg, w)
		if err != nil {
			return holder.Config{}, err
		}
		channels = append(channels, ch)
	}
	h, err := cfg.Holding(links, leaf)
	h.Channels = append(h.Channels, channels...)
	return h, err
}

// channelOf is the channel that a person names: in full, or one that this machine follows.
func channelOf(cfg agent.Config, name string) (manifest.Channel, error) {
	if strings.Contains(name, "/") {
		ch, err := manifest.ParseChannel(name)
		if err != nil {
			return ch, cli.Usagef("%w", err)
		}
		return ch, nil
	}
	app, err := machine.Followed(cfg, "", name)
	if err != nil {
		return manifest.Channel{}, err
	}
	return manifest.Channel{App: app, Name: name}, nil
}

// readLink reads a join link, from standard input for "-".
func readLink(c *cli.CLI, text string) (*link.Link, error) {
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(c.Std.In, link.MaxSize+2))
		if err != nil {
			return nil, fmt.Errorf("reading the link: %w", err)
		}
		text = string(b)
	}
	return link.Parse(strings.TrimSpace(text))
}

// gaveUp tells --timeout from what else ends a wait.
func gaveUp(ctx context.Context, c *cli.CLI, err error) error {
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return fault.New(fault.Unreachable, "gave up after %s: %w", c.Timeout(), err).Do("allow more time: --timeout")
	}
	return err
}

func tellFetched(c *cli.CLI, f holder.Fetched, seed bool) error {
	return c.Print("shoal.fetch/v1", f, func(w io.Writer) {
		fmt.Fprintf(w, "%s/%s %s for %s is in %s\n", f.App, f.Channel, f.Version, f.Platform, words.Printable(f.Out))
		fmt.Fprintf(w, "  verified: %s, sha256 %s, good until %s\n", words.Size(f.Length), f.SHA256, f.Expires.UTC().Format(time.DateOnly))
		if f.Already {
			fmt.Fprintln(w, "  it was there already")
		} else {
			fmt.Fprintf(w, "  lan %s, wan %s, origin %s, webseed %s, in %.1f s\n",
				words.Size(f.Bytes.LAN), words.Size(f.Bytes.WAN), words.Size(f.Bytes.Origin), words.Size(f.Bytes.Webseed), f.Seconds)
		}
		if f.Note != "" {
			fmt.Fprintln(w, "  note: "+f.Note)
		}
		for _, e := range f.Events {
			fmt.Fprintf(w, "  note: %s: %s [%s]\n", e.Doc, words.Printable(e.Detail), e.Code)
		}
		if seed {
			fmt.Fprintln(w, "Giving it to peers.  Stop: Ctrl-C")
		}
	})
}
