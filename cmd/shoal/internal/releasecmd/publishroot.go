package releasecmd

import (
	"context"
	"fmt"
	"io"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/publisher"
	"shoal/publisher/ceremony"
)

// publishRoot publishes the root of --envelope; failed is what went wrong looking at it.
func publishRoot(ctx context.Context, c *cli.CLI, cfg publisher.Config, f *publishFlags, args []string, failed error) error {
	if failed != nil {
		return failed
	}
	if len(args) > 0 || f.data != "" || len(f.keys) > 0 {
		return cli.Usagef("%q is a root: it comes without files, and is signed with shoal trust sign", f.envelope)
	}
	res, err := ceremony.PublishRoot(ctx, publishing.Source(cfg, nil), f.envelope, f.DryRun)
	if err != nil {
		return err
	}
	c.WarnAll(res.Warnings)
	return c.Print("shoal.publish_root/v1", res, func(w io.Writer) {
		switch {
		case res.Already:
			fmt.Fprintf(w, "Root %d is published already; nothing was changed.\n", res.Version)
		case res.DryRun:
			fmt.Fprintf(w, "Dry run: root %d of %s is good, and nothing was changed.\n", res.Version, res.FleetID)
		case res.Created:
			fmt.Fprintf(w, "Made the repository %s\nFleet id  %s (this is what machines pin)\n", res.Store, res.FleetID)
		default:
			fmt.Fprintf(w, "Published root %d of %s\n", res.Version, res.FleetID)
		}
		for _, n := range res.Needs {
			fmt.Fprintf(w, "Next: %s\n", n.Text)
		}
	})
}
