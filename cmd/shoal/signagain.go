package main

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/publisher"
)

// againFlags are those of commands that sign once more what a channel has released: with
// another expiry, another plan, or files of before.
type againFlags struct {
	publisher.AgainRequest
	channel string
	expires units.Duration
	keys    []string
}

func (f *againFlags) register(c *cli, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.Var(&f.expires, "expires", "how long it is believed; by default as configured, else as root allows")
	fl.Int64Var(&f.Sequence, "sequence", 0, "jump forward to this sequence `N`")
	fl.StringArrayVar(&f.keys, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&f.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&f.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	c.passphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
}

// signAgain fills f in and has do sign with it.
func (c *cli) signAgain(ctx context.Context, f *againFlags, do func(context.Context, *publisher.Publisher) (*publisher.PublishResult, error)) (*publisher.PublishResult, error) {
	cfg, err := c.publisherConfig()
	if err != nil {
		return nil, err
	}
	p, err := publisher.Open(cfg)
	if err != nil {
		return nil, err
	}
	if f.Channel, err = p.Channel(f.channel); err != nil {
		return nil, err
	}
	f.Expires = f.expires.Duration()
	f.Keys = func(ctx context.Context) ([]keys.Signer, error) { return c.openSigners(ctx, f.keys, cfg.Keys.Release) }
	if err := c.confirmJump(publisher.PublishRequest{Channel: f.Channel, Sequence: f.Sequence, DryRun: f.DryRun}); err != nil {
		return nil, err
	}
	ctx, cancel := c.withTimeout(ctx, 0)
	defer cancel()
	res, err := do(ctx, p)
	if err != nil {
		return nil, c.nextWithConfig(err)
	}
	c.warnAll(res.Warnings)
	return res, nil
}

// printAgain is signAgain with its result printed.
func (c *cli) printAgain(ctx context.Context, f *againFlags, do func(context.Context, *publisher.Publisher) (*publisher.PublishResult, error)) error {
	res, err := c.signAgain(ctx, f, do)
	if err != nil {
		return err
	}
	return c.print("shoal.publish/v1", res, func(w io.Writer) { c.writePublish(w, res) })
}

// openBeacon opens the key that signs beacons: the one that was named, or the configured
// one. It is nil where there is none; a configured file that is not on this machine is
// where shoal serve is.
func (c *cli) openBeacon(ctx context.Context, named, configured string) (keys.Signer, error) {
	ref := named
	if ref == "" {
		ref = configured
	}
	if ref == "" {
		return nil, nil
	}
	s, err := keys.Open(ctx, ref, c.passphrase)
	if err == nil {
		return s, nil
	}
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = keyError(ref, err)
	var e *fault.Error
	if errors.As(err, &e) {
		e.Line("It is the beacon key, which opens gates and holds rollouts.")
	}
	return nil, err
}
