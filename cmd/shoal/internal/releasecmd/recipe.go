package releasecmd

import (
	"context"
	"io"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/manifest"
)

// verifyRecipe prints how to check a release without shoal.
func verifyRecipe(ctx context.Context, c *cli.CLI, ch manifest.Channel, version string) error {
	fleet, err := publishing.Fleet(ctx, c)
	if err != nil {
		return err
	}
	script, err := fleet.Recipe(ch, version)
	if err != nil {
		return err
	}
	return c.Print("shoal.recipe/v1", struct {
		Script string `json:"script"`
	}{script}, func(w io.Writer) { io.WriteString(w, script) })
}
