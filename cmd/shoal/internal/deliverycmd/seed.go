package deliverycmd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/agent/holder"
	"shoal/agent/source"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/bundle"
	"shoal/swarm/fleet"
)

// Seed is shoal seed.
func Seed(c *cli.CLI) *cobra.Command {
	var (
		cache, up        units.Size
		platforms        []string
		fleetKey, listen string
	)
	cmd := &cobra.Command{
		Use:   "seed WHAT...",
		Short: "Hold what channels offer, and give it to neighbours: a branch office",
		Example: `  shoal seed 'shoal:join?repo=sha256:...' --fleet-key ./fleet.key --cache 20GB --up 50MB
  shoal seed acme/stable https://mirror.example/shoal /mnt/stick/acme-stable-43.shoalbundle`,
		Long: `WHAT is a join link, or, on a machine that has joined, a channel of its fleet: what to hold, and whom to
trust. URLs of mirrors, directories with the files of one, and bundles are more sources. Documents are
verified as an agent verifies them; the newest release's files, for all platforms, are kept in a cache
and given to peers; nothing is installed. It runs until it is interrupted, and gives what it has when no
source answers. Its state and cache are in the directory "seed" of the state directory.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			channels, refs := seedArgs(args)
			if len(channels) == 0 {
				return cli.Usagef("a join link or a channel is needed: it says whom to trust").Do("the publisher prints a link: shoal link create")
			}
			dir, err := filepath.Abs(filepath.Join(c.StateDir(), "seed"))
			if err != nil {
				return cli.Usagef("--state: %w", err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fault.New(fault.Permission, "making a place for what is held: %w", err).Do("choose one with --state DIR")
			}
			cfg, err := holding(c, channels, fleetKey, dir)
			if err != nil {
				return err
			}
			cfg.Dir, cfg.Size, cfg.Listen = dir, cache.Bytes(), listen
			if n := up.Bytes(); n > 0 {
				cfg.Limits.Up = n
			}
			for _, s := range platforms {
				p, err := manifest.ParsePlatform(s)
				if err != nil {
					return cli.Usagef("--platform: %w", err)
				}
				cfg.Platforms = append(cfg.Platforms, p)
			}
			more, closeAll, err := openPlaces(refs, cfg.Fleet)
			if err != nil {
				return err
			}
			defer closeAll()
			cfg.Sources = append(cfg.Sources, more...)
			h, err := holder.Open(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer h.Close()
			return h.Run(cmd.Context(), tellRounds(c))
		},
	}
	fl := cmd.Flags()
	fl.Var(&cache, "cache", "hold at most this much (no limit)")
	fl.Var(&up, "up", "give at most this much per second outside the LAN (no limit)")
	fl.StringArrayVar(&platforms, "platform", nil, "only the artifacts for `OS/ARCH`; may be given again; by default all")
	fl.StringVar(&fleetKey, "fleet-key", "", "with a link: `FILE` with the fleet's key")
	fl.StringVar(&listen, "listen", ":7801", "where peers reach this machine, `HOST:PORT`")
	return cmd
}

// seedArgs tells what is to be held from where it may come from.
func seedArgs(args []string) (channels, refs []string) {
	for _, a := range args {
		_, err := os.Stat(a)
		isPath := err == nil || filepath.IsAbs(a) || strings.HasSuffix(a, bundle.Suffix)
		if a == "-" || strings.HasPrefix(a, "shoal:") || !isPath && !strings.Contains(a, "://") {
			channels = append(channels, a)
		} else {
			refs = append(refs, a)
		}
	}
	return channels, refs
}

// openPlaces opens mirrors, directories and bundles.
func openPlaces(refs []string, m *fleet.Member) (all []source.Source, closeAll func(), err error) {
	var open []io.Closer
	closeAll = func() {
		for _, o := range open {
			o.Close()
		}
	}
	for _, ref := range refs {
		if fi, serr := os.Stat(ref); serr == nil && !fi.IsDir() || strings.HasSuffix(ref, bundle.Suffix) {
			b, err := source.OpenBundle(ref)
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			open, all = append(open, b), append(all, b)
			continue
		}
		if !strings.Contains(ref, "://") {
			if ref, err = filepath.Abs(ref); err != nil {
				closeAll()
				return nil, nil, err
			}
		}
		s, err := source.Open(ref, source.Options{Transport: fleet.Transport(m), UserAgent: "shoal/" + cli.BuildInfo().Version})
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		all = append(all, s)
	}
	return all, closeAll, nil
}

// tellRounds prints the first round, and then what has changed.
func tellRounds(c *cli.CLI) func(holder.Round) {
	var last holder.Round
	return func(r holder.Round) {
		if slices.Equal(last.Channels, r.Channels) && last.Listen == r.Listen {
			return
		}
		last = r
		err := c.Print("shoal.seed/v1", r, func(w io.Writer) {
			for _, ch := range r.Channels {
				fmt.Fprintf(w, "%s %s: %d of %d files are given to peers on %s", ch.Channel, ch.Version, ch.Held, ch.Of, r.Listen)
				if ch.Code != fault.OK {
					fmt.Fprintf(w, "   %s  [%s]", words.Printable(ch.Text), ch.Code)
				}
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "holding %s\n", humanize.IBytes(uint64(r.Bytes)))
		})
		if err != nil {
			c.Warn("%v", err) // nobody reads; giving goes on
		}
	}
}
