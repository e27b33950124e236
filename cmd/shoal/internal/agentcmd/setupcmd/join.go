package setupcmd

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/machine"
	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/swarm/fleet"
)

type joinFlags struct {
	target, service, variant, kind string

	fleetKey string // file with the fleet's key
	from     string // bundle, instead of a server

	tofu, channel string // a URL instead of a link, and the channel that a link would name
}

func newJoinCmd(c *cli.CLI) *cobra.Command {
	var f joinFlags
	cmd := &cobra.Command{
		Use:   "join LINK",
		Short: "Pin this machine to a fleet and follow one of its channels",
		Example: `  sudo shoal agent join 'shoal:join?repo=sha256:...&app=acme&ch=stable&at=https://updates.example:7800' --target /opt/acme/acme
  SHOAL_LINK='shoal:join?...' shoal agent join --fleet-key ./fleet.key --target /opt/acme/acme --service acme.service --yes`,
		Long: `The link comes from the publisher (shoal link create), as an argument, in SHOAL_LINK, or as - on
standard input. Everything is verified before anything is written. Joining the same fleet again
changes nothing.

A fleet with a key is joined with --fleet-key FILE, which comes from its publisher apart from the link.
It is copied to where fleet_key_file says, or beside agent.yaml.

--from BUNDLE joins without a network: what is verified comes from the file. Then shoal agent import
installs what is in it.

Without a link, --trust-on-first-use URL takes the fleet that the server there says it is. Whoever
answers decides what this machine will run: compare the fleet id with one you know. Every status says
that it came this way.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			c.MakesConfig = true
			cfg, err := machine.Config(c)
			if err != nil {
				return err
			}
			cfg.Logger = c.Log() // a person reads this, not a journal
			add := &additions{}
			if err := givenFleetKey(c, &cfg, f.fleetKey, add); err != nil {
				return err
			}
			l, err := joinLink(ctx, c, cfg, args, f)
			if err != nil {
				return err
			}
			return join(ctx, c, cfg, l, f, add)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.target, "target", "", "the program's `PATH`: what is replaced, or put there first")
	fl.StringVar(&f.service, "service", "", "the systemd `UNIT` that runs it")
	fl.StringVar(&f.fleetKey, "fleet-key", "", "`FILE` with the fleet's key, which is copied")
	fl.StringVar(&f.from, "from", "", "take what is verified from the bundle `FILE`, not from the link's servers")
	fl.StringVar(&f.tofu, "trust-on-first-use", "", "instead of a link: join the fleet that the server at `URL` says it is")
	fl.StringVar(&f.channel, "channel", "", "with --trust-on-first-use: the `APP/CHANNEL` to follow")
	fl.StringVar(&f.variant, "variant", "", "the `VARIANT` of artifact to choose")
	fl.StringVar(&f.kind, "kind", "", "the `KIND` of artifact to expect: binary (the default) or tree")
	cmd.MarkFlagsMutuallyExclusive("from", "trust-on-first-use")
	return cmd
}

func joinLink(ctx context.Context, c *cli.CLI, cfg agent.Config, args []string, f joinFlags) (*link.Link, error) {
	if f.tofu != "" {
		if len(args) > 0 {
			return nil, cli.Usagef("--trust-on-first-use is instead of a link, and here are both").Do("join with the link alone: it names the fleet")
		}
		ch, err := manifest.ParseChannel(f.channel)
		if err != nil {
			return nil, cli.Usagef("--trust-on-first-use needs --channel APP/CHANNEL: %w", err)
		}
		return agent.FirstUseLink(ctx, cfg, f.tofu, ch)
	}
	if f.channel != "" {
		return nil, cli.Usagef("--channel goes with --trust-on-first-use; a link names its channel")
	}
	text := c.Getenv("SHOAL_LINK")
	if len(args) == 1 {
		text = args[0]
	}
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(c.Std.In, link.MaxSize+2))
		if err != nil {
			return nil, fmt.Errorf("reading the link: %w", err)
		}
		text = string(b)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, cli.Usagef("a join link is needed").Do("the publisher prints it: shoal link create")
	}
	return link.Parse(text)
}

// join works out the configuration, has the agent's room join, and writes what of the
// configuration is not there yet.
func join(ctx context.Context, c *cli.CLI, cfg agent.Config, l *link.Link, f joinFlags, add *additions) error {
	add.hints(cfg, l)
	app, err := joinedApp(&cfg, l, f, add)
	if err != nil {
		return err
	}
	whole := cfg.Apps
	cfg.Apps = []agent.AppConfig{app}
	if cfg.Sources.Publisher == "" {
		cfg.Sources.Publisher, add.Publisher = first(l.At), first(l.At)
	}
	for _, at := range l.At {
		if at != cfg.Sources.Publisher && !slices.Contains(cfg.Sources.Mirrors, at) {
			cfg.Sources.Mirrors, add.Mirrors = append(cfg.Sources.Mirrors, at), append(add.Mirrors, at)
		}
	}
	if cfg.Sources.Publisher == "" && f.from == "" {
		return fault.New(fault.Config, "the link names no server, and the configuration has no source").
			Do("set sources.publisher in the configuration, or get a link with at=URL").
			Do("without a network: shoal agent join LINK --from BUNDLE")
	}
	join := agent.Join
	switch {
	case f.tofu != "":
		join = agent.JoinOnFirstUse
	case f.from != "":
		join = func(ctx context.Context, cfg agent.Config, l *link.Link) (*agent.Joined, error) {
			return agent.JoinFrom(ctx, cfg, l, f.from)
		}
	}
	joined, err := join(ctx, cfg, l)
	if err != nil {
		return err
	}
	path := c.ConfigPath("agent")
	changed, err := add.write(path)
	if err != nil {
		return err
	}
	joined.Already = joined.Already && !changed && len(whole) > 0
	out := struct {
		*agent.Joined
		Config string `json:"config"`
	}{joined, path}
	return c.Print("shoal.join/v1", out, func(w io.Writer) { writeJoined(w, joined, f.from, time.Now()) })
}

// givenFleetKey reads the key that a person brings, and says where it is to be kept.
func givenFleetKey(c *cli.CLI, cfg *agent.Config, file string, add *additions) (err error) {
	if file == "" {
		return nil
	}
	if cfg.FleetKeys, err = fleet.Read(file); err != nil {
		return cli.KeyError(file, err)
	}
	if cfg.FleetKeyFile != "" {
		return nil
	}
	place, err := filepath.Abs(filepath.Join(filepath.Dir(c.ConfigPath("agent")), fleet.CredentialName))
	if err != nil {
		return cli.Usagef("finding a place for the fleet's key: %w", err)
	}
	cfg.FleetKeyFile, add.FleetKeyFile = place, place
	return nil
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// joinedApp is the app of the link: as it is configured, or as the flags say.
func joinedApp(cfg *agent.Config, l *link.Link, f joinFlags, add *additions) (agent.AppConfig, error) {
	target := f.target
	if target != "" {
		abs, err := filepath.Abs(target)
		if err != nil {
			return agent.AppConfig{}, cli.Usagef("--target %q: %w", target, err)
		}
		target = abs
	}
	for _, app := range cfg.Apps {
		if app.Name != l.Channel.App {
			continue
		}
		if app.Channel != l.Channel.Name || target != "" && filepath.Clean(app.Target) != target {
			return app, cli.Usagef("%s is configured already, with channel %s and target %s", app.Name, app.Channel, app.Target).
				Line("The link is for %s. Nothing was changed.", l.Channel).
				Do("change the entry in the configuration first, if the link is right")
		}
		return app, nil
	}
	if target == "" {
		return agent.AppConfig{}, cli.Usagef("--target PATH is needed: where is %s installed, or to be?", l.Channel.App)
	}
	app := agent.AppConfig{
		Name: l.Channel.App, Channel: l.Channel.Name, Target: target, Variant: f.variant, Kind: f.kind,
		Service: agent.ServiceConfig{Systemd: f.service},
	}
	add.App = &app
	return app, nil
}

func writeJoined(w io.Writer, j *agent.Joined, from string, now time.Time) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "  %s\t%s\n", name, words.Printable(fmt.Sprintf(format, args...)))
	}
	if j.TOFU {
		row("Fleet", "%s, TRUSTED ON FIRST USE: compare it with what the publisher's shoal init printed", j.Fleet)
	} else {
		row("Fleet", "%s matches the link", j.Fleet)
	}
	if j.Version != "" {
		row("Channel", "%s, release %s, signed by %s, %s", j.Channel, j.Version, strings.Join(j.SignedBy, " and "), words.Left(j.Expires, now))
	} else {
		row("Channel", "%s", j.Channel)
	}
	if j.Note != "" {
		row("Note", "%s", j.Note)
	}
	target := "no program yet: the first release is installed there"
	if j.Target.Present {
		target = "another version than the offered one"
		if j.Target.Version != "" {
			target = "is " + j.Target.Version
		}
	}
	row("Target", "%s %s, writable, %s free", j.Target.Path, target, humanize.IBytes(uint64(max(j.Target.Free, 0))))
	if j.FleetKey != "" {
		row("Fleet key", "%s", j.FleetKey)
	}
	row("Agent id", "%s", j.Agent)
	tw.Flush()
	if j.Already {
		fmt.Fprintln(w, "  This machine had already joined.")
	}
	if from != "" {
		fmt.Fprintf(w, "  Next: shoal agent import %s     then     shoal agent install --now, or shoal agent run\n", words.Printable(from))
		return
	}
	fmt.Fprintln(w, "  Next: shoal agent install --now, or shoal agent run     then     shoal agent status")
}
