package main

import (
	"context"
	"io"

	"shoal/manifest"
)

// verifyRecipe prints how to check a release without shoal.
func (c *cli) verifyRecipe(ctx context.Context, ch manifest.Channel, version string) error {
	fleet, err := c.fleet(ctx)
	if err != nil {
		return err
	}
	script, err := fleet.Recipe(ch, version)
	if err != nil {
		return err
	}
	return c.print("shoal.recipe/v1", struct {
		Script string `json:"script"`
	}{script}, func(w io.Writer) { io.WriteString(w, script) })
}
