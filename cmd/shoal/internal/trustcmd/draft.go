package trustcmd

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/cmd/shoal/internal/words"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/ceremony"
)

// draftFlags say what the next root is to be.
type draftFlags struct {
	from                             []string
	fleet, root, reason, out         string
	channels, drop, bump             []string
	replace, add, remove, thresholds []string
	expires                          units.Duration
}

func newTrustDraftCmd(c *cli.CLI) *cobra.Command {
	var f draftFlags
	cmd := &cobra.Command{
		Use:   "draft",
		Short: "Draft a first root, or the next one from the last",
		Example: `  shoal trust draft --fleet acme --root 2:a.pub,b.pub,vault.pub --channel acme/stable=2:c.pub,d.pub,max=90d > root-1.json
  shoal trust draft --from root-1.env.json --replace ci=ci-2.pub --bump-epoch acme/nightly --reason "key leaked" > root-2.json`,
		Long: `The draft goes to standard output, or to --out; what it changes, who must sign it and which
releases will need new signatures is said beside it.

A channel is APP/CHANNEL=T:KEY,KEY,... where T of the keys must sign, with any of
  max=90d          the longest a release is believed (90d)
  beacon=KEY       the key of its beacon, and  stale=48h  how long a beacon is fresh
In a later root what is left out stays as it was.

A KEY is a public key file; after --from also the fingerprint or the comment of a key that root
has. A ROLE is root, APP/CHANNEL or APP/CHANNEL:beacon.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := before(cmd.Context(), c, f.from, false)
			if err != nil {
				return err
			}
			defer fleet.Close()
			return draftRoot(c, fleet, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.from, "from", nil, "the newest root `FILE`; the draft is the one that follows")
	fl.StringVar(&f.fleet, "fleet", "", "`NAME` of the fleet, for people")
	fl.StringVar(&f.root, "root", "", "the root keys and how many must sign: `T:KEY,KEY`")
	fl.StringArrayVar(&f.channels, "channel", nil, "a channel: `APP/CHANNEL=T:KEY,...`; may be given again")
	fl.StringArrayVar(&f.drop, "drop-channel", nil, "leave `APP/CHANNEL` out")
	fl.StringArrayVar(&f.replace, "replace", nil, "put one key in another's place everywhere: `OLD=KEY`")
	fl.StringArrayVar(&f.add, "add-key", nil, "add a key to a role: `ROLE=KEY`")
	fl.StringArrayVar(&f.remove, "remove-key", nil, "take a key out of every role, or of one: `[ROLE=]OLD`")
	fl.StringArrayVar(&f.thresholds, "threshold", nil, "how many keys of a role must sign: `ROLE=N`")
	fl.StringArrayVar(&f.bump, "bump-epoch", nil, "end the epoch of `APP/CHANNEL`: every release signed so far is void")
	fl.Var(&f.expires, "expires", "how long the root is believed (as the one before; 2y for a first one)")
	fl.StringVar(&f.reason, "reason", "", "why, for people: `TEXT`")
	fl.StringVar(&f.out, "out", "", "write the draft to `FILE` instead of standard output")
	return cmd
}

// draftRoot drafts a root and prints it.
func draftRoot(c *cli.CLI, fleet *ceremony.Fleet, f *draftFlags) error {
	d, err := f.draft(fleet)
	if err != nil {
		return err
	}
	return printRootDraft(c, fleet, d, f.out)
}

func printRootDraft(c *cli.CLI, fleet *ceremony.Fleet, d ceremony.RootDraft, out string) error {
	res, err := ceremony.DraftRoot(fleet, d, now())
	if err != nil {
		return err
	}
	c.WarnAll(res.Warnings)
	return c.PrintDocument("shoal.root_draft/v1", res, res.Payload, out, func(w io.Writer) {
		writeChanges(w, res.Changes)
		for _, n := range res.Needs {
			fmt.Fprintf(w, "then: %s\n", n.Text)
		}
		for _, s := range res.Signers {
			var names []string
			for _, k := range s.Missing {
				names = append(names, k.Name)
			}
			fmt.Fprintf(w, "must be signed by %d of %s (%s)\n", s.Threshold, words.Printable(strings.Join(names, ", ")), s.Role)
		}
		if fleet == nil {
			fmt.Fprintf(w, "fleet id, if it stays as it is: %s\n", res.FleetID)
		}
	})
}

func (f *draftFlags) draft(fleet *ceremony.Fleet) (ceremony.RootDraft, error) {
	d := ceremony.RootDraft{Fleet: f.fleet, Expires: f.expires.Duration(), Reason: f.reason, Thresholds: map[ceremony.RoleName]int{}}
	var err error
	if f.root != "" {
		if d.Root, err = parseRole("--root", f.root, fleet); err != nil {
			return d, err
		}
	}
	for _, s := range f.channels {
		ch, err := parseChannelDraft(s, fleet)
		if err != nil {
			return d, err
		}
		d.Channels = append(d.Channels, *ch)
	}
	if d.Drop, err = parseChannels("--drop-channel", f.drop); err != nil {
		return d, err
	}
	if d.Bump, err = parseChannels("--bump-epoch", f.bump); err != nil {
		return d, err
	}
	for _, s := range f.replace {
		old, fresh, ok := strings.Cut(s, "=")
		if !ok || old == "" {
			return d, cli.Usagef("--replace %q is not OLD=KEY", s)
		}
		k, err := readKey(fresh, fleet)
		if err != nil {
			return d, err
		}
		d.Replace = append(d.Replace, ceremony.Replacement{Old: old, New: k})
	}
	for _, s := range f.add {
		role, key, ok := strings.Cut(s, "=")
		if !ok {
			return d, cli.Usagef("--add-key %q is not ROLE=KEY", s)
		}
		name, err := ceremony.ParseRoleName(role)
		if err != nil {
			return d, err
		}
		k, err := readKey(key, fleet)
		if err != nil {
			return d, err
		}
		d.Add = append(d.Add, ceremony.RoleKey{Role: name, Key: k})
	}
	for _, s := range f.remove {
		role, key, ok := strings.Cut(s, "=")
		// A fingerprint may end in "=" nowhere, but a comment may hold one.
		name, err := ceremony.ParseRoleName(role)
		if !ok || err != nil {
			d.Remove = append(d.Remove, ceremony.OldKey{AnyRole: true, Key: s})
			continue
		}
		d.Remove = append(d.Remove, ceremony.OldKey{Role: name, Key: key})
	}
	for _, s := range f.thresholds {
		role, number, _ := strings.Cut(s, "=")
		name, err := ceremony.ParseRoleName(role)
		if err != nil {
			return d, err
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return d, cli.Usagef("--threshold %q is not ROLE=N", s)
		}
		d.Thresholds[name] = n
	}
	return d, nil
}

func parseChannels(flag string, list []string) ([]manifest.Channel, error) {
	var channels []manifest.Channel
	for _, s := range list {
		ch, err := manifest.ParseChannel(s)
		if err != nil {
			return nil, cli.Usagef("%s: %w", flag, err)
		}
		channels = append(channels, ch)
	}
	return channels, nil
}

// parseRole reads T:KEY,KEY.
func parseRole(flag, s string, fleet *ceremony.Fleet) (*keys.Role, error) {
	number, list, ok := strings.Cut(s, ":")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || list == "" {
		return nil, cli.Usagef("%s %q is not T:KEY,KEY where T is how many must sign", flag, s)
	}
	role := &keys.Role{Threshold: n}
	for _, ref := range strings.Split(list, ",") {
		k, err := readKey(ref, fleet)
		if err != nil {
			return nil, err
		}
		role.Keys = append(role.Keys, k)
	}
	return role, nil
}

// parseChannelDraft reads APP/CHANNEL=T:KEY,KEY,max=90d,beacon=KEY,stale=48h, of which
// each part may be missing.
func parseChannelDraft(s string, fleet *ceremony.Fleet) (*ceremony.ChannelDraft, error) {
	name, rest, ok := strings.Cut(s, "=")
	ch, err := manifest.ParseChannel(name)
	if !ok || err != nil {
		return nil, cli.Usagef("--channel %q is not APP/CHANNEL=T:KEY,KEY,max=90d", s)
	}
	d := &ceremony.ChannelDraft{Channel: ch}
	var role []string
	for _, part := range strings.Split(rest, ",") {
		word, value, named := strings.Cut(part, "=")
		if !named || !slices.Contains([]string{"max", "stale", "beacon"}, word) {
			role = append(role, part)
			continue
		}
		switch word {
		case "max", "stale":
			span, err := units.ParseDuration(value)
			if err != nil || span == 0 {
				return nil, cli.Usagef("--channel %s: %s=%q is not a duration such as 90d", ch, word, value)
			}
			if word == "max" {
				d.MaxValidity = span.Duration()
			} else {
				d.StaleAfter = span.Duration()
			}
		case "beacon":
			k, err := readKey(value, fleet)
			if err != nil {
				return nil, err
			}
			if d.Beacon == nil {
				d.Beacon = &keys.Role{Threshold: 1}
			}
			d.Beacon.Keys = append(d.Beacon.Keys, k)
		}
	}
	if len(role) > 0 {
		if d.Release, err = parseRole("--channel "+ch.String(), strings.Join(role, ","), fleet); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// readKey reads a public key file, or takes a key that the root before has.
func readKey(ref string, fleet *ceremony.Fleet) (keys.PublicKey, error) {
	if fleet != nil {
		if k, ok := fleet.Key(ref); ok {
			return k, nil
		}
	}
	k, err := keys.ReadPublic(ref)
	return k, cli.KeyError(ref, err)
}
