package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// Schemas this build speaks, as "shoal version" tells them.
const (
	protocolVersion = 1
	manifestSchema  = "shoal.manifest.v1"
)

// build says which build this is, as far as it knows.
type build struct {
	Version  string    `json:"version"` // "0.0.0-dev" when nobody stamped it
	Commit   string    `json:"commit,omitempty"`
	Modified bool      `json:"modified,omitempty"`
	Time     time.Time `json:"-"` // of the commit; zero when unknown
	Date     string    `json:"date,omitempty"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	Protocol int       `json:"protocol"`
	Manifest string    `json:"manifest"`
}

func buildInfo() build {
	b := build{
		Version: "0.0.0-dev", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Protocol: protocolVersion, Manifest: manifestSchema,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; len(v) > 1 && v[0] == 'v' {
		b.Version = v[1:]
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				b.Time = t.UTC()
				b.Date = b.Time.Format(time.RFC3339)
			}
		}
	}
	return b
}

func newVersionCmd(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show which build this is and what it speaks",
		Example: `  shoal version
  shoal version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := buildInfo()
			return c.print("shoal.version/v1", b, func(w io.Writer) {
				fmt.Fprintf(w, "shoal     %s\n", b.Version)
				if b.Commit != "" {
					suffix := ""
					if b.Modified {
						suffix = " with changes"
					}
					fmt.Fprintf(w, "commit    %s%s, %s\n", b.Commit, suffix, b.Date)
				}
				fmt.Fprintf(w, "go        %s, %s\n", b.Go, b.Platform)
				fmt.Fprintf(w, "speaks    protocol %d, %s\n", b.Protocol, b.Manifest)
			})
		},
	}
}
