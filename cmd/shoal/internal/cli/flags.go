package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"shoal/manifest"
)

// Required marks flags that must be given and returns cmd.
func Required(cmd *cobra.Command, flags ...string) *cobra.Command {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			cmd.PreRunE = func(*cobra.Command, []string) error { return err } // no such flag: no test passes
		}
	}
	return cmd
}

// Digest reads a SHA-256, with "sha256:" before it or without.
func Digest(flag, value string) (manifest.Digest, error) {
	d, err := manifest.ParseDigest(strings.TrimPrefix(value, "sha256:"))
	if err != nil {
		return d, Usagef("--%s: %w", flag, err)
	}
	return d, nil
}
