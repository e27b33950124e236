package cli

import (
	"log/slog"

	"shoal/cmd/shoal/internal/config"
)

// Log is the logger of a command that a person runs and reads: warnings, unless the
// flags ask for more.
func (c *CLI) Log() *slog.Logger { return c.ServiceLog("warn", "auto") }

// ServiceLog is the logger of a command that runs for long, with the configured
// level and format where no flag says otherwise.
func (c *CLI) ServiceLog(level, format string) *slog.Logger {
	if c.flags.logLevel != "" {
		level = c.flags.logLevel
	} else if c.flags.verbose {
		level = "debug"
	} else if c.flags.quiet {
		level = "error"
	}
	if c.flags.logFormat != "" {
		format = c.flags.logFormat
	}
	lvl, err := config.ParseLevel(level)
	if err != nil {
		lvl = slog.LevelInfo // the configuration's own check has refused it already
	}
	opts := &slog.HandlerOptions{Level: lvl}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(c.Std.Err, opts))
	}
	if format == "auto" && c.Getenv("JOURNAL_STREAM") != "" {
		// The journal stamps every line itself.
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(c.Std.Err, opts))
}
