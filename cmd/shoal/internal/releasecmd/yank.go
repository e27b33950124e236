package releasecmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/internal/fault"
	"shoal/publisher"
)

// agreedOr answers a question of the publisher's, and names the flag that answers it too.
func agreedOr(c *cli.CLI, flag string) func(string) (bool, error) {
	return func(question string) (bool, error) {
		yes, err := c.Confirm(question)
		var e *fault.Error
		if errors.As(err, &e) {
			e.Do("or %s", flag)
		}
		return yes, err
	}
}

func newYankCmd(c *cli.CLI) *cobra.Command {
	var f publishing.AgainFlags
	var req publisher.YankRequest
	var critical bool
	cmd := &cobra.Command{
		Use:   "yank VERSION --to VERSION --reason TEXT",
		Short: "Take a release back: offer another instead, and block its files",
		Example: `  shoal release yank 1.8.3 --to 1.8.2 --reason "data loss on ext4"
  shoal release yank 1.8.3 --to 1.8.2 --reason "data loss" --draft`,
		Long: `The next sequence offers the files of the other release to every machine at once, and blocks those
of the one that is taken back; what was blocked before stays blocked. Machines that run a blocked
file replace it as soon as they see this.

It signs with every --key, or the configured ones; with fewer than the channel needs the draft and
its signatures are left in this directory for the next signer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Immediate && !critical {
				return cli.Usagef("--immediate goes with --critical")
			}
			if critical {
				req.Severity = "critical"
			}
			req.Version, req.Confirm = args[0], agreedOr(c, "--allow-version-regress")
			return f.SignAndPrint(cmd.Context(), c, func(ctx context.Context, p *publisher.Publisher) (*publisher.PublishResult, error) {
				req.AgainRequest = f.AgainRequest
				return p.Yank(ctx, req)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&req.To, "to", "", "offer this `VERSION` instead")
	fl.StringVar(&req.Reason, "reason", "", "why, for people: `TEXT`")
	fl.StringVar(&f.ChannelName, "channel", "", "`CHANNEL`, or APP/CHANNEL; may be left out where there is one")
	fl.BoolVar(&critical, "critical", false, "the change is critical")
	fl.BoolVar(&req.Immediate, "immediate", false, "with --critical: machines do not wait for their maintenance window")
	fl.BoolVar(&req.AllowVersionRegress, "allow-version-regress", false, "let machines go back to an older version, without asking")
	f.Register(c, cmd)
	return cli.Required(cmd, "to", "reason")
}
