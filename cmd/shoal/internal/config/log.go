package config

import (
	"fmt"
	"log/slog"
	"strings"

	"shoal/internal/fault"
)

// ParseLevel reads a log level; empty means none was asked for, and reads as warn.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "", "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not debug, info, warn or error", s)
}

// CheckLogFormat refuses what is no format of a log; empty means none was asked for.
func CheckLogFormat(s string) error {
	switch s {
	case "", "auto", "text", "json":
		return nil
	}
	return fmt.Errorf("%q is not auto, text or json", s)
}

// Check refuses a level or a format that is none.
func (l Log) Check() error {
	if _, err := ParseLevel(l.Level); err != nil {
		return fault.New(fault.Config, "log.level: %w", err)
	}
	if err := CheckLogFormat(l.Format); err != nil {
		return fault.New(fault.Config, "log.format: %w", err)
	}
	return nil
}
