package cli

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Schemas this build speaks, as "shoal version" tells them.
const (
	protocolVersion = 1
	manifestSchema  = "shoal.manifest.v1"
)

// Build says which build this is, as far as it knows.
type Build struct {
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

// BuildInfo says which build is running.
func BuildInfo() Build {
	b := Build{
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
