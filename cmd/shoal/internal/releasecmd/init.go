package releasecmd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
	"shoal/publisher"
)

// Init is shoal init.
func Init(c *cli.CLI) *cobra.Command {
	var req publisher.InitRequest
	var dir, store string
	var maxValidity, rootValidity units.Duration
	var plain bool
	cmd := &cobra.Command{
		Use:   "init --app APP --channel CHANNEL",
		Short: "Make a new fleet: its keys, its first root, its repository and publisher.yaml",
		Example: `  shoal init --app acme --channel stable
  shoal init --app acme --channel stable --channel nightly --threshold 2 --release-keys 3`,
		Long: `Nothing is ever overwritten: run again, it says what is there.

The fleet key keeps strangers out: machines that hold it speak TLS with each other and with the
publisher, and nobody else can read releases. Hand it to each machine apart from the join link. What
machines run is decided by signatures alone, with it or without.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.MaxValidity, req.RootValidity = maxValidity.Duration(), rootValidity.Duration()
			if err := initPlaces(c, &req, dir, store); err != nil {
				return err
			}
			if !plain {
				req.Passphrase = c.NewPassphrase
			}
			res, err := publisher.Init(cmd.Context(), req)
			if err != nil {
				return cli.OfferNoPassphrase(err)
			}
			return c.Print("shoal.init/v1", res, func(w io.Writer) { writeInit(w, c, res) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.App, "app", "", "`NAME` of the app")
	f.StringSliceVar(&req.Channels, "channel", nil, "`NAME` of a channel; may be given again")
	f.IntVar(&req.Threshold, "threshold", 1, "release keys that must sign a release")
	f.IntVar(&req.ReleaseKeys, "release-keys", 0, "release keys to make; as many as must sign when not given")
	f.IntVar(&req.RootThreshold, "root-threshold", 1, "root keys that must sign a root")
	f.IntVar(&req.RootKeys, "root-keys", 2, "root keys to make")
	f.Var(&maxValidity, "max-validity", "longest time a release is believed (90d)")
	f.Var(&rootValidity, "root-expires", "how long the root is believed (2y)")
	f.StringVar(&req.PublicURL, "public-url", "", "how machines will reach shoal serve, such as https://updates.acme.lan:7800")
	f.StringVar(&dir, "dir", "", "`DIR` for keys, publisher.yaml and store, instead of the usual places")
	f.StringVar(&store, "store", "", "`DIR` of the repository")
	f.BoolVar(&plain, "no-passphrase", false, "leave the private keys unprotected")
	f.BoolVar(&req.Beacon, "beacon", false, "make a beacon key too, with which shoal serve opens the gates of rollouts and holds them")
	f.BoolVar(&req.NoFleetKey, "no-fleet-key", false, "make an open fleet: whoever reaches it can read releases, stock BitTorrent clients too")
	c.PassphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file")
	return cli.Required(cmd, "app", "channel")
}

// initPlaces says where a new fleet goes: everything below --dir, or the usual places of
// this user.
func initPlaces(c *cli.CLI, req *publisher.InitRequest, dir, store string) error {
	req.ConfigFile = c.ConfigPath("publisher")
	if dir != "" {
		req.ConfigFile = filepath.Join(dir, "publisher.yaml")
	}
	home := filepath.Dir(req.ConfigFile)
	req.KeyDir = filepath.Join(home, "keys")
	switch {
	case store != "":
		req.Store = store
	case dir != "" || c.ConfigFlagFile() != "":
		req.Store = filepath.Join(home, "store")
	default:
		req.Store = publisherStore(c)
	}
	for _, path := range []*string{&req.ConfigFile, &req.KeyDir, &req.Store} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("finding %q: %w", *path, err)
		}
		*path = abs
	}
	return nil
}

// publisherStore is where a new repository goes: the system's place for root, else
// among the user's own state.
func publisherStore(c *cli.CLI) string {
	if runtime.GOOS == "windows" {
		return filepath.Join(c.Getenv("ProgramData"), "shoal-publisher")
	}
	if os.Geteuid() != 0 {
		if base := c.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
			return filepath.Join(base, "shoal-publisher")
		}
		if home := c.Getenv("HOME"); home != "" {
			return filepath.Join(home, ".local", "state", "shoal-publisher")
		}
	}
	return "/var/lib/shoal-publisher"
}

func writeInit(w io.Writer, c *cli.CLI, res *publisher.InitResult) {
	if res.Already {
		fmt.Fprintf(w, "Already there, and nothing was changed.\n")
		fmt.Fprintf(w, "Fleet id             %s\nConfiguration        %s\nRepository           %s\n", res.FleetID, res.Config, res.Store)
		return
	}
	protected := "NO passphrase"
	if res.Protected {
		protected = "passphrase set"
	}
	fmt.Fprintf(w, "Created root keys    %s   (%s; MOVE THEM OFFLINE, apart; %d of %d signs)\n",
		keyPaths(res.RootKeys), protected, res.RootNeeds, len(res.RootKeys))
	hint := ""
	if res.ReleaseNeeds == 1 {
		hint = "; for two people: --threshold 2"
	}
	name := "release key "
	if len(res.ReleaseKeys) > 1 {
		name = "release keys"
	}
	fmt.Fprintf(w, "Created %s %s   (%s; %d of %d publishes%s)\n",
		name, keyPaths(res.ReleaseKeys), protected, res.ReleaseNeeds, len(res.ReleaseKeys), hint)
	if len(res.BeaconKeys) > 0 {
		fmt.Fprintf(w, "Created beacon key   %s   (NO passphrase, so that shoal serve can open it; it opens gates and holds rollouts)\n", keyPaths(res.BeaconKeys))
	}
	if res.FleetKey != "" {
		fmt.Fprintf(w, "Created fleet key    %s   (keeps strangers out of the swarm; every machine needs a copy)\n", res.FleetKey)
	} else {
		fmt.Fprintf(w, "Fleet                open: there is no fleet key, so strangers can read releases, and change none\n")
	}
	fmt.Fprintf(w, "Wrote                %s\n", res.Config)
	fmt.Fprintf(w, "Repository           %s\n", res.Store)
	fmt.Fprintf(w, "Fleet id             %s (this is what machines pin)\n", res.FleetID)
	fmt.Fprintf(w, "Next: %s --version 1.0.0 ./dist/%s-*\n", withConfig(c, "publish", res.Config), res.Channels[0].App)
}

// withConfig is a command line for verb that finds the configuration again.
func withConfig(c *cli.CLI, verb, file string) string {
	if usual := c.ConfigPath("publisher"); c.ConfigFlagFile() == "" && usual == file {
		return "shoal " + verb
	}
	return "shoal --config " + words.Shell(file) + " " + verb
}

// keyPaths prints key files as one list, the directory once.
func keyPaths(files []publisher.KeyFile) string {
	var names []string
	for i, f := range files {
		if i == 0 {
			names = append(names, f.Path)
		} else {
			names = append(names, filepath.Base(f.Path))
		}
	}
	return strings.Join(names, ", ")
}
