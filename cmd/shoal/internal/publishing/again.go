package publishing

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/units"
	"shoal/keys"
	"shoal/publisher"
)

// AgainFlags are those of commands that sign once more what a channel has released: with
// another expiry, another plan, or files of before.
type AgainFlags struct {
	publisher.AgainRequest
	ChannelName string
	expires     units.Duration
	keys        []string
}

// Register gives cmd the flags.
func (f *AgainFlags) Register(c *cli.CLI, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.Var(&f.expires, "expires", "how long it is believed; by default as configured, else as root allows")
	fl.Int64Var(&f.Sequence, "sequence", 0, "jump forward to this sequence `N`")
	fl.StringArrayVar(&f.keys, "key", nil, "sign with this key: `REF`; may be given again; by default the configured ones")
	fl.BoolVar(&f.DryRun, "dry-run", false, "check everything, sign and change nothing")
	fl.BoolVar(&f.DraftOnly, "draft", false, "write the draft for review and signing elsewhere, publish nothing")
	c.PassphraseFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
}

// Sign fills f in and has do sign with it.
func (f *AgainFlags) Sign(ctx context.Context, c *cli.CLI, do func(context.Context, *publisher.Publisher) (*publisher.PublishResult, error)) (*publisher.PublishResult, error) {
	cfg, err := Config(c)
	if err != nil {
		return nil, err
	}
	p, err := publisher.Open(cfg)
	if err != nil {
		return nil, err
	}
	if f.Channel, err = p.Channel(f.ChannelName); err != nil {
		return nil, err
	}
	f.Expires = f.expires.Duration()
	f.Keys = func(ctx context.Context) ([]keys.Signer, error) { return Signers(ctx, c, f.keys, cfg.Keys.Release) }
	if err := ConfirmJump(c, publisher.PublishRequest{Channel: f.Channel, Sequence: f.Sequence, DryRun: f.DryRun}); err != nil {
		return nil, err
	}
	ctx, cancel := c.WithTimeout(ctx, 0)
	defer cancel()
	res, err := do(ctx, p)
	if err != nil {
		return nil, NextWithConfig(c, err)
	}
	c.WarnAll(res.Warnings)
	return res, nil
}

// SignAndPrint is Sign with its result printed.
func (f *AgainFlags) SignAndPrint(ctx context.Context, c *cli.CLI, do func(context.Context, *publisher.Publisher) (*publisher.PublishResult, error)) error {
	res, err := f.Sign(ctx, c, do)
	if err != nil {
		return err
	}
	return c.Print("shoal.publish/v1", res, func(w io.Writer) { WriteResult(c, w, res) })
}
